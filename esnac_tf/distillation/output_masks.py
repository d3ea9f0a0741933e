"""Masks of a model's outputs: which steps of a sequence are there, and which only fill a batch.

Keras hangs a mask on the tensor that it is of, and its losses and metrics look for it there. A
tensor that comes out of a tf.function, or is computed from another, has none any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf


def mask_of(output: Any) -> Any:
    """The mask of a model's output, True for what is there; None without one.

    Example:
        >>> words = tf.constant([[4, 2, 0]])
        >>> mask_of(keras.layers.Embedding(9, 3, mask_zero=True)(words)).numpy().tolist()
        [[True, True, False]]
    """
    return getattr(output, "_keras_mask", None)


def masks_of(outputs: Any) -> list[Any]:
    """The masks of all outputs, in the order in which Keras flattens the structure."""
    return [mask_of(output) for output in keras.tree.flatten(outputs)]


def with_masks(outputs: Any, masks: Sequence[Any]) -> Any:
    """Hangs masks on outputs, so that Keras's losses and metrics find them.

    Example:
        >>> output = with_masks(tf.constant([[[1.0], [3.0]]]), [tf.constant([[True, False]])])
        >>> float(keras.losses.MeanSquaredError()(tf.zeros((1, 2, 1)), output))
        1.0
    """
    for output, mask in zip(keras.tree.flatten(outputs), masks, strict=True):
        if mask is not None:
            output._keras_mask = mask
    return outputs


def masked(values: tf.Tensor, mask: Any) -> tf.Tensor:
    """Losses [B, ...] without what a mask leaves out; their mean is that of what is there.

    Formula:
        values * mask / mean(mask)

    On several replicas that is the mean of all their parts of the batch. A mask of other axes
    than the losses have leaves them as they are.

    Example:
        >>> masked(tf.constant([[1.0, 3.0]]), tf.constant([[True, False]])).numpy().tolist()
        [[2.0, 0.0]]
    """
    if mask is None or not mask.shape.is_compatible_with(values.shape[: mask.shape.rank]):
        return values
    share = tf.cast(mask, values.dtype)
    mean = tf.reduce_mean(share)
    replica = tf.distribute.get_replica_context()
    if replica is not None and replica.num_replicas_in_sync > 1:
        mean = replica.all_reduce("MEAN", mean)
    share = tf.math.divide_no_nan(share, mean)
    for _ in range(values.shape.rank - mask.shape.rank):
        share = share[..., tf.newaxis]
    return values * share
