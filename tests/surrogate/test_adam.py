"""Adam against the formula in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from esnac_tf.surrogate.adam import adam_state, adam_step

SHAPES = ([3, 4], [2])


def random_tensors(seed):
    generator = np.random.default_rng(seed)
    return [tf.constant(generator.normal(size=shape), tf.float32) for shape in SHAPES]


def reference_adam(value, gradients, learning_rate, weight_decay):
    value = value.astype(np.float64)
    first = second = np.zeros_like(value)
    for t, gradient in enumerate(gradients, start=1):
        gradient = gradient + weight_decay * value
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        value = value - learning_rate * (first / (1 - 0.9**t)) / (
            np.sqrt(second / (1 - 0.999**t)) + 1e-8
        )
    return value


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_steps_equal_the_numpy_reference(weight_decay):
    weights, steps = random_tensors(0), [random_tensors(seed) for seed in range(1, 9)]
    state = adam_state(weights)
    for number, gradients in enumerate(steps, start=1):
        state = adam_step(state, gradients, number, 0.01, weight_decay)
    for part, (weight, *_) in enumerate(state):
        history = [gradients[part].numpy() for gradients in steps]
        expected = reference_adam(weights[part].numpy(), history, 0.01, weight_decay)
        np.testing.assert_allclose(weight, expected, atol=1e-5)


def test_a_missing_gradient_is_refused():
    with pytest.raises(ValueError, match="shorter"):
        adam_step(adam_state(random_tensors(0)), random_tensors(1)[:1], 1, 0.1, 0.0)
