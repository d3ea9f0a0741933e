"""Random search in the same space: the baseline."""

from __future__ import annotations

from collections.abc import Sequence

from esnac_tf.architecture import ActionSet
from esnac_tf.strategies import StrategyContext
from esnac_tf.strategies.history import History
from esnac_tf.trial import Trial


class RandomSearch:
    """Draws students as the paper's search draws its candidates, and evaluates them all."""

    def __init__(self, context: StrategyContext) -> None:
        self._space = context.space
        self._history = History(context.space, context.seed)

    def suggest(self, count: int, pending: Sequence[ActionSet] = ()) -> list[ActionSet]:
        """Draws `count` new students."""
        history = self._history.ahead(pending)
        generator = history.generator()
        drawn = history.draw(count, lambda number: self._space.sample(number, generator))
        return self._space.to_actions(drawn)

    def update(self, trials: Sequence[Trial]) -> None:
        """Remembers what was tried."""
        self._history.extend(trials)


def create(context: StrategyContext) -> RandomSearch:
    """Makes the strategy."""
    return RandomSearch(context)
