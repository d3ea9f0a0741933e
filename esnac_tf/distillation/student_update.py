"""One student's loss, gradients and optimizer, on one replica."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from esnac_tf.distillation.losses import DistillationLoss
from esnac_tf.distillation.mixed_precision import computes_in_float16
from esnac_tf.distillation.optimizers import build_optimizer
from esnac_tf.distillation.task import Task
from esnac_tf.distillation.training_config import TrainingConfig
from esnac_tf.errors import UserError


class StudentUpdate:
    """Trains one student by one batch.

    Formula:
        loss = sum(distillation_loss(y, teacher_scores, scores(student(x)))) / global_batch_size
               + sum(student.losses) / num_replicas
        gradient = d loss / d v + weight_decay / num_replicas * v

    Both are one replica's part: the sum over replicas, which `optimizer.apply` forms of the
    gradients by itself, is that of the whole batch.

    Args:
        student: Built under the strategy's scope.
        config: The optimizer, its weight decay, XLA.
        loss: One loss per example.
        global_batch_size: Rows of a batch, of all replicas together.
        task: What the student's outputs are.
        strategy: The strategy of the student's scope.

    Raises:
        UserError: If the student has nothing to train.
    """

    def __init__(
        self,
        student: keras.Model,
        config: TrainingConfig,
        loss: DistillationLoss,
        global_batch_size: int,
        task: Task,
        strategy: tf.distribute.Strategy,
    ) -> None:
        if not student.trainable_variables:
            raise UserError("The student has no trainable variables.")
        self._student = student
        self._loss = loss
        self._global_batch_size = global_batch_size
        self._task = task
        self._num_replicas = strategy.num_replicas_in_sync
        self._weight_decay = config.weight_decay
        self._scales_loss = computes_in_float16(student)
        with strategy.scope():
            self._optimizer = build_optimizer(config)
            if self._scales_loss:
                self._optimizer = keras.optimizers.LossScaleOptimizer(self._optimizer)
            self._optimizer.build(student.trainable_variables)
        self._compute = self._loss_and_gradients
        if config.jit_compile:
            self._compute = tf.function(self._compute, autograph=False, jit_compile=True)

    @property
    def variables(self) -> list[keras.Variable]:
        """All that a training changes: the student's variables, and its optimizer's."""
        return [*self._student.variables, *self._optimizer.variables]

    def set_learning_rate(self, learning_rate: float) -> None:
        """Sets the learning rate of the next steps, without a new trace."""
        self._optimizer.learning_rate = learning_rate

    def __call__(self, x: Any, y: Any, weight: Any = None, teacher_scores: Any = None) -> tf.Tensor:
        """Updates the student; must be called in a replica context.

        Args:
            x: This replica's inputs, shape [B, ...].
            y: Their labels: of a classifier class indices, shape [B].
            weight: What each example's loss is multiplied by, [B]; None: 1. The sum is divided by
                the number of examples, not by that of weights, as Keras does.
            teacher_scores: The teacher's outputs as `Task.scores` reads them: of a classifier
                logits [B, C]; None without a teacher.

        Returns:
            This replica's part of the loss before the update, float32, shape [].

        Raises:
            UserError: If shapes don't fit, or no trainable variable has a gradient.
        """
        loss, gradients = self._compute(x, y, weight, teacher_scores)
        pairs = [
            (gradient, variable)
            for gradient, variable in zip(gradients, self._student.trainable_variables, strict=True)
            if gradient is not None
        ]
        if not pairs:
            raise UserError("No trainable variable of the student has a gradient.")
        gradients, variables = zip(*pairs, strict=True)
        if self._scales_loss and self._num_replicas > 1:
            gradients = _nan_everywhere_if_not_finite_anywhere(gradients)
        self._optimizer.apply(gradients, variables)
        return loss

    def _loss_and_gradients(self, x: Any, y: Any, weight: Any, teacher_scores: Any) -> Any:
        # Optimizers and the tape know the variables of TensorFlow inside Keras' ones.
        variables = [variable.value for variable in self._student.trainable_variables]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            scores = self._task.scores(self._student(x, training=True))
            if teacher_scores is not None and _shapes(teacher_scores) != _shapes(scores):
                raise UserError(
                    f"The student's outputs have shape {_shapes(scores)}, "
                    f"the teacher's {_shapes(teacher_scores)}."
                )
            losses = self._loss(y, teacher_scores, scores)
            if weight is not None:
                losses *= tf.cast(weight, losses.dtype)
            loss = tf.reduce_sum(losses) / self._global_batch_size
            for own_loss in self._student.losses:
                loss += tf.cast(own_loss, loss.dtype) / self._num_replicas
            scaled_loss = self._optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled_loss, variables)
        decay = self._optimizer.scale_loss(self._weight_decay / self._num_replicas)
        return loss, [
            None
            if gradient is None
            else tf.convert_to_tensor(gradient) + tf.cast(decay, variable.dtype) * variable
            for gradient, variable in zip(gradients, variables, strict=True)
        ]


def _shapes(outputs: Any) -> str:
    return ", ".join(str(tuple(output.shape)) for output in keras.tree.flatten(outputs))


def _nan_everywhere_if_not_finite_anywhere(gradients: Any) -> list[tf.Tensor]:
    # LossScaleOptimizer (Keras 3.15) asks only the first replica whether its part of the
    # gradients is finite, and would add up an overflow of any other.
    finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(g)) for g in gradients])
    context = tf.distribute.get_replica_context()
    overflows = context.all_reduce("SUM", tf.cast(~finite, tf.float32))
    return [tf.where(overflows > 0, float("nan"), gradient) for gradient in gradients]
