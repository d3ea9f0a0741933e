"""Statistics that each replica keeps for itself, made equal again."""

from __future__ import annotations

import functools

import keras
import numpy as np
import tensorflow as tf

from esnac_tf.distillation.devices import on_replicas


def average_statistics(model: keras.Model, strategy: tf.distribute.Strategy) -> None:
    """Replaces non-trainable variables that differ among replicas by their mean.

    Formula:
        variable = mean(variable of each replica)

    Under a mirrored strategy a layer that gathers statistics gathers those of its replica's
    share of the batch, so they drift apart: every replica would be evaluated with its own,
    and the first's would be saved. `batch_norm_for_training` keeps BatchNormalization from
    it. What is left are users' own layers, a BatchNormalization inside of one of them, and a
    BatchNormalization of masked inputs, which Keras 3.15 doesn't synchronise.

    Args:
        model: Built under the strategy's scope.
        strategy: The strategy; with one replica nothing is done.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        >>> average_statistics(model, tf.distribute.get_strategy())
    """
    if strategy.num_replicas_in_sync == 1:
        return
    for variable in model.non_trainable_variables:
        if not keras.backend.is_float_dtype(variable.dtype):
            continue  # A seed generator's state.
        replicas = [v.numpy() for v in strategy.experimental_local_results(variable.value)]
        if len(replicas) < strategy.num_replicas_in_sync:  # others are on other machines
            own = on_replicas(strategy, functools.partial(tf.identity, variable.value))()
            variable.assign(strategy.reduce("MEAN", own, axis=None))
        elif any((replica != replicas[0]).any() for replica in replicas[1:]):
            variable.assign(np.mean(replicas, axis=0, dtype="float64").astype(replicas[0].dtype))
