"""Moving statistics that follow short trainings."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import keras

from esnac_tf.distillation.mixed_precision import walk_layers


@contextlib.contextmanager
def capped_momentum(models: Sequence[keras.Model], most: float) -> Iterator[None]:
    """Caps the momentum of every BatchNormalization inside the context.

    A student inherits statistics of activations that its surgery has changed. After s steps
    a share momentum^s of them is still in the moving statistics: at Keras's default of 0.99
    that is a half after 69 steps, and such a student is evaluated far below its worth; at 0.9
    it is 0.0007. A `tf.function` traced inside keeps the cap.

    Args:
        models: Built models.
        most: The highest momentum, in [0, 1].

    Example:
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.BatchNormalization()])
        >>> with capped_momentum([model], 0.9):
        ...     model.layers[0].momentum
        0.9
        >>> model.layers[0].momentum
        0.99
    """
    changed = [
        (layer, layer.momentum)
        for model in models
        for layer in walk_layers(model)
        if isinstance(layer, keras.layers.BatchNormalization) and layer.momentum > most
    ]
    try:
        for layer, _ in changed:
            layer.momentum = most
        yield
    finally:
        for layer, momentum in changed:
            layer.momentum = momentum
