"""A classification so easy, and teachers so small, that a whole search takes seconds."""

from __future__ import annotations

import functools

import keras
import numpy as np

CLASSES, FEATURES = 3, 8
# What makes a search short; tests change single settings.
SHORT = {
    "strategy": "random",
    "num_steps": 2,
    "num_kernels": 3,
    "num_candidates": 10,
    "kernel_steps": 2,
    "search_epochs": 2,
    "num_best": 2,
    "full_epochs": 2,
    "batch_size": 16,
    "export": ("keras",),
    "seed": 3,
}


def examples(count=96, seed=0, features=FEATURES):
    """(x, y): noise in which the largest of the first values tells the class."""
    generator = np.random.default_rng(seed)
    y = generator.integers(0, CLASSES, count)
    x = generator.normal(size=(count, features))
    x[:, :CLASSES] += 3 * np.eye(CLASSES)[y]
    return x.astype("float32"), y


TRAIN, VALIDATION, TEST = examples(seed=0), examples(40, seed=1), examples(40, seed=2)


def untrained(end=(), activation=None):
    """Dense layers with a residual branch; `end` are layers after the classifier."""
    inputs = keras.Input((FEATURES,), name="features")
    stem = keras.layers.Dense(12, activation="relu", name="stem")(inputs)
    branch = keras.layers.BatchNormalization(name="normalization")(stem)
    branch = keras.layers.ReLU(name="relu")(branch)
    branch = keras.layers.Dense(12, name="branch")(branch)
    x = keras.layers.Add(name="sum")([stem, branch])
    x = keras.layers.Dense(CLASSES, activation=activation, name="classes")(x)
    for layer in end:
        x = layer(x)
    return keras.Model(inputs, x, name="toy")


@functools.cache
def _trained_weights():
    keras.utils.set_random_seed(0)
    model = untrained()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.02), loss)
    model.fit(*TRAIN, epochs=8, batch_size=16, verbose=0)
    return model.get_weights()


def teacher(end=(), activation=None):
    """The same, trained; each call gives a new model."""
    model = untrained(end, activation)
    model.set_weights(_trained_weights())
    return model


def accuracy(model, data):
    """The share that a model classifies right, computed with NumPy."""
    x, y = data
    outputs = keras.ops.convert_to_numpy(model(x, training=False))
    return float(np.mean(outputs.argmax(axis=-1) == y))
