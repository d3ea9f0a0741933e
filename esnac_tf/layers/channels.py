"""Channel labels: which channel sits where in a tensor.

Every channel that a layer creates gets a number. A tensor's labels are an integer array with
one axis for each axis of the tensor but the batch: as long as the tensor's axis where channels
lie along it, else 1. So Flatten, Reshape, Permute and Concatenate do to labels just what they
do to tensors, and nothing needs to know what a channel shuffle is.

    tensor [B, 32, 32, 64]  labels [1, 1, 64]
    after Flatten           labels [65536], each channel 1,024 times

The label `PINNED` marks a channel that nothing may remove.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.int64]

PINNED = -1


@dataclasses.dataclass(frozen=True)
class ChannelTensor:
    """A tensor as channel propagation sees it.

    Attributes:
        shape: Its shape without the batch axis; None where an axis is not known.
        labels: Its channel labels, one axis for each of `shape`.
        channel_axes: The axes along which channels lie. A student's tensor that has one
            channel left does not show them, so they are told: those of the teacher.
        vanishes: Whether a channel is zero here that is zero where it was created.
    """

    shape: tuple[int | None, ...]
    labels: Labels
    channel_axes: tuple[int, ...] = ()
    vanishes: bool = False

    def along(self, axis: int) -> Labels | None:
        """The labels along one axis, or None where channels do not lie along this axis alone.

        Example:
            >>> tensor = ChannelTensor((8, 8, 3), np.arange(3).reshape(1, 1, 3))
            >>> tensor.along(2), tensor.along(0)
            (array([0, 1, 2]), None)
        """
        length = self.shape[axis]
        if length is None or self.labels.size != length or self.labels.shape[axis] != length:
            return None
        if self.channel_axes not in ((), (axis % len(self.shape),)):
            return None
        return self.labels.reshape(-1)

    def full(self) -> Labels | None:
        """The labels repeated to the tensor's whole shape; None where an axis is not known."""
        if any(length is None for length in self.shape):
            return None
        return np.broadcast_to(self.labels, [length or 0 for length in self.shape])


class ChannelTrace(Protocol):
    """What a layer handler tells about channels while labels pass through its layer.

    There are two: one learns the teacher's channel dependencies, the other follows the kept
    channels through a student.
    """

    def source(self, layer: str, length: int, role: str = "out") -> Labels:
        """New channels that this layer creates: [length] labels, the same at every call.

        The role is the layer's name for them, as its weights' axes know them.
        """

    def consume(self, layer: str, channels: Labels, role: str = "in") -> None:
        """The layer has a weight for each of these channels of an input: [length]."""

    def tie(self, first: Labels, second: Labels) -> None:
        """Element by element, these channels are kept together or removed together."""

    def pin(self, channels: Labels) -> None:
        """None of these channels may be removed."""

    def balance(self, rows: Labels) -> None:
        """Of each row of a matrix of channels equally many must be kept: [rows, columns]."""


def unlabelled(shape: tuple[int | None, ...]) -> Labels:
    """Labels of a tensor in which no channel can be removed: all axes 1, pinned."""
    return np.full([1] * len(shape), PINNED, np.int64)


def place(channels: Labels, rank: int, axis: int) -> Labels:
    """A vector of labels laid along one axis of a tensor of `rank` axes (batch left out).

    Example:
        >>> place(np.arange(3), rank=3, axis=2).shape
        (1, 1, 3)
    """
    shape = [1] * rank
    shape[axis] = -1
    return channels.reshape(shape)


def compress(labels: Labels) -> Labels:
    """Labels of a whole tensor with each axis along which they do not change made 1.

    Example:
        >>> compress(np.array([[1, 2], [1, 2]]))
        array([[1, 2]])
    """
    for axis in range(labels.ndim):
        first = labels.take([0], axis)
        if (labels == first).all():
            labels = first
    return labels


def channel_axes(labels: npt.NDArray[Any]) -> tuple[int, ...]:
    """The axes along which labels lie.

    Example:
        >>> channel_axes(np.zeros((1, 1, 3)))
        (2,)
    """
    return tuple(axis for axis, length in enumerate(labels.shape) if length > 1)


def combine(tensors: list[ChannelTensor], trace: ChannelTrace) -> Labels:
    """Labels of an elementwise combination (sum, product, ...), with NumPy broadcasting.

    Channels that meet are tied. An operand that is 1 along an axis is broadcast over it and
    ties nothing there.
    """
    rank = max(len(tensor.shape) for tensor in tensors)
    padded = [_pad(tensor, rank - len(tensor.shape)) for tensor in tensors]
    base = max(padded, key=lambda tensor: (len(tensor.channel_axes), tensor.labels.size))
    labelled_axes = [axis for axis in range(rank) if base.labels.shape[axis] > 1]
    for tensor in padded:
        if tensor is base:
            continue
        if tensor.labels.size > 1 or not labelled_axes:
            whole = all(
                tensor.shape[axis] == base.shape[axis]
                for axis in range(rank)
                if max(tensor.labels.shape[axis], base.labels.shape[axis]) > 1
            )
            if whole:
                trace.tie(*np.broadcast_arrays(base.labels, tensor.labels))
            else:  # channels along different axes meet: nothing simple follows from it
                trace.pin(base.labels)
                trace.pin(tensor.labels)
        elif any(tensor.shape[axis] == base.shape[axis] for axis in labelled_axes):
            trace.pin(base.labels)
    return base.labels


def _pad(tensor: ChannelTensor, count: int) -> ChannelTensor:
    """The tensor with `count` axes of length 1 in front."""
    return ChannelTensor(
        (1,) * count + tensor.shape,
        tensor.labels.reshape((1,) * count + tensor.labels.shape),
        tuple(axis + count for axis in tensor.channel_axes),
    )
