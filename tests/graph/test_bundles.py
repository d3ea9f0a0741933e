"""Bundles: whatever number of them goes, everything stays balanced."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from esnac_tf.graph.bundles import num_kept_bundles, partition_into_bundles

SETTINGS = hypothesis.settings(max_examples=60, deadline=None, derandomize=True)


def shapes(bundles):
    return [tuple(part.shape) for part in bundles]


def assert_partition(slots, bundles, fixed):
    """Everything is in one bundle, once, or always kept."""
    parts = np.concatenate([fixed, *(part.reshape(-1) for part in bundles)])
    assert sorted(parts.tolist()) == sorted(slots.tolist())


def shuffled(width, blocks):
    """Channels of `blocks` groups after a channel shuffle, in blocks again."""
    return np.arange(width).reshape(blocks, -1).T.reshape(blocks, -1)


def test_channels_that_nothing_balances_go_alone():
    bundles, fixed = partition_into_bundles(np.arange(5), [np.arange(5)], [])
    assert shapes(bundles) == [(5, 1)]
    assert fixed.size == 0


def test_one_channel_of_each_block_of_a_grouped_convolution():
    bundles, fixed = partition_into_bundles(
        np.arange(12), [np.arange(12)], [np.arange(12).reshape(4, 3)]
    )
    assert shapes(bundles) == [(3, 4)]
    assert fixed.size == 0


def test_a_shuffle_of_two_groups_and_fifty_channels():
    rows = [np.arange(50).reshape(2, 25), shuffled(50, 2)]
    bundles, fixed = partition_into_bundles(np.arange(50), [np.arange(50)], rows)
    assert sorted(shapes(bundles)) == [(12, 2), (13, 2)]
    assert fixed.size == 0


def test_a_shuffle_of_two_groups_and_an_even_half():
    rows = [np.arange(8).reshape(2, 4), shuffled(8, 2)]
    bundles, fixed = partition_into_bundles(np.arange(8), [np.arange(8)], rows)
    assert fixed.size == 0
    assert sum(number * size for number, size in shapes(bundles)) == 8
    assert all(size == 2 for _, size in shapes(bundles))


def test_channels_of_different_layers_are_different_classes():
    bundles, _ = partition_into_bundles(np.arange(6), [np.arange(4), np.arange(4, 6)], [])
    assert shapes(bundles) == [(4, 1), (2, 1)]


def test_what_goes_only_together_is_one_bundle():
    rows = [np.array([[0, 1], [0, 2]]), np.array([[3, 3], [0, 1]])]
    bundles, fixed = partition_into_bundles(np.arange(4), [np.arange(4)], rows)
    assert [part.tolist() for part in bundles] == [[[0, 1, 2, 3]]]
    assert fixed.size == 0


@pytest.mark.parametrize(
    ("width", "rows", "movable", "kept"),
    [
        # Slot 9 is not of this group: of the rest one of the first row has no counterpart.
        (3, [[0, 1], [2, 9]], [[0, 2]], [1]),
        # Slot 2 weighs as much as nine others: more than a bundle may hold.
        (12, [[0, *[2] * 9], [1, *range(3, 12)]], [[0, 1]], [2, *range(3, 12)]),
    ],
)
def test_what_can_not_be_balanced_is_kept(width, rows, movable, kept):
    slots, rows = np.arange(width), np.array(rows)
    bundles, fixed = partition_into_bundles(slots, [slots], [rows])
    assert [part.tolist() for part in bundles] == [movable]
    assert sorted(fixed.tolist()) == kept
    assert_partition(slots, bundles, fixed)
    for number in range(2):
        assert_balanced(np.arange(rows.max() + 1), bundles, [rows], [number])


def assert_balanced(slots, bundles, balanced, numbers):
    kept = np.ones(slots.max() + 1, bool)
    for part, number in zip(bundles, numbers, strict=True):
        kept[part[number:]] = False
    for rows in balanced:
        assert len(set(kept[rows].sum(axis=1).tolist())) == 1


@st.composite
def balanced_groups(draw):
    """A group of channels with grouped convolutions and shuffles of any kind over it."""
    blocks = draw(st.lists(st.sampled_from([2, 4]), min_size=1, max_size=2))
    width = int(np.lcm.reduce(blocks)) * draw(st.integers(1, 4))
    offset = draw(st.integers(0, 5))
    slots = np.arange(width) + offset
    balanced = []
    for count in blocks:
        order = draw(
            st.sampled_from([np.arange(width), shuffled(width, count).reshape(-1)])
            | st.permutations(range(width)).map(np.array)
        )
        balanced.append(slots[order].reshape(count, -1))
    cut = draw(st.integers(1, width))
    sources = [part for part in np.split(slots, [cut]) if len(part)]
    return slots, sources, balanced


@SETTINGS
@hypothesis.given(group=balanced_groups(), data=st.data())
def test_any_number_of_bundles_keeps_everything_balanced(group, data):
    slots, sources, balanced = group
    bundles, fixed = partition_into_bundles(slots, sources, balanced)
    assert_partition(slots, bundles, fixed)
    numbers = [data.draw(st.integers(0, len(part))) for part in bundles]
    assert_balanced(slots, bundles, balanced, numbers)


@SETTINGS
@hypothesis.given(group=balanced_groups(), data=st.data())
def test_a_width_keeps_at_least_one_bundle_of_each_class_and_grows(group, data):
    slots, sources, balanced = group
    bundles, fixed = partition_into_bundles(slots, sources, balanced)
    assert_partition(slots, bundles, fixed)
    for part in bundles:
        kept = num_kept_bundles(len(part), np.arange(1, len(slots) + 1), len(slots))
        assert kept[0] >= 1
        assert kept[-1] == len(part)
        assert (np.diff(kept) >= 0).all()


def test_a_group_that_is_too_entangled_is_kept():
    generator = np.random.default_rng(0)
    rows = [generator.permutation(1024).reshape(2, -1) for _ in range(9)]
    bundles, fixed = partition_into_bundles(np.arange(1024), [np.arange(1024)], rows)
    assert bundles == ()
    assert len(fixed) == 1024


@pytest.mark.parametrize(("width", "kept"), [(1, 1), (7, 1), (8, 2), (12, 3), (50, 13)])
def test_kept_bundles_of_known_widths(width, kept):
    assert num_kept_bundles(13, width, 50) == kept
