"""Ctrl+C that can't get lost."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], None]]:
    """Makes sure that Ctrl+C ends a block with KeyboardInterrupt.

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
    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(previous):
        yield lambda: None
        return
    was_interrupted = False

    def check() -> None:
        if was_interrupted:
            raise KeyboardInterrupt

    def note(number: int, frame: Any) -> None:
        nonlocal was_interrupted
        was_interrupted = True
        previous(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield check
    except Exception:
        if was_interrupted:
            raise KeyboardInterrupt from None
        raise
    finally:
        signal.signal(signal.SIGINT, previous)
    check()
