"""PerKernelAdam against the formula in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from esnac_tf.surrogate.adam import PerKernelAdam


def reference_adam(value, gradients, learning_rate, weight_decay):
    first = second = np.zeros_like(value)
    for t, gradient in enumerate(gradients, start=1):
        gradient = gradient + weight_decay * value
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        value = value - learning_rate * (first / (1 - 0.9**t)) / (
            np.sqrt(second / (1 - 0.999**t)) + 1e-8
        )
    return value


@pytest.fixture
def variables():
    generator = np.random.default_rng(0)
    return [
        tf.Variable(generator.normal(size=shape).astype(np.float32)) for shape in ([2, 3, 4], [2])
    ]


@pytest.fixture
def gradients():
    generator = np.random.default_rng(1)
    return [[generator.normal(size=shape) for shape in ([2, 3, 4], [2])] for _ in range(8)]


def as_tensors(step):
    return [tf.constant(gradient, tf.float32) for gradient in step]


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_steps_equal_the_numpy_reference(variables, gradients, weight_decay):
    start = [variable.numpy().astype(np.float64) for variable in variables]
    adam = PerKernelAdam(variables, learning_rate=0.01, weight_decay=weight_decay)
    for step in gradients:
        adam.apply(as_tensors(step), active=[True, True])
    for number, variable in enumerate(variables):
        history = [step[number] for step in gradients]
        expected = reference_adam(start[number], history, 0.01, weight_decay)
        np.testing.assert_allclose(variable, expected, atol=1e-5)


def test_a_kernel_that_is_not_active_keeps_still_and_the_other_is_not_disturbed(
    variables, gradients
):
    start = [variable.numpy().astype(np.float64) for variable in variables]
    adam = PerKernelAdam(variables, learning_rate=0.01)
    for step in gradients:
        broken = as_tensors(step)
        broken[0] = tf.concat([broken[0][:1], np.nan * broken[0][1:]], axis=0)
        adam.apply(broken, active=[True, False])
    np.testing.assert_array_equal(variables[0][1], start[0][1])
    np.testing.assert_array_equal(variables[1][1], start[1][1])
    expected = reference_adam(start[0][0], [step[0][0] for step in gradients], 0.01, 0.0)
    np.testing.assert_allclose(variables[0][0], expected, atol=1e-5)


def test_reset_forgets_all(variables, gradients):
    start = [variable.numpy() for variable in variables]
    adam = PerKernelAdam(variables, learning_rate=0.01)
    ends = []
    for _ in range(2):
        for variable, value in zip(variables, start, strict=True):
            variable.assign(value)
        adam.reset()
        for step in gradients:
            adam.apply(as_tensors(step), active=[True, True])
        ends.append([variable.numpy() for variable in variables])
    np.testing.assert_array_equal(ends[0][0], ends[1][0])


def test_its_moments_are_not_trainable(variables):
    trainable = PerKernelAdam(variables, learning_rate=0.1).trainable_variables
    assert {id(variable) for variable in trainable} == {id(variable) for variable in variables}


def test_a_missing_gradient_is_refused(variables, gradients):
    with pytest.raises(ValueError, match="shorter"):
        PerKernelAdam(variables, 0.1).apply(as_tensors(gradients[0])[:1], active=[True, True])
