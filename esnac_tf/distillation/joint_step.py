"""One training step of many students: one teacher pass, then every student's update."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from esnac_tf.distillation.losses import DistillationLoss
from esnac_tf.distillation.step_error import as_step_errors, blame_student
from esnac_tf.distillation.student_update import StudentUpdate
from esnac_tf.distillation.task import Task
from esnac_tf.distillation.teacher_targets import scores_of
from esnac_tf.distillation.training_config import TrainingConfig
from esnac_tf.profiling import measured, part_of_call


@dataclasses.dataclass(frozen=True)
class StepSettings:
    """What all students of a step have in common.

    Attributes:
        config: The optimizer, XLA.
        loss: One loss per example.
        teacher: None if the loss needs none, or its scores come with the batches.
        strategy: The strategy of the models' scope.
        global_batch_size: Rows of a batch, of all replicas together.
        task: What the models' outputs are.
    """

    config: TrainingConfig
    loss: DistillationLoss
    teacher: keras.Model | None
    strategy: tf.distribute.Strategy
    global_batch_size: int
    task: Task


class JointStep:
    """A training step of K students, traced once.

    Students share nothing but the batch and the teacher's logits, so what goes wrong in one
    stays in it. A student whose loss is not finite is left out of all later steps, on the
    device: the host reads nothing until the end of an epoch. A student that can't be built
    or traced is left out of the graph. Discarded ones are left out like those that failed.

    Args:
        students: K models built under the strategy's scope.
        settings: What they have in common.

    Raises:
        StepError: If memory runs out, which is not one student's fault.
    """

    def __init__(self, students: Sequence[keras.Model], settings: StepSettings) -> None:
        self._settings = settings
        self._failures: dict[int, str] = {}
        self._updates: dict[int, StudentUpdate] = {}
        for index, student in enumerate(students):
            try:
                self._updates[index] = StudentUpdate(
                    student,
                    settings.config,
                    settings.loss,
                    settings.global_batch_size,
                    settings.task,
                    settings.strategy,
                )
            except Exception as error:
                self._failures[index] = blame_student(error)
        self._num_students = len(students)
        shape = [self._num_students]
        self._teacher = None
        if settings.teacher is not None and settings.loss.needs_teacher:
            self._teacher = scores_of(settings.teacher, settings.task, settings.config.jit_compile)
        self._steps = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._loss_sums = tf.Variable(tf.zeros(shape, tf.float64), trainable=False)
        # The first loss that was not finite, and its step in its epoch; 0 means none yet.
        self._bad_losses = tf.Variable(tf.zeros(shape, tf.float64), trainable=False)
        self._bad_steps = tf.Variable(tf.zeros(shape, tf.int64), trainable=False)
        self._is_active = tf.Variable(tf.ones(shape, tf.bool), trainable=False)
        self._function = tf.function(self._step, autograph=False)

    def start_epoch(self, learning_rate: float) -> None:
        """Sets the learning rate and starts the mean losses anew."""
        for update in self._updates.values():
            update.set_learning_rate(learning_rate)
        self._steps.assign(0)
        self._loss_sums.assign(tf.zeros_like(self._loss_sums))

    def __call__(self, x: Any, y: Any, weight: Any = None, teacher_scores: Any = None) -> None:
        """Trains the students by one batch, as the strategy distributes it.

        Args:
            x: Inputs [B, ...].
            y: Their labels.
            weight: How much each example counts, [B]; None: all alike.
            teacher_scores: The teacher's scores of x, where they are known; None: the teacher
                computes them.

        Raises:
            StepError: If the step fails and nothing tells which student's fault it was.
        """
        with as_step_errors(), measured(part_of_call(self._function, "training")):
            self._function(x, y, weight, teacher_scores)

    def set_active(self, active: Sequence[bool]) -> None:
        """Says for each student whether later steps train it."""
        self._is_active.assign(list(active))

    def variables(self, index: int) -> list[keras.Variable]:
        """All that the training of a student changes; none if it can't be built."""
        return self._updates[index].variables if index in self._updates else []

    def mean_losses(self) -> list[float]:
        """Waits for the device and returns the K mean losses of the epoch so far.

        Those of failed students mean nothing.

        Raises:
            StepError: As from a step.
        """
        with as_step_errors():
            means = self._loss_sums.numpy() / max(1, int(self._steps.numpy()))
        return [float(mean) for mean in means]

    def failures(self, epoch: int) -> dict[int, str]:
        """Returns why students failed, in one line each, by their index.

        Args:
            epoch: The epoch that just ran, counted from 1.
        """
        bad_losses, bad_steps = self._bad_losses.numpy(), self._bad_steps.numpy()
        for index in np.flatnonzero(bad_steps):
            value = "NaN" if math.isnan(bad_losses[index]) else "infinite"
            self._failures.setdefault(
                int(index), f"loss became {value} in epoch {epoch}, step {bad_steps[index]}"
            )
        return dict(self._failures)

    def _step(self, x: Any, y: Any, weight: Any, teacher_scores: Any) -> None:
        strategy = self._settings.strategy
        if self._teacher is not None and teacher_scores is None:
            teacher_scores = strategy.run(self._teacher, (x,))
        batch = [x, y, weight, teacher_scores]

        def update(student: StudentUpdate) -> tf.Tensor:
            return strategy.reduce("SUM", strategy.run(student, batch), axis=None)

        losses = []
        healthy = self._is_active & (self._bad_steps == 0)
        for index in range(self._num_students):
            loss = tf.zeros([])
            if index not in self._failures:
                student = self._updates[index]
                try:
                    # Branched here, across replicas, because a branch inside a replica can't
                    # exchange gradients. Not in a tf.function of its own: calling one from a
                    # branch fails under MirroredStrategy (TensorFlow 2.21).
                    loss = tf.cond(
                        healthy[index],
                        lambda student=student: update(student),
                        lambda: tf.zeros([]),
                    )
                except Exception as error:
                    self._failures[index] = blame_student(error)
            losses.append(loss)
        self._note(tf.cast(tf.stack(losses), tf.float64), healthy)

    def _note(self, losses: tf.Tensor, healthy: tf.Tensor) -> None:
        step = self._steps.assign_add(1)
        finite = tf.math.is_finite(losses)
        new = healthy & ~finite
        self._bad_losses.assign(tf.where(new, losses, self._bad_losses))
        self._bad_steps.assign(tf.where(new, step, self._bad_steps))
        self._loss_sums.assign_add(tf.where(finite, losses, 0.0))
