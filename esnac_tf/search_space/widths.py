"""The widths that students of one teacher may have: all, or those of round numbers of channels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from esnac_tf.graph.bundles import num_kept_bundles
from esnac_tf.graph.teacher import TeacherGraph, WidthGroup, channel_patterns

IntArray = npt.NDArray[np.int64]
# For each channel group (number of bundles, channels in a bundle) of each class.
Patterns = Mapping[int, tuple[tuple[int, int], ...]]


class AllowedWidths:
    """Which widths W of each width group are searched.

    From the least to the teacher's F, and with `multiple` above 1 of these only the ones with
    which every layer that makes channels of the group keeps a multiple of it. Layers that have
    fewer channels than that are not looked at. F itself is always allowed, so a group without
    any other round width keeps its own.

    Args:
        graph: The teacher.
        least: The least width of each group, [G].
        multiple: What numbers of channels are multiples of, 1 or more.
        joined: Pairs of width groups that an action may join: they are allowed the same widths,
            so that the lesser of two is allowed to both.

    Attributes:
        full: F, the teacher's widths, [G].
        counts: How many widths each group may have, [G].

    Example:
        >>> import keras
        >>> from esnac_tf.graph.teacher import analyse
        >>> inputs = keras.Input((4,))
        >>> model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Dense(20)(inputs)))
        >>> allowed = AllowedWidths(analyse(model), np.array([1]), multiple=8)
        >>> allowed.nearest(np.array([[1], [11], [12], [17], [18]]))[:, 0].tolist()
        [8, 8, 16, 16, 20]
    """

    def __init__(
        self,
        graph: TeacherGraph,
        least: IntArray,
        multiple: int = 1,
        joined: Iterable[tuple[int, int]] = (),
    ) -> None:
        groups = graph.width_groups
        self.full = np.array([group.width for group in groups], np.int64)
        width = np.arange(int(self.full.max(initial=0)) + 1)
        allowed = (width >= least[:, None]) & (width <= self.full[:, None])
        if multiple > 1:
            makers = [
                channel_patterns(graph.channels, created)
                for created in graph.channels.created.values()
            ]
            for index, group in enumerate(groups):
                allowed[index, 1 : group.width] &= _round_widths(group, makers, multiple)
            pairs = list(joined)
            for _ in groups:  # until it has passed through the longest chain of pairs
                for first, second in pairs:
                    allowed[[first, second]] = allowed[first] & allowed[second]
        self.counts = allowed.sum(axis=1)
        # Each group's allowed widths in order, [G, most of them], and the nearest to each number.
        order = np.argsort(~allowed, axis=1, kind="stable")
        self._ordered = order[:, : int(self.counts.max(initial=0))]
        self._nearest = np.array(
            [_nearest(np.flatnonzero(row), len(width)) for row in allowed], np.int64
        ).reshape(allowed.shape)

    def nearest(self, widths: IntArray) -> IntArray:
        """The allowed widths nearest to some of 0 to F, [M, G] both; of two the larger."""
        return self._nearest[np.arange(len(self.full)), widths]

    def pick(self, groups: IntArray, positions: npt.NDArray[np.float64]) -> IntArray:
        """Allowed widths of some groups: at positions of 0 (the least) to below 1 (F)."""
        return self._ordered[groups, np.floor(positions * self.counts[groups]).astype(np.int64)]

    def nearest_of(self, groups: IntArray, widths: npt.NDArray[np.float64]) -> IntArray:
        """The allowed widths of some groups nearest to some numbers, one for each group."""
        whole = np.clip(np.rint(widths), 0, self.full[groups]).astype(np.int64)
        return self._nearest[groups, whole]


def _round_widths(
    group: WidthGroup, makers: Iterable[tuple[int, Patterns]], multiple: int
) -> npt.NDArray[np.bool_]:
    """Whether the widths 1 to F - 1 of a group leave round numbers of channels: [F - 1].

    Of widths that leave the same numbers only the least counts.

    Args:
        group: The group.
        makers: What `channel_patterns` says of each layer that makes channels.
        multiple: What the numbers are multiples of.
    """
    widths = np.arange(1, group.width)
    is_round = np.ones(len(widths), bool)
    numbers = []
    for constant, patterns in makers:
        pattern = [part for member in group.members for part in patterns.get(member, ())]
        if pattern:
            made = np.full(len(widths), constant)
            for bundles, channels in pattern:
                made += channels * num_kept_bundles(bundles, widths, group.width)
            numbers.append(made)
            if constant + sum(bundles * channels for bundles, channels in pattern) >= multiple:
                is_round &= made % multiple == 0
    if not numbers:  # heads of attention, which are no channels of a tensor
        return is_round
    _, first = np.unique(np.array(numbers), axis=1, return_index=True)
    return is_round & np.isin(np.arange(len(widths)), first)


def _nearest(allowed: IntArray, count: int) -> IntArray:
    """For 0 to count - 1 the nearest of some numbers in order; of two the larger.

    Example:
        >>> _nearest(np.array([2, 4]), 6).tolist()
        [2, 2, 2, 4, 4, 4]
    """
    middle = (allowed[:-1] + allowed[1:] + 1) // 2
    return allowed[np.searchsorted(middle, np.arange(count), side="right")]
