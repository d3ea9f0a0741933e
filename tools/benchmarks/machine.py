"""What this machine can do at best: its rate of matrix products."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

_SIZE = 1024
# So many products in a call that its overhead does not count.
_PRODUCTS = 8
OPERATIONS = 2 * _SIZE**3 * _PRODUCTS


def matrix_products() -> Callable[[], object]:
    """A function that multiplies matrices of 1,024 x 1,024 and takes `OPERATIONS` in all."""
    matrix = tf.random.stateless_normal([_SIZE, _SIZE], [0, 0]) / _SIZE**0.5

    @tf.function
    def multiply(product: tf.Tensor) -> tf.Tensor:
        for _ in range(_PRODUCTS):
            product = tf.matmul(product, matrix)
        return product

    return lambda: multiply(matrix).numpy()


def lstm_operations(
    num_sequences: int, length: int, num_features: int, num_layers: int, hidden_size: int
) -> int:
    """Multiply-adds times two of a forward pass of bidirectional LSTMs; gates' own work left out.

    Formula:
        2 * 2 * num_sequences * length * sum over layers of (inputs + hidden) * 4 * hidden
    """
    inputs = [num_features] + [2 * hidden_size] * (num_layers - 1)
    each = sum((width + hidden_size) * 4 * hidden_size for width in inputs)
    return 4 * num_sequences * length * each
