"""Any Keras metric, or the loss, of many models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from esnac_tf.distillation.devices import on_replicas, share_out
from esnac_tf.distillation.evaluation import Evaluation, Score, with_weight
from esnac_tf.distillation.output_losses import named_parts
from esnac_tf.distillation.output_masks import mask_of, masks_of, with_masks
from esnac_tf.distillation.step_error import StepError, as_step_errors
from esnac_tf.distillation.task import Task
from esnac_tf.errors import UserError, error_reason
from esnac_tf.profiling import measured, part_of_call


def evaluate(
    models: Sequence[keras.Model],
    dataset: tf.data.Dataset,
    strategy: tf.distribute.Strategy | None = None,
    task: Task | None = None,
) -> list[float]:
    """The metric of a task, of K models.

    Args:
        models: K models, built under the strategy's scope.
        dataset: Of (x, y, weight), weights [B], 0 for rows that only fill a batch; or of (x, y).
        strategy: The strategy of the models' scope; the current one by default.
        task: What the models are for; classifiers judged by accuracy by default.

    Returns:
        K values of the metric.

    Raises:
        UserError: All weights are 0 or there are no rows, the metric does not fit outputs and
            labels, or a model can't compute its outputs from the data.

    Example:
        >>> from esnac_tf.distillation.task import search_metric
        >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Identity()])
        >>> rows = tf.data.Dataset.from_tensors((np.zeros((4, 1)), np.full((4, 1), 2.0)))
        >>> task = Task(False, metric=search_metric("mean_absolute_error"))
        >>> evaluate([model], rows, task=task)
        [2.0]
    """
    strategy = strategy or tf.distribute.get_strategy()
    evaluation = evaluation_for(models, dataset, strategy, task or Task())
    try:
        return [score.value for score in evaluation([True] * len(models))]
    except StepError as error:
        if isinstance(error.__cause__, tf.errors.InvalidArgumentError):
            raise UserError(
                f"The model can't compute the data: {error_reason(error.__cause__)}\n"
                "Give data of the kind and range that the model was trained on."
            ) from error
        raise (error.__cause__ or error) from None


def evaluation_for(
    models: Sequence[keras.Model],
    dataset: tf.data.Dataset,
    strategy: tf.distribute.Strategy,
    task: Task,
    jit_compile: bool = False,
) -> Evaluation | MetricEvaluation:
    """What evaluates these models again and again by the task's metric."""
    if task.metric.metric is None and task.metric.loss is None:
        return Evaluation(models, dataset, strategy, jit_compile)
    return MetricEvaluation(models, dataset, strategy, task, jit_compile)


class MetricEvaluation:
    """Evaluates the same models on the same rows by any metric, as `Evaluation` does accuracy.

    Outputs are gathered from all replicas, and the metric sees them outside of the strategy, as
    a Keras metric inside a replica counts that replica alone. Models come one after another:
    the user's metric can't always be copied.

    Args:
        models: As for `evaluate`.
        dataset: Likewise.
        strategy: Likewise.
        task: Likewise.
        jit_compile: Compile the forward passes with XLA.
    """

    def __init__(
        self,
        models: Sequence[keras.Model],
        dataset: tf.data.Dataset,
        strategy: tf.distribute.Strategy,
        task: Task,
        jit_compile: bool = False,
    ) -> None:
        self._strategy, self._task = strategy, task
        self._batches = share_out(dataset.map(with_weight), strategy)
        self._forwards = [self._forward(model, jit_compile) for model in models]

    def __call__(self, active: Sequence[bool]) -> list[Score]:
        """Returns a score per model, of zeros for those that are not active.

        Args:
            active: Whether to evaluate, for each model.

        Raises:
            UserError: All weights are 0 or there are no rows, or the metric does not fit.
            StepError: A batch fails and nothing tells which model's fault it was.
        """
        return [
            self._score(forward) if use else Score(0.0, 0.0)
            for forward, use in zip(self._forwards, active, strict=True)
        ]

    def _score(self, forward: Any) -> Score:
        metric = self._task.metric
        if metric.metric is not None:
            metric.metric.reset_state()
        finite, total, loss = 0.0, 0.0, 0.0
        for x, y, weight in self._batches:
            with as_step_errors(Exception), measured(part_of_call(forward, "evaluation")):
                outputs, masks = self._together(forward(x))
                labels, weights = self._together(y), self._together(weight)
            is_row = weights.numpy() > 0
            if not is_row.any():
                continue
            if not is_row.all():
                outputs, masks, labels, weights = keras.tree.map_structure(
                    lambda tensor, is_row=is_row: None if tensor is None else tensor[is_row],
                    (outputs, masks, labels, weights),
                )
            outputs = with_masks(outputs, masks)
            total += float(tf.reduce_sum(weights))
            finite += float(tf.reduce_sum(tf.where(_finite_rows(outputs), weights, 0.0)))
            try:
                if metric.loss is not None:
                    scores = self._task.scores(outputs)
                    loss += float(tf.reduce_sum(metric.loss(labels, None, scores) * weights))
                else:
                    label, output = self._selected(labels), self._selected(outputs)
                    metric.metric.update_state(label, output, _unless_ones(weights, output))
            except UserError:
                raise
            except Exception as error:
                raise UserError(
                    f"The metric {metric.name!r} can't be computed from the labels and the "
                    f"model's outputs: {error_reason(error)}\nGive a metric that fits them."
                ) from error
        if not total > 0:
            raise UserError("There are no rows to evaluate: all weights are 0 or rows are missing.")
        if metric.loss is not None:
            return Score(loss / total, finite / total)
        value = np.asarray(metric.metric.result())
        if value.ndim:
            raise UserError(
                f"The metric {metric.name!r} gives {value.size} numbers, students are judged by "
                "one.\nGive a metric that averages, such as keras.metrics.F1Score('macro')."
            )
        return Score(float(value), finite / total)

    def _selected(self, structure: Any) -> Any:
        names, values = named_parts(structure, self._task.output_names)
        wanted = self._task.metric.output
        if wanted is None:
            if len(values) == 1:
                return values[0]
            raise UserError(
                f"The model has {len(values)} outputs, and a metric looks at one.\n"
                f'Say which: metric={{"{names[0]}": "{self._task.metric.name}"}}.'
            )
        if wanted not in names:
            raise UserError(
                f"The metric is of the output {wanted!r}.\n"
                f"The outputs are {', '.join(map(repr, names))}."
            )
        return values[names.index(wanted)]

    def _forward(self, model: keras.Model, jit_compile: bool) -> Any:
        def forward(x: Any) -> Any:
            outputs = model(x, training=False)
            return outputs, masks_of(outputs)

        replica = (
            tf.function(forward, autograph=False, jit_compile=True) if jit_compile else forward
        )
        return on_replicas(self._strategy, replica)

    def _together(self, structure: Any) -> Any:
        """The rows of all replicas in one tensor."""
        if self._strategy.num_replicas_in_sync == 1:
            return structure

        def gather(value: Any) -> Any:
            if value is None:
                return None
            parts = self._strategy.experimental_local_results(value)
            if len(parts) < self._strategy.num_replicas_in_sync:  # others are on other machines
                return self._strategy.gather(value, axis=0)
            return tf.concat(parts, axis=0)

        return tf.nest.map_structure(gather, structure)


def _finite_rows(outputs: Any) -> Any:
    """Whether all floats of a row are finite: [B]."""
    rows = []
    for output in keras.tree.flatten(outputs):
        if output.dtype.is_floating:
            axes = list(range(1, output.shape.rank))
            rows.append(tf.reduce_all(tf.math.is_finite(output), axis=axes))
    return tf.reduce_all(tf.stack(rows), axis=0) if rows else True


def _unless_ones(weights: Any, output: Any) -> Any:
    """Weights [B] as a metric takes them beside the mask [B, ...] of an output; None for ones."""
    if bool(tf.reduce_all(weights == 1.0)):
        return None
    mask = mask_of(output)
    num_axes = 0 if mask is None else mask.shape.rank - 1
    return tf.reshape(weights, [-1, *[1] * num_axes])
