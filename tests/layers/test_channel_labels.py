"""Channel labels as tensors move them."""

from __future__ import annotations

import numpy as np

from esnac_tf.layers.channels import (
    PINNED,
    ChannelTensor,
    combine,
    compress,
    place,
    unlabelled,
)


class Trace:
    """Notes what is told."""

    def __init__(self):
        self.ties, self.pins = [], []

    def tie(self, first, second):
        self.ties.append((first.reshape(-1).tolist(), second.reshape(-1).tolist()))

    def pin(self, channels):
        self.pins.append(channels.reshape(-1).tolist())


def picture(channels, side=4):
    labels = place(np.asarray(channels), 3, 2)
    return ChannelTensor((side, side, len(channels)), labels, (2,))


def test_channels_lie_along_one_axis():
    tensor = picture([3, 4])
    assert tensor.along(2).tolist() == tensor.along(-1).tolist() == [3, 4]
    assert tensor.along(0) is None
    assert tensor.full().shape == (4, 4, 2)


def test_one_channel_lies_along_its_own_axis_only():
    tensor = picture([3], side=1)
    assert tensor.along(2).tolist() == [3]
    assert tensor.along(0) is None


def test_axes_that_are_not_known():
    tensor = ChannelTensor((None, 2), place(np.arange(2), 2, 1), (1,))
    assert tensor.full() is None
    assert tensor.along(1).tolist() == [0, 1]
    assert tensor.along(0) is None


def test_channels_that_meet_are_tied():
    trace = Trace()
    labels = combine([picture([0, 1]), picture([2, 3])], trace)
    assert labels.reshape(-1).tolist() == [0, 1]
    assert trace.ties == [([0, 1], [2, 3])]
    assert not trace.pins


def test_a_map_of_one_channel_is_broadcast_and_ties_nothing():
    trace = Trace()
    spots = ChannelTensor((4, 4, 1), place(np.array([9]), 3, 2))
    assert combine([spots, picture([0, 1])], trace).reshape(-1).tolist() == [0, 1]
    assert not trace.ties
    assert not trace.pins


def test_a_vector_is_broadcast_over_positions_and_tied():
    trace = Trace()
    vector = ChannelTensor((2,), np.array([5, 6]), (0,))
    assert combine([vector, picture([0, 1])], trace).shape in ((1, 1, 2), (2,))
    assert len(trace.ties) == 1


def test_channels_that_meet_what_has_none_are_pinned():
    trace = Trace()
    plain = ChannelTensor((4, 4, 2), unlabelled((4, 4, 2)))
    combine([picture([0, 1]), plain], trace)
    assert trace.pins == [[0, 1]]


def test_channels_that_meet_along_different_axes_are_all_one():
    trace = Trace()
    across = ChannelTensor((2, 4, 2), place(np.array([7, 8]), 3, 0), (0,))
    combine([ChannelTensor((2, 4, 2), place(np.array([0, 1]), 3, 2), (2,)), across], trace)
    assert trace.ties == [([0, 1, 0, 1], [7, 7, 8, 8])]


def test_axes_along_which_nothing_changes_are_one():
    labels = np.broadcast_to(np.arange(3), (4, 5, 3))
    assert compress(labels).shape == (1, 1, 3)
    assert unlabelled((None, 4)).tolist() == [[PINNED]]
