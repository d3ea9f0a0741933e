"""Where the wall time of a run goes, by parts that don't overlap.

Whoever does a piece of work says which part it belongs to, with `measured`. There is one profile
at a time, that of the run; without one nothing is measured.
"""

from __future__ import annotations

import contextlib
import contextvars
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from esnac_tf.quantities import duration

# What the wall time of a run goes into.
PARTS = ("import", "data", "teacher", "calibration", "surrogate", "building", "tracing",
         "training", "evaluation", "writing")  # fmt: skip

# Smaller shares are told together.
_LEAST_SHARE = 0.01


class Profile:
    """Wall seconds by part; of parts inside one another, the inner one counts.

    Args:
        clock: Seconds that pass.

    Example:
        >>> ticks = iter([0.0, 1.0, 2.0, 5.0, 7.0, 8.0])
        >>> profile = Profile(lambda: next(ticks))
        >>> with profile.measured("training"):
        ...     with profile.measured("tracing"):
        ...         pass
        >>> profile.seconds()
        {'tracing': 3.0, 'training': 3.0, 'other': 2.0}
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._since = clock()
        self._seconds: dict[str, float] = {}
        self._open: list[str] = []
        self._sealed = False

    @contextlib.contextmanager
    def measured(self, part: str, whole: bool = False) -> Iterator[None]:
        """Counts the time of a block.

        Args:
            part: One of `PARTS`.
            whole: Whether parts inside it count to it, too.
        """
        if part not in PARTS:
            raise ValueError(f"part must be one of {', '.join(PARTS)}, received {part!r}.")
        if self._sealed:
            yield
            return
        self._charge()
        self._open.append(part)
        self._sealed = whole
        try:
            yield
        finally:
            self._charge()
            self._open.pop()
            self._sealed = False

    def seconds(self) -> dict[str, float]:
        """Seconds of each part so far, in the order of `PARTS`, and of all `other` work."""
        self._charge()
        known = {part: self._seconds[part] for part in PARTS if part in self._seconds}
        return {**known, "other": self._seconds.get("other", 0.0)}

    def _charge(self) -> None:
        """Counts the time since the last call to the part that was at work."""
        now = self._clock()
        part = self._open[-1] if self._open else "other"
        self._seconds[part] = self._seconds.get(part, 0.0) + now - self._since
        self._since = now


_current: contextvars.ContextVar[Profile | None] = contextvars.ContextVar("profile", default=None)


@contextlib.contextmanager
def profiled() -> Iterator[Profile]:
    """The profile of the run that is under way, or a new one.

    Example:
        >>> with profiled() as profile, measured("data"):
        ...     pass
        >>> list(profile.seconds())
        ['data', 'other']
    """
    current = _current.get()
    if current is not None:
        yield current
        return
    profile = Profile()
    token = _current.set(profile)
    try:
        yield profile
    finally:
        _current.reset(token)


@contextlib.contextmanager
def measured(part: str, whole: bool = False) -> Iterator[None]:
    """Counts the time of a block in the profile of the run, if there is one.

    Args:
        part: One of `PARTS`.
        whole: Whether parts inside it count to it, too.
    """
    profile = _current.get()
    with contextlib.nullcontext() if profile is None else profile.measured(part, whole):
        yield


def part_of_call(function: Any, part: str) -> str:
    """The part that a call of a `tf.function` belongs to: its first one traces and compiles.

    Args:
        function: The `tf.function`.
        part: The part of its later calls.
    """
    return part if function.experimental_get_tracing_count() else "tracing"


def seconds_so_far() -> dict[str, float]:
    """What the run that is under way took, as `Profile.seconds`; nothing if there is none."""
    profile = _current.get()
    return {} if profile is None else profile.seconds()


def profile_line(seconds: Mapping[str, float]) -> str:
    """Says in one line what the wall time went into, the largest share first.

    Args:
        seconds: As `Profile.seconds` gives them.

    Example:
        >>> profile_line({"training": 75.0, "tracing": 23.0, "writing": 0.5, "other": 1.5})
        'Time 1 min 40 s: training 75 %, tracing 23 %, other 2 %.'
    """
    total = sum(seconds.values())
    shares = {part: secs / total for part, secs in seconds.items()} if total > 0 else {}
    named = {part: share for part, share in shares.items() if share >= _LEAST_SHARE}
    other = 1 - sum(share for part, share in named.items() if part != "other")
    named.pop("other", None)
    told = sorted(named.items(), key=lambda item: -item[1])
    if shares and other >= _LEAST_SHARE:
        told.append(("other", other))
    words = ", ".join(f"{part} {share:.0%}".replace("%", " %") for part, share in told)
    return f"Time {duration(total)}: {words}." if words else f"Time {duration(total)}."
