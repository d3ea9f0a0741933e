"""Bayesian optimisation with learned embeddings: the paper's search.

Source: Cao, Wang and Kitani, "Learnable Embedding Space for Efficient Neural Architecture
Compression", ICLR 2019, section 3.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from absl import logging

from esnac_tf import acquisitions
from esnac_tf.architecture import ActionSet
from esnac_tf.encoding import NUM_FEATURES, Encoder
from esnac_tf.search_space.candidates import Candidates
from esnac_tf.strategies import StrategyContext
from esnac_tf.strategies.history import History
from esnac_tf.surrogate import Surrogate, SurrogateError
from esnac_tf.trial import Trial

# Candidates of each kernel that are encoded at a time. Small arrays take the place of those before
# them; large ones are new memory each time, which is filled five times as slowly.
CHUNK_SIZE = 128


class Esnac:
    """Kernels over learned embeddings; each proposes the student it expects most of.

    In every step K kernels are trained, each on a random half of the trials so far (the teacher,
    whose objective is 0, is one of them): anew, or with `warm_steps` on from the last step. Where
    fewer students are asked for at once, only the kernels whose turn it is are. Each
    kernel scores `num_candidates` random
    students with the acquisition function and proposes the best that nobody proposed yet. The
    students of the first step, when nothing is known, are random. Of students that are still
    evaluated the kernels believe what they predict (`Surrogate.believe`).

    Args:
        context: The search space and the settings.
    """

    def __init__(self, context: StrategyContext) -> None:
        self._context = context
        self._space = context.space
        self._history = History(context.space, context.seed)
        self._encoder = Encoder(context.space.graph, only_used=True)
        self._acquisition = acquisitions.get(context.acquisition)
        self._surrogate: Surrogate | None = None
        # Numbers of trials at the ends of steps; after the first so many kernels were fitted, those
        # last time, and those at all.
        self._ends: list[int] = []
        self._num_fits = 0
        self._last: list[int] = []
        self._warm: set[int] = set()
        self._failure: SurrogateError | None = None

    def suggest(self, count: int, pending: Sequence[ActionSet] = ()) -> list[ActionSet]:
        """Proposes one student for each kernel; the kernels take turns if there are fewer.

        They go on taking turns from one call to the next.
        """
        history = self._history.ahead(pending)
        _, pool_seed, _ = history.seeds(3)
        generator = np.random.default_rng(pool_seed)
        chosen = self._space.teacher()[:0]
        if self._history.complete:
            if self._surrogate is None:
                self._surrogate = Surrogate(
                    NUM_FEATURES, self._context.surrogate, columns=self._encoder.columns
                )
            kernels = self._turns(history.num_proposed, count)
            pools = [
                history.new(self._space.sample(self._context.num_candidates, generator))
                for _ in kernels
            ]
            try:
                self._fit(kernels)
                self._surrogate.believe(self._encode(self._space.from_actions(pending)))
                scores = self._score(pools)
            except SurrogateError as error:
                logging.warning("The surrogate failed, this step is random: %s", error)
            else:
                chosen = self._choose(count, pools, scores)
        chosen = history.draw(count, lambda number: self._space.sample(number, generator), chosen)
        return self._space.to_actions(chosen)

    def update(self, trials: Sequence[Trial]) -> None:
        """Takes in what became of the students."""
        self._history.extend(trials)
        self._ends.append(len(self._history.trials))

    def _turns(self, num_proposed: int, count: int) -> list[int]:
        """The kernels whose turn it is, after so many proposals, to make the next ones."""
        num_kernels = self._context.surrogate.num_kernels
        return [(num_proposed + turn) % num_kernels for turn in range(min(count, num_kernels))]

    def _fit(self, kernels: list[int]) -> None:
        """Trains kernels on the trials so far.

        Kernels that go on from the last step are trained step by step, from the first: those of
        a search that is resumed come out as if it had never stopped.
        """
        assert self._surrogate is not None
        warm = self._context.surrogate.warm_steps > 0
        new = self._ends[self._num_fits :]
        due = [(end, self._turns(end, after - end)) for end, after in itertools.pairwise(new)]
        if new or kernels != self._last:
            due.append((self._ends[-1], kernels))
        for end, numbers in due if warm else due[-1:]:
            candidates, objectives = self._history.observations(end)
            if len(candidates) == 1:  # the teacher alone
                continue
            *_, seed = self._history.seeds(3, end)
            goes_on = warm and self._warm.issuperset(numbers)
            try:
                self._surrogate.fit(self._encode(candidates), objectives, seed, goes_on, numbers)
                self._warm.update(numbers)
                self._failure = None
            except SurrogateError as error:
                self._warm.difference_update(numbers)
                self._failure = error
        self._num_fits, self._last = len(self._ends), kernels
        if self._failure is not None:
            raise self._failure

    def _score(self, pools: Sequence[Candidates]) -> list[npt.NDArray[np.float64]]:
        """Acquisition values: for each pool, a kernel's own, one for each candidate."""
        assert self._surrogate is not None
        longest = max(pools, key=len)
        if not len(longest):
            return [np.zeros(0) for _ in pools]
        # A kernel whose pool is empty scores another's, and nobody looks at its scores.
        filled = [pool if len(pool) else longest for pool in pools]
        best = self._surrogate.best_observations
        scores = []
        for start in range(0, len(longest), CHUNK_SIZE):
            wanted = np.arange(start, start + CHUNK_SIZE)
            encodings = [self._encode(pool[np.minimum(wanted, len(pool) - 1)]) for pool in filled]
            predictive = self._surrogate.predict(np.stack(encodings))
            scores.append(np.asarray(self._acquisition(predictive, best)))
        table = np.concatenate(scores, axis=1)
        return [row[: len(pool)] for row, pool in zip(table, pools, strict=True)]

    def _choose(
        self, count: int, pools: list[Candidates], scores: list[npt.NDArray[np.float64]]
    ) -> Candidates:
        """Each kernel's best candidate in turn, none twice."""
        chosen = self._space.teacher()[:0]
        orders = [list(np.argsort(-values, kind="stable")) for values in scores]
        taken: set[bytes] = set()
        for turn in range(count):
            pool, order = pools[turn % len(pools)], orders[turn % len(pools)]
            while order:
                index = order.pop(0)
                candidate = pool[index : index + 1]
                key = next(candidate.keys())
                if key not in taken:
                    taken.add(key)
                    chosen = Candidates.concatenate([chosen, candidate])
                    break
        return chosen

    def _encode(self, candidates: Candidates) -> npt.NDArray[np.float32]:
        return self._encoder.encode(candidates.removed, candidates.widths, candidates.skips)


def create(context: StrategyContext) -> Esnac:
    """Makes the strategy."""
    return Esnac(context)
