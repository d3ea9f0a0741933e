"""Work on single kernels, side by side on all cores.

The products of one LSTM step are so small that a core alone does them as fast as all cores
together. So each core takes a kernel of its own: tf.data is TensorFlow's way to run a function many
times at once, with every operation on one thread. On a GPU kernels run one after another.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf


def map_parallel(function: Callable[..., Any], *arguments: Sequence[int]) -> list[Any]:
    """Calls a function for each set of whole numbers, as many at once as there are cores.

    Args:
        function: Takes scalar int32 tensors, one for each sequence, and returns a tensor or a
            tuple of them; the same as a tf.function and at any time. It is traced once a call.
        *arguments: Sequences of equal length.

    Returns:
        What the function returned, in order.

    Example:
        >>> [int(value) for value in map_parallel(lambda a, b: a * b, [1, 2, 3], [4, 5, 6])]
        [4, 10, 18]
    """
    numbers = tuple(tf.constant(argument, tf.int32) for argument in arguments)
    if tf.config.list_logical_devices("GPU"):
        return [function(*own) for own in zip(*map(tf.unstack, numbers), strict=True)]
    num_cores = num_cpus()
    dataset = tf.data.Dataset.from_tensor_slices(numbers)
    dataset = dataset.map(function, num_parallel_calls=num_cores, deterministic=True)
    options = tf.data.Options()
    options.threading.max_intra_op_parallelism = 1
    options.threading.private_threadpool_size = num_cores
    options.autotune.enabled = False
    return list(dataset.with_options(options))


def num_cpus() -> int:
    """The processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
