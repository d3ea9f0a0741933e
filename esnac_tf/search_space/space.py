"""The space of all students of one teacher.

Source: Cao, Wang and Kitani, "Learnable Embedding Space for Efficient Neural Architecture
Compression", ICLR 2019, section 3.1 and appendix 6.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from esnac_tf.architecture import ActionSet
from esnac_tf.graph.teacher import Join, TeacherGraph
from esnac_tf.search_space import REMOVAL_PROBABILITIES
from esnac_tf.search_space.budget import ParameterBudget
from esnac_tf.search_space.candidates import Candidates
from esnac_tf.search_space.widths import AllowedWidths

SKIP_PROBABILITIES = (0.003, 0.005, 0.01, 0.03, 0.05)


class SearchSpace:
    """Draws, changes and names students of one teacher, many at once.

    Every set of candidates that it gives is settled: no skip connection leads to a removed
    node, and width groups that an action joins have the least of their widths. So different
    candidates are different students, as far as actions tell.

    Args:
        graph: The teacher.
        max_shrinkage: The largest ratio r by which the width of a width group shrinks, above 0
            and at most 1; rounding down can take a little more, also from what follows the group.
        round_channels_to: N. With more than 1 only widths are drawn with which each layer that
            makes N channels or more keeps a multiple of N, or all that it has
            (`esnac_tf.search_space.widths`).
        removal_probabilities: With what probabilities a removable node is removed from students
            that are drawn: for each student one of these.
        budget: What students may have at most; None: anything.

    Raises:
        UserError: No student is within the budget.

    Example:
        >>> import keras
        >>> from esnac_tf.graph.teacher import analyse
        >>> inputs = keras.Input((4,))
        >>> hidden = keras.layers.Dense(8, name="hidden")(inputs)
        >>> hidden = keras.layers.ReLU(name="relu")(hidden)
        >>> space = SearchSpace(analyse(keras.Model(inputs, keras.layers.Dense(2)(hidden))))
        >>> candidates = space.sample(1000, np.random.default_rng(0))
        >>> candidates.removed.shape, candidates.widths.shape
        ((1000, 3), (1000, 1))
        >>> space.to_actions(candidates)[0].widths
        (('8', 7),)
    """

    def __init__(
        self,
        graph: TeacherGraph,
        max_shrinkage: float = 1.0,
        round_channels_to: int = 1,
        removal_probabilities: Sequence[float] = REMOVAL_PROBABILITIES,
        budget: ParameterBudget | None = None,
    ) -> None:
        self.graph = graph
        self._max_shrinkage = max_shrinkage
        self._removal_probabilities = tuple(removal_probabilities)
        self._budget = budget
        self._removable = np.array(sorted(graph.removals), np.int64)
        self._full_widths = np.array([group.width for group in graph.width_groups], np.int64)
        self._group_of_channel_group = {
            member: index
            for index, group in enumerate(graph.width_groups)
            for member in group.members
        }
        self._skip_targets = np.array([pair.target for pair in graph.skip_pairs], np.int64)
        self._joins, self._join_of_node, self._join_of_pair = self._width_joins()
        least = self._shrunk(np.array(max_shrinkage))
        self._widths = AllowedWidths(graph, least, round_channels_to, self._joins)
        self._least = self._widths.nearest(least[None])[0]
        if budget is not None:
            budget.check(self._smallest())

    @property
    def log10_size(self) -> float:
        """Decimal logarithm of the number of different action sets, an upper bound.

        log10(2) * (removable nodes + skip pairs)
            + sum over width groups of log10(number of widths)
        """
        bits = len(self._removable) + len(self.graph.skip_pairs)
        return bits * math.log10(2) + float(np.log10(self._widths.counts).sum())

    def teacher(self) -> Candidates:
        """The teacher itself, as one candidate with no action."""
        return Candidates(
            np.zeros((1, len(self.graph.nodes)), bool),
            self._full_widths[None].copy(),
            np.zeros((1, len(self.graph.skip_pairs)), bool),
        )

    def sample(self, count: int, generator: np.random.Generator) -> Candidates:
        """Draws candidates as the paper does.

        For each candidate a removal probability is drawn from `removal_probabilities`, a
        probability of skip connections from `SKIP_PROBABILITIES`, and for each width group a
        ratio r ~ U(0, max_shrinkage) that leaves max(1, floor((1 - r) F)) of its F channels, or
        the nearest width that is allowed. What is beyond the budget is narrowed until it fits,
        and where that does not do, loses more layers.

        Args:
            count: M, how many, 0 or more.
            generator: The source of randomness.

        Returns:
            M settled candidates.
        """
        num_nodes, num_pairs = len(self.graph.nodes), len(self.graph.skip_pairs)
        removed = np.zeros((count, num_nodes), bool)
        rate = generator.choice(self._removal_probabilities, (count, 1))
        removed[:, self._removable] = generator.random((count, len(self._removable))) < rate
        ratio = self._max_shrinkage * generator.random((count, len(self._full_widths)))
        widths = self._widths.nearest(self._shrunk(ratio))
        rate = generator.choice(SKIP_PROBABILITIES, (count, 1))
        skips = generator.random((count, num_pairs)) < rate
        return self._within_budget(Candidates(removed, widths, skips), generator)

    def mutate(self, parents: Candidates, generator: np.random.Generator) -> Candidates:
        """Changes each candidate a little.

        One of the three parts is chosen for each candidate: a removable node's bit flips, a
        width is drawn anew (half of the time uniformly, else near the old one), or a skip
        connection's bit flips. Parts that the teacher does not have are not chosen. What is then
        beyond the budget is made to fit as in `sample`.

        Args:
            parents: M candidates.
            generator: The source of randomness.

        Returns:
            M settled candidates, one for each parent.
        """
        count = len(parents)
        removed, widths, skips = (
            parents.removed.copy(),
            parents.widths.copy(),
            parents.skips.copy(),
        )
        sizes = [len(self._removable), len(self._full_widths), len(self.graph.skip_pairs)]
        parts = [part for part, size in enumerate(sizes) if size]
        if not parts:
            return parents
        part = generator.choice(parts, count)
        rows = np.flatnonzero(part == 0)
        if len(rows):
            nodes = generator.choice(self._removable, len(rows))
            removed[rows, nodes] ^= True
        rows = np.flatnonzero(part == 1)
        if len(rows):
            groups = generator.integers(sizes[1], size=len(rows))
            anew = self._widths.pick(groups, generator.random(len(rows)))
            factor = np.exp(generator.normal(0, 0.3, len(rows)))
            near = self._widths.nearest_of(groups, widths[rows, groups] * factor)
            widths[rows, groups] = np.where(generator.random(len(rows)) < 0.5, anew, near)
        rows = np.flatnonzero(part == 2)
        if len(rows):
            pairs = generator.integers(sizes[2], size=len(rows))
            skips[rows, pairs] ^= True
        return self._within_budget(Candidates(removed, widths, skips), generator)

    def settle(self, candidates: Candidates) -> Candidates:
        """Candidates in canonical form: see the class."""
        skips = candidates.skips & ~candidates.removed[:, self._skip_targets]
        widths = candidates.widths
        if len(self._joins):
            active = np.zeros((len(candidates), len(self._joins)), bool)
            for chosen, join_of in (
                (candidates.removed, self._join_of_node),
                (skips, self._join_of_pair),
            ):
                rows, actions = np.nonzero(chosen & (join_of >= 0))
                active[rows, join_of[actions]] = True
            widths = widths.copy()
            while True:
                before = widths.copy()
                for index, (first, second) in enumerate(self._joins):
                    least = np.minimum(widths[:, first], widths[:, second])
                    for group in (first, second):
                        widths[:, group] = np.where(active[:, index], least, widths[:, group])
                if np.array_equal(before, widths):
                    break
        return Candidates(candidates.removed, widths, skips)

    def to_actions(self, candidates: Candidates) -> list[ActionSet]:
        """The action set of every candidate; widths that are the teacher's are left out."""
        nodes, groups, pairs = self.graph.nodes, self.graph.width_groups, self.graph.skip_pairs
        actions = []
        for row in range(len(candidates)):
            narrow = np.flatnonzero(candidates.widths[row] < self._full_widths)
            actions.append(
                ActionSet.of(
                    [nodes[index].name for index in np.flatnonzero(candidates.removed[row])],
                    {groups[index].name: candidates.widths[row, index] for index in narrow},
                    [
                        (nodes[pairs[index].source].name, nodes[pairs[index].target].name)
                        for index in np.flatnonzero(candidates.skips[row])
                    ],
                )
            )
        return actions

    def from_actions(self, actions: Sequence[ActionSet]) -> Candidates:
        """The inverse of `to_actions`."""
        group_of = {group.name: index for index, group in enumerate(self.graph.width_groups)}
        pair_of = {key: index for index, key in enumerate(self.graph.skip_pair_of)}
        count = len(actions)
        removed = np.zeros((count, len(self.graph.nodes)), bool)
        widths = np.tile(self._full_widths, (count, 1))
        skips = np.zeros((count, len(self.graph.skip_pairs)), bool)
        for row, action in enumerate(actions):
            for name in action.removed:
                removed[row, self.graph.position[name]] = True
            for name, width in action.widths:
                widths[row, group_of[name]] = width
            for pair in action.skips:
                skips[row, pair_of[pair]] = True
        return Candidates(removed, widths, skips)

    def _smallest(self) -> Candidates:
        """The student with nothing that can go, as one candidate."""
        teacher = self.teacher()
        removed = teacher.removed.copy()
        removed[:, self._removable] = True
        return self.settle(Candidates(removed, self._least[None].copy(), teacher.skips))

    def _within_budget(self, candidates: Candidates, generator: np.random.Generator) -> Candidates:
        """Settled candidates, made small enough."""
        candidates = self.settle(candidates)
        if self._budget is None:
            return candidates
        rows = np.flatnonzero(~self._budget.fits(candidates))
        drawn = candidates[rows]

        def narrowed(share: npt.NDArray[np.float64]) -> Candidates:
            widths = self._least + share[:, None] * (drawn.widths - self._least)
            allowed = self._widths.nearest(np.floor(widths).astype(np.int64))
            return self.settle(Candidates(drawn.removed, allowed, drawn.skips))

        # Each removable node goes below a share of its own; at 0 all are gone.
        shares = np.zeros(drawn.removed.shape)
        shares[:, self._removable] = 1 - generator.random((len(rows), len(self._removable)))
        narrow = self._budget.largest(len(rows), narrowed)
        left = np.flatnonzero(~self._budget.fits(narrow))
        wide = drawn[left]

        def thinned(share: npt.NDArray[np.float64]) -> Candidates:
            removed = wide.removed | (shares[left] > share[:, None])
            least = np.broadcast_to(self._least, wide.widths.shape)
            return self.settle(Candidates(removed, least, wide.skips))

        thin = self._budget.largest(len(left), thinned)
        for chosen, fitting in ((rows, narrow), (rows[left], thin)):
            candidates.removed[chosen] = fitting.removed
            candidates.widths[chosen] = fitting.widths
            candidates.skips[chosen] = fitting.skips
        return candidates

    def _shrunk(self, ratio: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """The widths that are left by ratios r of shape [..., G] or []."""
        # Rounded, as (1 - 0.9) * 200 is a little less than 20.
        left = np.floor(np.round((1 - ratio) * self._full_widths, 9))
        return np.maximum(1, left.astype(np.int64))

    def _width_joins(
        self,
    ) -> tuple[list[tuple[int, int]], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Pairs of width groups that actions join, and which actions join which.

        Returns:
            J pairs of width groups, and for removals [T] and skip connections [P] which of these
            they join, 0 to J - 1; -1: none.
        """
        removal_joins = [self.graph.removals.get(index) for index in range(len(self.graph.nodes))]
        skip_joins = [pair.join for pair in self.graph.skip_pairs]
        joins: dict[tuple[int, int], int] = {}

        def number(join: Join) -> int:
            if join is None:
                return -1
            first, second = sorted(self._group_of_channel_group[index] for index in join)
            return -1 if first == second else joins.setdefault((first, second), len(joins))

        join_of_node = np.array([number(join) for join in removal_joins], np.int64)
        join_of_pair = np.array([number(join) for join in skip_joins], np.int64)
        return list(joins), join_of_node, join_of_pair
