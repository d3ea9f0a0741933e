"""Ctrl+C, and SIGTERM: neither gets lost, and a training under way finishes its epoch first.

SIGINT is Ctrl+C, for which Python raises KeyboardInterrupt. A command that wants the same for
SIGTERM, which says that a process shall end, makes `raise_terminated` its handler.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_DEFERRED = b"The epoch under way is finished and kept first; once more stops at once.\n"


class Terminated(KeyboardInterrupt):
    """SIGTERM, as KeyboardInterrupt is SIGINT."""


def raise_terminated(number: int, frame: Any) -> NoReturn:
    """A handler for SIGTERM."""
    raise Terminated


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], None]]:
    """Makes sure that an interruption ends a block with KeyboardInterrupt.

    Where TensorFlow traces a function, it turns a KeyboardInterrupt into an error of another
    kind, for which somebody else would take the blame: a student, say, whose trial would be
    recorded as failed. Blocks may be nested. Outside of the main thread this does nothing, as
    Python gives signals to that one only.

    Yields:
        A function that raises KeyboardInterrupt if there was one: to be called before anybody
        is blamed within the block.

    Raises:
        KeyboardInterrupt: At the end of the block at the latest, whatever became of the first.

    Example:
        >>> try:
        ...     with interruptible(), contextlib.suppress(KeyboardInterrupt):
        ...         signal.raise_signal(signal.SIGINT)
        ... except KeyboardInterrupt:
        ...     print("It was not lost.")
        It was not lost.
    """
    interruption: KeyboardInterrupt | None = None

    def note(previous: Callable[..., Any], number: int, frame: Any) -> None:
        nonlocal interruption
        try:
            previous(number, frame)
        except KeyboardInterrupt as error:
            interruption = error
            raise

    def check() -> None:
        if interruption is not None:
            raise type(interruption)

    with _handled(note):
        try:
            yield check
        except Exception:
            check()
            raise
    check()


class _StoppedError(KeyboardInterrupt):
    """A thread stops for an interruption that the main thread will raise."""


class Deferred:
    """An interruption that waits for a good moment.

    Attributes:
        is_asked: Whether there is one.
    """

    def __init__(self) -> None:
        self.is_asked = False
        self._raise: Callable[[], Any] = lambda: None

    def ask(self, previous: Callable[..., Any], number: int, frame: Any) -> None:
        """Takes a signal in; a second one is let through."""
        if self.is_asked:
            previous(number, frame)
        self.is_asked, self._raise = True, lambda: previous(number, None)
        with contextlib.suppress(OSError):  # nobody may read it any more
            os.write(2, _DEFERRED)

    def check(self) -> None:
        """Raises the interruption, if there is one; in any thread, until the main one does.

        Where a handler of the user's raises nothing, the work goes on.
        """
        if not self.is_asked:
            return
        if threading.current_thread() is not threading.main_thread():
            raise _StoppedError
        self.is_asked = False
        self._raise()


@contextlib.contextmanager
def deferred() -> Iterator[Deferred]:
    """Lets interruptions wait until somebody asks, or until the block ends.

    Yields:
        What to ask.

    Raises:
        KeyboardInterrupt: There was one.

    Example:
        >>> try:
        ...     with deferred() as interruption:
        ...         signal.raise_signal(signal.SIGINT)
        ...         print(interruption.is_asked)
        ... except KeyboardInterrupt:
        ...     print("Now.")
        True
        Now.
    """
    interruption = Deferred()
    with _handled(interruption.ask):
        try:
            yield interruption
        except _StoppedError:
            interruption.check()
            raise KeyboardInterrupt from None
    interruption.check()


@contextlib.contextmanager
def _handled(handle: Callable[[Callable[..., Any], int, Any], None]) -> Iterator[None]:
    """Puts something before the handlers of signals, which it is given; in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    ours = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number, handler in ours.items():
        signal.signal(number, _before(handle, handler))
    try:
        yield
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)


def _before(
    handle: Callable[[Callable[..., Any], int, Any], None], previous: Callable[..., Any]
) -> Callable[[int, Any], None]:
    return lambda number, frame: handle(previous, number, frame)
