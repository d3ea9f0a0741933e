"""Accuracy of many models at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from esnac_tf.distillation.step_error import StepError, as_step_errors
from esnac_tf.errors import UserError


def evaluate_accuracy(
    models: Sequence[keras.Model],
    dataset: tf.data.Dataset,
    strategy: tf.distribute.Strategy | None = None,
) -> list[float]:
    """Returns the accuracies of K models, which share each batch.

    Formula:
        accuracy = sum(weight * (argmax(model(x), axis=-1) == y)) / sum(weight)

    An output with a NaN or an infinity in it counts as wrong.

    Args:
        models: K models with one output [B, C], logits or probabilities; built under the
            strategy's scope.
        dataset: Of (x, y, weight): inputs [B, ...], class indices [B] and weights [B], 0 for
            rows that only fill a batch; or of (x, y). Equal batch shapes are traced once.
        strategy: The strategy of the models' scope; the current one by default.

    Returns:
        K accuracies in [0, 1].

    Raises:
        UserError: If all weights are 0 or there are no rows, or a model has not one output
            [B, C].

    Example:
        >>> import numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Softmax()])
        >>> x, y = np.eye(2, dtype="float32"), np.array([0, 0])
        >>> evaluate_accuracy([model], tf.data.Dataset.from_tensor_slices((x, y)).batch(2))
        [0.5]
        >>> rows = tf.data.Dataset.from_tensor_slices((x, y, np.array([1.0, 0.0])))
        >>> evaluate_accuracy([model], rows.batch(2))
        [1.0]
    """
    evaluation = Evaluation(models, dataset, strategy or tf.distribute.get_strategy())
    try:
        return [score.accuracy for score in evaluation([True] * len(models))]
    except StepError as error:
        raise (error.__cause__ or error) from None


@dataclasses.dataclass(frozen=True)
class Score:
    """What the evaluation of one model gave.

    Attributes:
        accuracy: In [0, 1].
        finite: The share of the rows whose outputs are finite, by weight, in [0, 1].
    """

    accuracy: float
    finite: float


class Evaluation:
    """Evaluates the same models on the same rows, again and again, traced once.

    Args:
        models: As in `evaluate_accuracy`.
        dataset: Likewise.
        strategy: Likewise.
        jit_compile: Compile the forward passes with XLA.
    """

    def __init__(
        self,
        models: Sequence[keras.Model],
        dataset: tf.data.Dataset,
        strategy: tf.distribute.Strategy,
        jit_compile: bool = False,
    ) -> None:
        self._strategy = strategy
        self._batches = strategy.experimental_distribute_dataset(dataset.map(_with_weight))
        # One function a model, so that XLA compiles the models one by one.
        self._forwards = [_forward(model, jit_compile) for model in models]
        self._traced: list[bool] = []
        self._count = tf.function(self._count_batch, autograph=False)

    def __call__(self, active: Sequence[bool]) -> list[Score]:
        """Returns a score per model, of zeros for those that are not active.

        Args:
            active: Whether to evaluate, for each model; a model that is not active in the
                first call never is.

        Raises:
            UserError: If all weights are 0 or there are no rows.
            StepError: If a batch fails and nothing tells which model's fault it was.
        """
        self._traced = self._traced or list(active)
        switches = tf.constant(list(active), tf.bool)
        sums = []
        for x, y, weight in self._batches:
            with as_step_errors(Exception):
                sums.append(self._count(x, y, weight, switches))
        weights = sum(batch[0].numpy().astype("float64") for batch in sums)
        total = sum(float(batch[1]) for batch in sums)
        if not total > 0:
            raise UserError("There are no rows to evaluate: all weights are 0 or rows are missing.")
        return [Score(float(right), float(finite)) for right, finite in weights / total]

    def _count_batch(self, x: Any, y: Any, weight: Any, active: tf.Tensor) -> Any:
        """Returns the weights of (right, finite) rows, shape [K, 2], and of all, shape []."""
        nothing = tf.zeros([2])

        def weigh(forward: Any) -> tf.Tensor:
            def count(x: Any, y: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
                outputs = forward(x)
                finite = tf.reduce_all(tf.math.is_finite(outputs), axis=-1)
                right = finite & (tf.argmax(outputs, axis=-1) == tf.cast(y, tf.int64))
                return tf.reduce_sum(tf.where([right, finite], weight, 0.0), axis=-1)

            return self._sum(count, x, y, weight)

        counts = [
            tf.cond(active[index], lambda forward=forward: weigh(forward), lambda: nothing)
            if self._traced[index]
            else nothing
            for index, forward in enumerate(self._forwards)
        ]
        return tf.stack(counts), self._sum(tf.reduce_sum, weight)

    def _sum(self, function: Any, *args: Any) -> tf.Tensor:
        return self._strategy.reduce("SUM", self._strategy.run(function, args), axis=None)


def class_scores(outputs: Any) -> tf.Tensor:
    """Returns a model's one output [B, C] as float32, whatever structure holds it.

    Args:
        outputs: What the model returned: a tensor, or a dict or list with one in it.

    Returns:
        The output, float32, shape [B, C].

    Raises:
        UserError: If there is not one output of rank 2.

    Example:
        >>> class_scores({"logits": tf.zeros([1, 2], tf.float16)}).dtype
        tf.float32
    """
    leaves = keras.tree.flatten(outputs)
    if len(leaves) != 1 or leaves[0].shape.rank != 2:
        shapes = ", ".join(str(leaf.shape) for leaf in leaves)
        raise UserError(f"A model must have one output of shape [B, C], received {shapes}.")
    return tf.cast(leaves[0], tf.float32)


def _forward(model: keras.Model, jit_compile: bool) -> Any:
    def forward(x: Any) -> tf.Tensor:
        return class_scores(model(x, training=False))

    return tf.function(forward, autograph=False, jit_compile=True) if jit_compile else forward


def _with_weight(x: Any, y: tf.Tensor, weight: tf.Tensor | None = None) -> Any:
    weight = tf.ones(tf.shape(y)) if weight is None else tf.cast(weight, tf.float32)
    return x, y, tf.ensure_shape(weight, y.shape)
