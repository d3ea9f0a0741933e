"""Nets for surgery: every layer has a name, and every weight a random value."""

from __future__ import annotations

import functools

import keras
import numpy as np
import small_models
from small_models import examples_for, run

layers = keras.layers


def residual():
    """Two blocks; the first's sum is that of `stem` and `conv1`."""
    return small_models.residual()


def concatenated():
    inputs = keras.Input((6, 6, 3))
    first = layers.Conv2D(6, 3, padding="same", name="first")(inputs)
    second = layers.Conv2D(4, 1, name="second")(layers.ReLU(name="relu")(first))
    joined = layers.Concatenate(name="joined")([second, first])
    joined = layers.BatchNormalization(name="norm")(joined)
    hidden = layers.Conv2D(5, 1, name="third")(joined)
    return keras.Model(inputs, layers.Dense(3, name="top")(layers.Flatten(name="flat")(hidden)))


def depthwise():
    inputs = keras.Input((6, 6, 3))
    hidden = layers.Conv2D(6, 1, name="conv")(inputs)
    hidden = layers.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise")(hidden)
    hidden = layers.Conv2D(12, 3, padding="same", groups=12, name="disguised")(hidden)
    hidden = layers.BatchNormalization(name="norm")(hidden)
    return keras.Model(inputs, layers.Conv2D(2, 1, name="top")(layers.ReLU(name="relu")(hidden)))


def grouped():
    """Blocks of 3 channels: a channel goes from both blocks or from none."""
    inputs = keras.Input((6, 6, 3))
    hidden = layers.Conv2D(6, 1, name="conv")(inputs)
    hidden = layers.Conv2D(4, 3, groups=2, name="grouped")(hidden)
    return keras.Model(inputs, layers.Conv2D(2, 1, name="top")(hidden))


def flattened():
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(6, 3, padding="same", activation="relu", name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.Dropout(0.5, name="dropout"),
            layers.MaxPooling2D(name="pool"),
            layers.Flatten(name="flat"),
            layers.Dense(12, activation="relu", name="hidden"),
            layers.Dense(12, activation="relu", name="again"),
            layers.Dense(3, name="top"),
        ],
        name="flattened",
    )


NETS = {function.__name__: function for function in (residual, concatenated, depthwise, flattened)}


def fresh(name):
    """A new net of this name, for tests that change it."""
    return small_models.randomize({**NETS, "grouped": grouped}[name]())


@functools.cache
def net(name):
    """The net of this name: never change it."""
    return fresh(name)


def assert_equal_outputs(first, second, tolerance=1e-5):
    examples = examples_for(first)
    for expected, received in zip(run(first, examples), run(second, examples), strict=True):
        scale = float(np.abs(expected).max())
        np.testing.assert_allclose(received, expected, rtol=tolerance, atol=tolerance * scale)


def set_zero(model, layer, channels, axis=-2):
    """Lets a layer ignore channels of its input."""
    kernel = np.asarray(model.get_layer(layer).kernel).copy()
    np.moveaxis(kernel, axis, 0)[list(channels)] = 0
    model.get_layer(layer).kernel.assign(kernel)
