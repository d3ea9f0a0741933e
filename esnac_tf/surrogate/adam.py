"""Adam as a function, for training that runs inside of a graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-8

# For each weight its value, and the running means of its gradient and of its square.
State = list[tuple[Any, Any, Any]]


def adam_state(weights: Sequence[Any]) -> State:
    """The state before the first step."""
    return [(weight, tf.zeros_like(weight), tf.zeros_like(weight)) for weight in weights]


def adam_step(
    state: State, gradients: Sequence[Any], step: Any, learning_rate: float, weight_decay: float
) -> State:
    """One step of Adam with coupled weight decay.

        gradient = gradient + weight_decay * weight
        first = beta_1 * first + (1 - beta_1) * gradient
        second = beta_2 * second + (1 - beta_2) * gradient**2
        first_unbiased = first / (1 - beta_1**step)
        second_unbiased = second / (1 - beta_2**step)
        weight = weight - learning_rate * first_unbiased / (sqrt(second_unbiased) + epsilon)

    with beta_1 = 0.9, beta_2 = 0.999, epsilon = 1e-8. The decay is *coupled* (an L2 penalty seen
    by the moments), as in PyTorch's `Adam`; the one of `keras.optimizers.Adam(weight_decay=...)`
    is decoupled. Biases decay too.

    Args:
        state: Float32 tensors.
        gradients: One for each weight.
        step: The number of the step, from 1; a whole number or tensor.
        learning_rate: Above 0.
        weight_decay: At least 0.

    Returns:
        The state after it.

    Raises:
        ValueError: The number of gradients is not that of the weights.

    Sources:
        [1] Kingma, Ba. Adam: A Method for Stochastic Optimization. ICLR 2015, algorithm 1.

    Example:
        >>> state = adam_state([tf.constant([1.0])])
        >>> [(weight, *_)] = adam_step(state, [tf.constant([2.0])], 1, 0.1, 0.0)
        >>> weight.numpy()
        array([0.9], dtype=float32)
    """
    # 1 - 0.999 has four digits left in float32.
    step = tf.cast(step, tf.float64)
    first_scale = tf.cast(1.0 - _BETA_1**step, tf.float32)
    second_scale = tf.cast(1.0 - _BETA_2**step, tf.float32)
    after = []
    for (weight, first, second), gradient in zip(state, gradients, strict=True):
        gradient = gradient + weight_decay * weight
        first = _BETA_1 * first + (1.0 - _BETA_1) * gradient
        second = _BETA_2 * second + (1.0 - _BETA_2) * gradient**2
        change = (first / first_scale) / (tf.sqrt(second / second_scale) + _EPSILON)
        after.append((weight - learning_rate * change, first, second))
    return after
