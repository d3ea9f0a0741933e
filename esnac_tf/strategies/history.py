"""What strategies remember: trials as arrays, and which students were proposed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from esnac_tf.architecture import ActionSet
from esnac_tf.search_space.candidates import Candidates
from esnac_tf.search_space.space import SearchSpace
from esnac_tf.trial import Trial

# Draws without anything new after which the space counts as exhausted.
_MAX_DRAWS = 100


class History:
    """The trials of a search, and a generator that depends on nothing but them and the seed.

    Args:
        space: The search space.
        seed: Seed of all that is random, 0 or more.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self._space = space
        self._seed = seed
        self.trials: list[Trial] = []
        self._num_pending = 0
        # The teacher is known: it is no student.
        self._tried = space.teacher().codes()

    def ahead(self, pending: Sequence[ActionSet]) -> History:
        """The history while students are still evaluated: they count as tried."""
        if not pending:
            return self
        ahead = copy.copy(self)
        ahead._num_pending = len(pending)
        ahead._tried = np.concatenate([self._tried, self._space.from_actions(pending).codes()])
        return ahead

    @property
    def num_proposed(self) -> int:
        """How many students were proposed so far."""
        return len(self.trials) + self._num_pending

    def extend(self, trials: Sequence[Trial]) -> None:
        """Takes in finished trials, failed ones included: they are not proposed again."""
        self.trials.extend(trials)
        tried = self._space.from_actions([trial.actions for trial in trials])
        self._tried = np.concatenate([self._tried, tried.codes()])

    @property
    def complete(self) -> list[Trial]:
        """Trials that were measured."""
        return [trial for trial in self.trials if trial.is_complete]

    def seeds(self, count: int, num_trials: int | None = None) -> list[int]:
        """Seeds for the next step, from the seed and a number of trials.

        Args:
            count: How many seeds.
            num_trials: The number of trials; None: of all students that were proposed.
        """
        if num_trials is None:
            num_trials = self.num_proposed
        sequence = np.random.SeedSequence([self._seed, num_trials])
        return [int(seed) for seed in sequence.generate_state(count)]

    def generator(self) -> np.random.Generator:
        """The source of randomness of the next step."""
        return np.random.default_rng(self.seeds(1)[0])

    def observations(
        self, num_trials: int | None = None
    ) -> tuple[Candidates, npt.NDArray[np.float64]]:
        """The teacher and complete trials, with their objectives; the teacher's is 0.

        Args:
            num_trials: Among how many trials, the first ones; None: all.
        """
        trials = [trial for trial in self.trials[:num_trials] if trial.is_complete]
        candidates = self._space.from_actions([trial.actions for trial in trials])
        objectives = [0.0, *(float(trial.objective or 0.0) for trial in trials)]
        return Candidates.concatenate([self._space.teacher(), candidates]), np.array(objectives)

    def new(self, candidates: Candidates, also_tried: Candidates | None = None) -> Candidates:
        """Those candidates that were not tried, each once, in their order.

        Args:
            candidates: Any number of them.
            also_tried: Candidates that count as tried too.
        """
        tried = self._tried
        if also_tried is not None:
            tried = np.concatenate([tried, also_tried.codes()])
        codes, first = np.unique(candidates.codes(), return_index=True)
        return candidates[np.sort(first[~np.isin(codes, tried)])]

    def draw(
        self,
        count: int,
        draw: Callable[[int], Candidates],
        found: Candidates | None = None,
    ) -> Candidates:
        """Draws until there are `count` new candidates, or nothing new comes.

        Args:
            count: How many.
            draw: Gives that many candidates, new or not.
            found: New candidates to begin with, all different.

        Returns:
            At most `count` candidates that are new and different, `found` first.
        """
        found = self._space.teacher()[:0] if found is None else found
        for _ in range(_MAX_DRAWS):
            if len(found) >= count:
                break
            fresh = self.new(draw(count), found)
            found = Candidates.concatenate([found, fresh])
        return found[:count]
