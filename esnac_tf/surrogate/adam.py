"""Adam for stacked variables, of which single kernels can be held still."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf


class PerKernelAdam(tf.Module):
    """Adam with coupled weight decay on variables `[K, ...]`, and a switch for each kernel.

    For kernels that are active, in step number t from 1:

        gradient = gradient + weight_decay * variable
        first = beta_1 * first + (1 - beta_1) * gradient
        second = beta_2 * second + (1 - beta_2) * gradient**2
        first_unbiased = first / (1 - beta_1**t)
        second_unbiased = second / (1 - beta_2**t)
        variable = variable - learning_rate * first_unbiased / (sqrt(second_unbiased) + epsilon)

    The decay is *coupled* (an L2 penalty seen by the moments), as in PyTorch's `Adam`; the one of
    `keras.optimizers.Adam(weight_decay=...)` is decoupled. Biases decay too. Variables are float32.

    Args:
        variables: The variables, each with K as its first dimension.
        learning_rate: Step size, above 0.
        weight_decay: Coupled decay, at least 0.
        beta_1: Decay of the first moment, 0 to below 1.
        beta_2: Decay of the second moment, 0 to below 1.
        epsilon: Keeps the division finite, above 0.
        name: Name of the module.

    Sources:
        [1] Kingma, Ba. Adam: A Method for Stochastic Optimization. ICLR 2015, algorithm 1.

    Example:
        >>> variable = tf.Variable([1.0, 1.0])
        >>> adam = PerKernelAdam([variable], learning_rate=0.1)
        >>> adam.apply([tf.constant([2.0, 2.0])], active=[True, False])
        >>> variable.numpy()
        array([0.9, 1. ], dtype=float32)
    """

    def __init__(
        self,
        variables: Sequence[Any],
        learning_rate: float,
        weight_decay: float = 0.0,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        name: str = "per_kernel_adam",
    ) -> None:
        super().__init__(name=name)
        self._variables = list(variables)
        self._learning_rate = learning_rate
        self._weight_decay = weight_decay
        self._beta_1 = beta_1
        self._beta_2 = beta_2
        self._epsilon = epsilon
        self._first = [tf.Variable(tf.zeros_like(v), trainable=False) for v in self._variables]
        self._second = [tf.Variable(tf.zeros_like(v), trainable=False) for v in self._variables]
        self._step = tf.Variable(0.0, trainable=False, dtype=tf.float64)

    def reset(self) -> None:
        """Forgets all moments, as if newly made; functions traced with it stay valid."""
        for variable in (*self._first, *self._second, self._step):
            variable.assign(tf.zeros_like(variable))

    def apply(self, gradients: Sequence[Any], active: Any) -> None:
        """Takes one step.

        Args:
            gradients: One `[K, ...]` for each variable, in their order.
            active: Booleans `[K]`; where False, neither weights nor moments change, whatever the
                gradient (NaN too). The step count is common to all, so a kernel that was held
                still should stay so until `reset`.

        Raises:
            ValueError: The number of gradients is not that of the variables.
        """
        self._step.assign_add(1.0)
        # 1 - 0.999 has four digits left in float32.
        first_scale = tf.cast(1.0 - self._beta_1**self._step, tf.float32)
        second_scale = tf.cast(1.0 - self._beta_2**self._step, tf.float32)
        active = tf.convert_to_tensor(active, dtype=tf.bool)
        for variable, gradient, first, second in zip(
            self._variables, gradients, self._first, self._second, strict=True
        ):
            moves = tf.reshape(active, [-1] + [1] * (variable.shape.rank - 1))
            gradient = gradient + self._weight_decay * variable
            new_first = self._beta_1 * first + (1.0 - self._beta_1) * gradient
            new_second = self._beta_2 * second + (1.0 - self._beta_2) * gradient**2
            change = (new_first / first_scale) / (
                tf.sqrt(new_second / second_scale) + self._epsilon
            )
            first.assign(tf.where(moves, new_first, first))
            second.assign(tf.where(moves, new_second, second))
            variable.assign(tf.where(moves, variable - self._learning_rate * change, variable))
