"""Times things side by side, in turn, so that what disturbs the machine disturbs all of them."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Finding:
    """One figure of a benchmark, and the bar it is held against.

    Attributes:
        name: What was measured.
        value: The figure: a ratio of medians, a share, or seconds.
        unit: "x" for a ratio, "s", "%", or nothing.
        low: The lower quartile of the rounds' own ratios; None if there was one round.
        high: The upper quartile.
        limit: The bar; None if there is none.
        at_least: Whether the bar is a least value; else it is a greatest one.
        detail: What else belongs to it, in a few words.
    """

    name: str
    value: float
    unit: str = "x"
    low: float | None = None
    high: float | None = None
    limit: float | None = None
    at_least: bool = False
    detail: str = ""

    @property
    def is_met(self) -> bool | None:
        """Whether the bar is met; None without one."""
        if self.limit is None:
            return None
        return bool(self.value >= self.limit if self.at_least else self.value <= self.limit)

    def line(self) -> str:
        """The finding as a line of text."""
        text = f"{self.name}: {self.value:.3g} {self.unit}".rstrip()
        if self.low is not None and self.high is not None:
            text += f" ({self.low:.3g} to {self.high:.3g})"
        if self.limit is not None:
            sign = ">=" if self.at_least else "<="
            text += f", bar {sign} {self.limit:g}: {'met' if self.is_met else 'MISSED'}"
        return text + (f"; {self.detail}" if self.detail else "")


def alternate(
    functions: Mapping[str, Callable[[], Any]], rounds: int, warm_ups: int = 1
) -> dict[str, list[float]]:
    """Seconds of functions that are called in turn.

    Args:
        functions: What to time, by name; each waits for its own result.
        rounds: How often each is timed.
        warm_ups: How often each is called before, untimed.
    """
    secs: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(warm_ups + rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if turn >= warm_ups:
                secs[name].append(time.perf_counter() - start)
    return secs


def ratio(
    name: str,
    first: Sequence[float],
    second: Sequence[float],
    limit: float | None = None,
    at_least: bool = False,
    detail: str = "",
) -> Finding:
    """The ratio of two medians, with the quartiles of the ratios of each round."""
    each = np.divide(first, second)
    low, high = np.percentile(each, [25, 75])
    value = statistics.median(first) / statistics.median(second)
    medians = f"{statistics.median(first):.3g} s to {statistics.median(second):.3g} s"
    detail = f"{medians}, {detail}" if detail else medians
    return Finding(name, value, "x", float(low), float(high), limit, at_least, detail)
