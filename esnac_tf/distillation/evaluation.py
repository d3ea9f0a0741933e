"""Accuracy of many models at once."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from esnac_tf.distillation.devices import share_out
from esnac_tf.distillation.step_error import as_step_errors
from esnac_tf.distillation.task import class_scores
from esnac_tf.errors import UserError
from esnac_tf.profiling import measured, part_of_call


@dataclasses.dataclass(frozen=True)
class Score:
    """What the evaluation of one model gave.

    Attributes:
        value: Of the metric; an accuracy is in [0, 1].
        finite: The share of the rows whose outputs are finite, by weight, in [0, 1].
    """

    value: float
    finite: float


class Evaluation:
    """The accuracy of the same classifiers on the same rows, again and again, traced once.

    Formula:
        accuracy = sum(weight * (argmax(model(x), axis=-1) == y)) / sum(weight)

    An output with a NaN or an infinity in it counts as wrong.

    Args:
        models: K models with one output [B, C], logits or probabilities; built under the
            strategy's scope.
        dataset: Of (x, y, weight): inputs [B, ...], class indices [B] and weights [B], 0 for
            rows that only fill a batch; or of (x, y). Equal batch shapes are traced once.
        strategy: The strategy of the models' scope.
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
        self._batches = share_out(dataset.map(with_weight), strategy)
        # One function a model, so that XLA compiles the models one by one.
        self._forwards = [_forward(model, jit_compile) for model in models]
        self._traced: list[bool] = []
        # TensorFlow takes functions of the same code for one that it traces again and again, and
        # warns; a partial has no code.
        self._count = tf.function(functools.partial(self._count_batch), autograph=False)

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
        sums: list[tuple[tf.Tensor, tf.Tensor]] = []
        for x, y, weight in self._batches:
            with as_step_errors(Exception), measured(part_of_call(self._count, "evaluation")):
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


def _forward(model: keras.Model, jit_compile: bool) -> Any:
    def forward(x: Any) -> tf.Tensor:
        return class_scores(model(x, training=False))

    return tf.function(forward, autograph=False, jit_compile=True) if jit_compile else forward


def with_weight(x: Any, y: Any, weight: tf.Tensor | None = None) -> Any:
    """A batch with its weights [B], which are 1 where none are given."""
    first = keras.tree.flatten(y)[0]
    weight = tf.ones(tf.shape(first)[:1]) if weight is None else tf.cast(weight, tf.float32)
    return x, y, tf.ensure_shape(weight, first.shape[:1])
