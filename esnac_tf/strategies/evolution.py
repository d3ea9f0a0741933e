"""Regularised evolution (Real et al. 2019, arXiv 1802.01548)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from esnac_tf.architecture import ActionSet
from esnac_tf.search_space.candidates import Candidates
from esnac_tf.strategies import StrategyContext
from esnac_tf.strategies.history import History
from esnac_tf.trial import Trial

POPULATION_SIZE = 40
TOURNAMENT_SIZE = 10


class Evolution:
    """Mutates the best of a few of the youngest students.

    The first `TOURNAMENT_SIZE` students are drawn at random. Then each proposal is a mutant of
    the best of `TOURNAMENT_SIZE` students drawn from the last `POPULATION_SIZE` measured ones:
    a student dies of age, however good it was.
    """

    def __init__(self, context: StrategyContext) -> None:
        self._space = context.space
        self._history = History(context.space, context.seed)

    def suggest(self, count: int, pending: Sequence[ActionSet] = ()) -> list[ActionSet]:
        """Proposes mutants of good young students."""
        history = self._history.ahead(pending)
        generator = history.generator()
        population = history.complete[-POPULATION_SIZE:]

        def sample(number: int) -> Candidates:
            return self._space.sample(number, generator)

        def mutate(number: int) -> Candidates:
            drawn = generator.integers(len(population), size=(number, TOURNAMENT_SIZE))
            objectives = np.array([trial.objective for trial in population], np.float64)
            winners = drawn[np.arange(number), objectives[drawn].argmax(axis=1)]
            parents = self._space.from_actions([population[index].actions for index in winners])
            return self._space.mutate(parents, generator)

        if len(population) < TOURNAMENT_SIZE:
            found = history.draw(count, sample)
        else:
            found = history.draw(count, mutate)
            # Few mutants of good students may be left, and yet many students.
            found = history.draw(count, sample, found)
        return self._space.to_actions(found)

    def update(self, trials: Sequence[Trial]) -> None:
        """Takes in what became of the students."""
        self._history.extend(trials)


def create(context: StrategyContext) -> Evolution:
    """Makes the strategy."""
    return Evolution(context)
