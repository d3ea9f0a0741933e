"""Optimizers of one TensorFlow operation a variable.

Keras writes an update in about twenty operations, and TensorFlow traces, optimises and schedules
each of them for each variable: nearly half of the time that a student takes before its second
batch. TensorFlow has the same updates as single operations; all else stays Keras's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from esnac_tf.distillation.training_config import TrainingConfig


def build_optimizer(config: TrainingConfig) -> keras.optimizers.Optimizer:
    """Returns the optimizer of a config; weight decay is left to `StudentUpdate`.

    Example:
        >>> type(build_optimizer(TrainingConfig.search())).__name__
        'Adam'
    """
    if config.optimizer == "sgd":
        return Momentum(float(config.learning_rate), momentum=config.momentum)
    return Adam(float(config.learning_rate))


class _Optimizer(keras.optimizers.Optimizer):
    """An optimizer that keeps values of each variable's shape beside it.

    Args:
        learning_rate: The learning rate, above 0.
        slots: Names of what is kept.
    """

    def __init__(self, learning_rate: float, slots: Sequence[str]) -> None:
        super().__init__(learning_rate=learning_rate)
        self._names = tuple(slots)

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Makes what is kept of variables; under the scope of their strategy."""
        if self.built:
            return
        super().build(variables)
        self._slots: dict[int, Any] = {}
        for variable in variables:
            slots = [self.add_variable_from_reference(variable, name) for name in self._names]
            # Keras updates each replica's part of a variable by itself.
            for part in tf.distribute.get_strategy().experimental_local_results(variable.value):
                self._slots[id(part)] = slots

    def _handles(self, variable: tf.Variable) -> list[Any]:
        """A variable, then what is kept of it by its name, as TensorFlow's operations take them."""
        return [variable.handle, *(slot.value.handle for slot in self._slots[id(variable)])]


class Adam(_Optimizer):
    """Adam as Keras has it, for dense gradients.

    Formula:
        t = iterations + 1
        m = m + (1 - beta_1) * (gradient - m)
        v = v + (1 - beta_2) * (gradient**2 - v)
        rate = learning_rate * sqrt(1 - beta_2**t) / (1 - beta_1**t)
        variable = variable - rate * m / (sqrt(v) + epsilon)

    Source: Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, in the order of
    computation that ends its section 2.

    Args:
        learning_rate: The learning rate, above 0.
        beta_1: 0 or more and below 1.
        beta_2: 0 or more and below 1.
        epsilon: Above 0.

    Example:
        >>> variable, gradient = keras.Variable([1.0, -1.0]), tf.constant([2.0, -3.0])
        >>> Adam(0.1).apply([gradient], [variable])
        >>> print(variable.numpy().round(3))
        [ 0.9 -0.9]
    """

    def __init__(
        self,
        learning_rate: float,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
    ) -> None:
        super().__init__(learning_rate, ["momentum", "velocity"])
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon

    def update_step(self, gradient: Any, variable: tf.Variable, learning_rate: Any) -> None:
        """Updates a variable by a gradient of its shape; Keras calls it for each on each device."""
        dtype, (var, m, v) = variable.dtype, self._handles(variable)
        step = tf.cast(self.iterations.value + 1, dtype)
        beta_1, beta_2 = tf.constant(self.beta_1, dtype), tf.constant(self.beta_2, dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=var,
            m=m,
            v=v,
            beta1_power=beta_1**step,
            beta2_power=beta_2**step,
            lr=tf.cast(learning_rate, dtype),
            beta1=beta_1,
            beta2=beta_2,
            epsilon=tf.constant(self.epsilon, dtype),
            grad=tf.cast(gradient, dtype),
        )


class Momentum(_Optimizer):
    """Gradient descent with momentum as Keras has it, for dense gradients.

    Formula:
        m = momentum * m - learning_rate * gradient
        variable = variable + m

    Source: Sutskever, Martens, Dahl and Hinton, "On the importance of initialization and momentum
    in deep learning", ICML 2013, equations 1 and 2.

    Args:
        learning_rate: The learning rate, above 0.
        momentum: 0 or more and below 1.

    Example:
        >>> variable, gradient = keras.Variable([1.0, -1.0]), tf.constant([2.0, -3.0])
        >>> optimizer = Momentum(0.1, momentum=0.5)
        >>> for _ in range(2):
        ...     optimizer.apply([gradient], [variable])
        >>> print(variable.numpy().round(3))
        [ 0.5  -0.25]
    """

    def __init__(self, learning_rate: float, momentum: float) -> None:
        super().__init__(learning_rate, ["momentum"])
        self.momentum = momentum

    def update_step(self, gradient: Any, variable: tf.Variable, learning_rate: Any) -> None:
        """Updates a variable by a gradient of its shape; Keras calls it for each on each device."""
        dtype, (var, m) = variable.dtype, self._handles(variable)
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=var,
            accum=m,
            lr=tf.cast(learning_rate, dtype),
            grad=tf.cast(gradient, dtype),
            momentum=tf.constant(self.momentum, dtype),
        )
