"""Strategies: who proposes the students that are evaluated. One file each, found by its name.

A strategy is any class with the two methods of `Strategy`. A new one is a file of this folder
with a function `create(context)`; no other file changes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from esnac_tf.architecture import ActionSet
from esnac_tf.families import Family
from esnac_tf.surrogate import SurrogateConfig
from esnac_tf.trial import Trial

if TYPE_CHECKING:
    from esnac_tf.search_space.space import SearchSpace


FAMILY = Family("strategy", __name__, frozenset({"history"}))


class Strategy(Protocol):
    """Proposes students, and learns from what became of them."""

    def suggest(self, count: int, pending: Sequence[ActionSet] = ()) -> list[ActionSet]:
        """Proposes students that were not proposed before, all different.

        All randomness comes from the seed and the number of students proposed so far, so a search
        that is resumed proposes what an uninterrupted one would have; with students that are still
        evaluated it depends on which of them are finished by then, too.

        Args:
            count: How many, at least 1.
            pending: Students that were proposed and are still evaluated.

        Returns:
            `count` action sets; fewer if no new students can be found.
        """
        ...

    def update(self, trials: Sequence[Trial]) -> None:
        """Takes in finished trials, those of one call in the order of their numbers."""
        ...


@dataclasses.dataclass(frozen=True)
class StrategyContext:
    """What strategies are made from.

    Attributes:
        space: The search space.
        seed: Seed of all that is random, 0 or more.
        acquisition: Name of an acquisition function.
        num_candidates: How many random students are compared for each that is proposed.
        surrogate: Settings of the surrogate.
    """

    space: SearchSpace
    seed: int = 0
    acquisition: str = "expected_improvement"
    num_candidates: int = 1000
    surrogate: SurrogateConfig = dataclasses.field(default_factory=SurrogateConfig)


def names() -> list[str]:
    """All strategies.

    Example:
        >>> "esnac" in names()
        True
    """
    return FAMILY.names()


def create(name: str, context: StrategyContext) -> Strategy:
    """Makes the strategy of a name.

    Raises:
        UnknownNameError: There is none.
    """
    strategy: Strategy = FAMILY.module(name).create(context)
    return strategy
