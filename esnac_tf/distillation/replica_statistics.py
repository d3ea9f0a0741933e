"""Statistics that each replica keeps for itself, made equal again."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf


def averaging(
    models: Sequence[keras.Model], strategy: tf.distribute.Strategy
) -> Callable[[], None]:
    """Returns what replaces non-trainable variables that differ among replicas by their mean.

    Formula:
        variable = mean(variable of each replica)

    Under a mirrored strategy a layer that gathers statistics gathers those of its replica's
    share of the batch, so they drift apart: every replica would be evaluated with its own,
    and the first's would be saved. `batch_norm_for_training` keeps BatchNormalization from
    it. What is left are users' own layers, a BatchNormalization inside of one of them, and a
    BatchNormalization of masked inputs, which Keras 3.15 doesn't synchronise.

    Args:
        models: Built under the strategy's scope.
        strategy: The strategy; with one replica nothing is done.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.BatchNormalization()])
        >>> average = averaging([model], tf.distribute.get_strategy())
        >>> average()
    """
    variables = [
        variable
        for model in models
        for variable in model.non_trainable_variables
        if keras.backend.is_float_dtype(variable.dtype)  # no seed generator's state
    ]
    local = strategy.experimental_local_results
    if strategy.num_replicas_in_sync == 1 or not variables:
        return lambda: None
    if len(local(variables[0].value)) == strategy.num_replicas_in_sync:

        def average() -> None:
            for variable in variables:
                replicas = [part.numpy() for part in local(variable.value)]
                if any((replica != replicas[0]).any() for replica in replicas[1:]):
                    mean = np.mean(replicas, axis=0, dtype="float64")
                    variable.assign(mean.astype(replicas[0].dtype))

        return average

    # Traced once; a partial, of which there may be many.
    means = tf.function(functools.partial(_means, variables, strategy), autograph=False)

    def average_over_machines() -> None:
        for variable, mean in zip(variables, means(), strict=True):
            variable.assign(mean)

    return average_over_machines


def _means(variables: Sequence[keras.Variable], strategy: tf.distribute.Strategy) -> list[Any]:
    own = strategy.run(lambda: [tf.identity(variable.value) for variable in variables])
    return [strategy.reduce("MEAN", parts, axis=None) for parts in own]
