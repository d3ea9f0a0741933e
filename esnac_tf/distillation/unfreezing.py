"""Frozen layers that train for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import keras

from esnac_tf.distillation.mixed_precision import walk_layers


@contextlib.contextmanager
def unfrozen(models: Sequence[keras.Model]) -> Iterator[None]:
    """Lets every layer of models train, and freezes again in the end what was frozen.

    A student of a teacher with a frozen backbone has other widths than that backbone was
    trained with, so it must be able to recover. Weights that are no parameters, as those of
    Normalization, stay as they are.

    Args:
        models: Built models.

    Example:
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        >>> model.layers[0].trainable = False
        >>> with unfrozen([model]):
        ...     len(model.trainable_variables)
        2
        >>> len(model.trainable_variables)
        0
    """
    layers = [layer for model in models for layer in [model, *walk_layers(model)]]
    # A composite layer that is frozen freezes its parts, so each is asked before any is changed.
    frozen = [layer for layer in layers if not layer.trainable]
    flags = [(layer, layer.trainable) for layer in layers]
    try:
        for layer in frozen:
            layer.trainable = True
        yield
    finally:
        if frozen:
            for layer, flag in flags:  # Outer ones first: they set those inside.
                layer.trainable = flag
