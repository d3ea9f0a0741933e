"""Digests that tell one set of data, or of weights, from another."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from esnac_tf.datasets.pipelines import TrainingBatches


def digest_of(arrays: Iterable[Any]) -> str:
    """SHA-256 of arrays with their shapes and types.

    Example:
        >>> digest_of([np.zeros(2)]) == digest_of([np.zeros(3)])
        False
    """
    digest = hashlib.sha256()
    for array in map(np.asarray, arrays):
        digest.update(repr((array.shape, str(array.dtype))).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def data_digest(batches: Any, validation: tf.data.Dataset) -> str:
    """SHA-256 of what a search trains on and is judged by, as far as it must be repeatable.

    How many held-out examples there are of each class, in any order; and of training data
    that was given as arrays the first batch, which depends on all examples' number and order.

    Args:
        batches: Training data by epoch.
        validation: Batches (x, y, weight).
    """
    labels = [np.asarray(y)[np.asarray(weight) > 0] for _, y, weight in validation]
    parts = [np.bincount(np.concatenate(labels))]
    if isinstance(batches, TrainingBatches):
        x, y = next(iter(batches.epoch(0)))
        parts += [x.numpy(), y.numpy()]
    return digest_of(parts)
