"""Acquisition functions: how much a candidate is worth evaluating.

Each file holds the function of its own name, and every function is called alike:

    scores = acquisition(predictive_distribution, best_observations)

with the predictive distribution of batch shape `[K]` and event shape `[M]` (its `mean()` and
`stddev()` are `[K, M]`, stddev above 0) and the best observation of each kernel `[K]`. Scores are
`[K, M]`, higher is better. Settings are keyword arguments with defaults; bind others with
`functools.partial`.

A new one is a new file here, and nothing else: `names` and `get` find it, and the contract test
runs over it. TensorFlow is imported when `get` is first called.

Example:
    >>> sorted(set(names()) & {"expected_improvement", "upper_confidence_bound"})
    ['expected_improvement', 'upper_confidence_bound']
"""

from __future__ import annotations

from typing import Any, Protocol

from esnac_tf.families import Family

__all__ = ["FAMILY", "Acquisition", "get", "names"]

FAMILY = Family("acquisition", __name__)


class Acquisition(Protocol):
    """A function that scores candidates from predictions about them."""

    def __call__(self, predictive_distribution: Any, best_observations: Any) -> Any:
        """Scores `[K, M]` from a distribution `[K]`, `[M]` and best observations `[K]`."""


def names() -> list[str]:
    """The names of all acquisition functions, sorted.

    Returns:
        One name for each file of this folder.

    Example:
        >>> "expected_improvement" in names()
        True
    """
    return FAMILY.names()


def get(name: str) -> Acquisition:
    """Finds an acquisition function by its name.

    Args:
        name: One of `names()`.

    Returns:
        The function.

    Raises:
        UnknownNameError: There is no such file.

    Example:
        >>> get("expected_improvement").__name__
        'expected_improvement'
        >>> get("luck")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        esnac_tf.errors.UnknownNameError: Unknown acquisition 'luck'.
        Known: ... A new one is added in esnac_tf/acquisitions/.
    """
    function: Acquisition = getattr(FAMILY.module(name), name)
    return function
