"""BatchNormalization as short trainings and several devices need it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import keras

from esnac_tf.distillation.mixed_precision import walk_layers


@contextlib.contextmanager
def batch_norm_for_training(
    models: Sequence[keras.Model], max_momentum: float, num_replicas: int = 1
) -> Iterator[None]:
    """Caps momentum and joins replicas' statistics of every BatchNormalization inside.

    Momentum: a student inherits statistics of activations that its surgery has changed. After
    s steps a share momentum^s of them is still in the moving statistics: at Keras's default of
    0.99 that is a half after 69 steps, and such a student is evaluated far below its worth; at
    0.9 it is 0.0007.

    Replicas: by itself a layer normalises by its replica's share of the batch, so a training
    on two devices is another one than on one device. Synchronised, it is the same.

    A `tf.function` traced inside keeps both. Layers come back as they were.

    Args:
        models: Built models.
        max_momentum: The highest momentum, in [0, 1].
        num_replicas: Of the models' strategy; layers are synchronised if there are several.

    Example:
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.BatchNormalization()])
        >>> with batch_norm_for_training([model], max_momentum=0.9, num_replicas=2):
        ...     model.layers[0].momentum, model.layers[0].synchronized
        (0.9, True)
        >>> model.layers[0].momentum, model.layers[0].synchronized
        (0.99, False)
    """
    before = [
        (layer, layer.momentum, layer.synchronized)
        for model in models
        for layer in walk_layers(model)
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    try:
        for layer, momentum, synchronized in before:
            layer.momentum = min(momentum, max_momentum)
            layer.synchronized = synchronized or num_replicas > 1
        yield
    finally:
        for layer, momentum, synchronized in before:
            layer.momentum = momentum
            layer.synchronized = synchronized
