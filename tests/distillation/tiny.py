"""Pictures, batches and models so small that a training takes a second."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

CLASSES = 3


def pictures(rows: int = 48, seed: int = 0):
    """Noise in which the brightest channel tells the class."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, CLASSES, rows)
    x = rng.normal(size=(rows, 4, 4, CLASSES)) + 2.0 * np.eye(CLASSES)[y][:, None, None, :]
    return x.astype("float32"), y


class ArrayBatches:
    """What `train` calls batches, from arrays; shuffled by epoch."""

    def __init__(self, x, y, batch_size: int = 16) -> None:
        self._x, self._y = x, y
        self.batch_size = batch_size

    def epoch(self, epoch: int):
        order = np.random.default_rng(epoch).permutation(len(self._x))
        rows = tf.data.Dataset.from_tensor_slices((self._x[order], self._y[order]))
        return rows.batch(self.batch_size, drop_remainder=True)


def validation(x, y, batch_size: int = 16):
    rows = tf.data.Dataset.from_tensor_slices((x, y, np.ones(len(x), "float32")))
    return rows.batch(batch_size, drop_remainder=True)


def conv_net(width: int = 4, seed: int = 0, end=()):
    """A model with BatchNormalization; `end` are layers between it and the classifier."""
    kernels = [keras.initializers.GlorotUniform(seed=seed + i) for i in range(2)]
    layers = [
        keras.layers.Conv2D(width, 3, use_bias=False, kernel_initializer=kernels[0]),
        keras.layers.BatchNormalization(momentum=0.8),
        keras.layers.LeakyReLU(),
        keras.layers.GlobalAveragePooling2D(),
        *end,
        keras.layers.Dense(CLASSES, kernel_initializer=kernels[1]),
    ]
    return keras.Sequential([keras.Input((4, 4, 3)), *layers])


def dense_net(seed: int = 0, end=(), activation=None, regularizer=None):
    """The smallest model: traces at once."""
    kernel = keras.initializers.GlorotUniform(seed=seed)
    dense = keras.layers.Dense(
        CLASSES, activation, kernel_initializer=kernel, kernel_regularizer=regularizer
    )
    return keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(), *end, dense])


class NanAtStep(keras.layers.Layer):
    """Gives NaN at one training step, counted from 1 over all epochs."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.bad_step = step

    def build(self, shape) -> None:
        self.step = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, x, training=False):
        if not training:
            return x
        self.step.assign(self.step + 1.0)
        return keras.ops.where(keras.ops.equal(self.step, self.bad_step), float("nan"), x)


class NanWeightAfterStep(keras.layers.Layer):
    """Makes its own weight NaN at one training step, when that step's loss is out already."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.bad_step = step

    def build(self, shape) -> None:
        self.step = self.add_weight(shape=(), initializer="zeros", trainable=False)
        self.scale = self.add_weight(shape=(), initializer="ones", trainable=False)

    def call(self, x, training=False):
        y = x * keras.ops.convert_to_tensor(self.scale)
        if training:
            self.step.assign(self.step + 1.0)
            is_bad = keras.ops.equal(self.step, self.bad_step)
            self.scale.assign(keras.ops.where(is_bad, float("nan"), self.scale))
        return y
