"""Digests that tell one set of data, or of weights, from another."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from esnac_tf.datasets.pipelines import TrainingBatches
from esnac_tf.datasets.structures import StructuredBatches


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

    How many held-out examples there are of each class, in any order (of labels that are no
    classes, their sums); and of training data
    that was given as arrays the first batch, which depends on all examples' number and order.

    Args:
        batches: Training data by epoch.
        validation: Batches (x, y, weight).
    """
    parts = [_counts(validation)]
    if isinstance(batches, (TrainingBatches, StructuredBatches)):
        parts += tf.nest.flatten(next(iter(batches.epoch(0))))
    return digest_of(parts)


def training_digest(batches: Any) -> str:
    """SHA-256 of all training data that was given as arrays, and of its first batch."""
    first = tf.nest.flatten(next(iter(batches.epoch(0))))  # in which order, and how varied
    return digest_of([*batches.arrays, *first])


def held_out_digest(validation: tf.data.Dataset) -> str:
    """SHA-256 of all held-out data, in its order."""
    return digest_of(part for row in validation for part in tf.nest.flatten(row))


def _counts(validation: tf.data.Dataset) -> Any:
    """How many held-out examples there are of each class; of labels that are none, their sums."""
    classes, sums = [], []
    for _, y, weight in validation:
        rows = np.asarray(weight) > 0
        labels = [np.asarray(part)[rows] for part in tf.nest.flatten(y)]
        if len(labels) == 1 and labels[0].ndim == 1 and labels[0].dtype == np.int32:
            classes.append(labels[0])
        else:
            sums.append([rows.sum(), *(part.astype(np.float64).sum() for part in labels)])
    if classes:
        return np.bincount(np.concatenate(classes))
    return np.array([f"{total:.6g}" for total in np.sum(sums, axis=0)], "S")
