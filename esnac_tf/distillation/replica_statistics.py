"""Statistics that each replica keeps for itself, made equal again."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf


def average_statistics(model: keras.Model, strategy: tf.distribute.Strategy) -> None:
    """Replaces non-trainable variables that differ among replicas by their mean.

    Formula:
        moving_mean = mean(moving_mean of each replica)
        moving_variance = mean(moving_variance of each replica)

    Under a mirrored strategy a plain BatchNormalization normalises by, and gathers, the
    statistics of its replica's share of the batch, so the moving statistics drift apart,
    while evaluation and saving would read the first replica's. The mean of the variances
    leaves out the variance *between* the shares' means, about 1 / (share of the batch) of
    the whole. `BatchNormalization(synchronized=True)` has neither drift nor this error.

    Args:
        model: Built under the strategy's scope.
        strategy: The strategy; with one replica nothing is done.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.BatchNormalization()])
        >>> average_statistics(model, tf.distribute.get_strategy())
    """
    if strategy.num_replicas_in_sync == 1:
        return
    for variable in model.non_trainable_variables:
        if not keras.backend.is_float_dtype(variable.dtype):
            continue  # A seed generator's state.
        replicas = [v.numpy() for v in strategy.experimental_local_results(variable.value)]
        if any((replica != replicas[0]).any() for replica in replicas[1:]):
            variable.assign(np.mean(replicas, axis=0, dtype="float64").astype(replicas[0].dtype))
