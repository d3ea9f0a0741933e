"""Padding: arrays of growing data get few different shapes, so compiled functions serve again."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def bucket_size(size: int) -> int:
    """The padded size that arrays of this size are given: 16, 32, 48, 64, 96, 128, 192, ...

    Doubling alone would cost up to twice the time of a training step. With a step half-way the
    loss is at most a half above 32, for one more compilation (4 s) now and then.

    Args:
        size: The number that must fit.

    Returns:
        The smallest of these sizes that is at least `size`.

    Example:
        >>> [bucket_size(size) for size in (1, 16, 17, 33, 80, 100)]
        [16, 16, 32, 48, 96, 128]
    """
    bucket = 16
    while bucket < size:
        if bucket >= 32 and bucket * 3 // 2 >= size:
            return bucket * 3 // 2
        bucket *= 2
    return bucket


def pad(array: npt.NDArray[Any], size: int, axis: int) -> npt.NDArray[Any]:
    """Zeros (or False) after the end of an axis, up to a size.

    Args:
        array: Any array.
        size: The length that the axis gets, at least the one it has.
        axis: Which axis.

    Example:
        >>> pad(np.array([1, 2]), 4, axis=0)
        array([1, 2, 0, 0])
    """
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, size - array.shape[axis])
    return np.pad(array, widths)
