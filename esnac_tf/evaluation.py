"""Architecture -> trial: students are built, distilled together, and measured."""

from __future__ import annotations

import dataclasses
import gc
import time
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from esnac_tf.architecture import ActionSet
from esnac_tf.distillation import TrainingConfig, train
from esnac_tf.distillation.step_error import describe_error
from esnac_tf.distillation.training import Batches, OnBatch, OnEpoch
from esnac_tf.distillation.training_outcome import TrainingOutcome
from esnac_tf.errors import InfeasibleStudentError, UserError
from esnac_tf.graph.cost import count_flops, count_params
from esnac_tf.objectives import Measurement, Objective
from esnac_tf.student import StudentBuilder
from esnac_tf.trial import COMPLETE, FAILED, Trial

# What Keras and TensorFlow raise where a layer can't be built.
BUILD_ERRORS = (ValueError, TypeError, KeyError, tf.errors.OpError, MemoryError)


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """A finished trial and its student; a failed trial has none."""

    trial: Trial
    student: keras.Model | None


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """Evaluates the students of a step together.

    Attributes:
        builder: Builds students.
        teacher: The teacher, built under the strategy's scope.
        teacher_measurement: What was measured of the teacher.
        objective: What the search maximises.
        batches: Training data.
        validation: Held-out data that chooses the best epoch and gives the accuracy.
        config: How students are trained.
        loss: The distillation loss.
        distribution: The `tf.distribute` strategy that trains.
        from_logits: Whether the models give logits; else they give probabilities.
        seed: Seed of what is random in training.
    """

    builder: StudentBuilder
    teacher: keras.Model
    teacher_measurement: Measurement
    objective: Objective
    batches: Batches
    validation: tf.data.Dataset
    config: TrainingConfig
    loss: Any
    distribution: tf.distribute.Strategy
    from_logits: bool = True
    seed: int = 0

    def evaluate(
        self,
        proposals: Mapping[int, ActionSet],
        step: int,
        on_epoch: OnEpoch | None = None,
        on_batch: OnBatch | None = None,
    ) -> list[Evaluated]:
        """Builds, distils and measures students.

        A student that can't be built, or whose training fails, gives a failed trial; the others
        do not notice.

        Args:
            proposals: Actions by the number of their trial.
            step: The search step they belong to, from 0.
            on_epoch: Called after each epoch with its number from 1 and the students' records.
            on_batch: Called after each batch with the numbers of epoch and batch from 1.

        Returns:
            One result for each proposal, in order.

        Raises:
            UserError: If actions don't fit the teacher.
        """
        start = time.perf_counter()
        students: dict[int, keras.Model] = {}
        failures: dict[int, str] = {}
        with self.distribution.scope():
            for number, actions in proposals.items():
                try:
                    students[number] = self.builder.build(actions)
                except UserError:  # A ValueError, but the user's and not the student's.
                    raise
                except InfeasibleStudentError as error:
                    failures[number] = f"can't be built: {error}"
                except BUILD_ERRORS as error:
                    failures[number] = f"can't be built: {describe_error(error)}"
        outcomes = dict(
            zip(students, self._train(list(students.values()), on_epoch, on_batch), strict=True)
        )
        duration_secs = time.perf_counter() - start
        results = []
        for number, actions in proposals.items():
            if number in failures:
                trial = Trial(
                    number, FAILED, actions, None, None, None, None, duration_secs, step,
                    failure=failures[number],
                )  # fmt: skip
                results.append(Evaluated(trial, None))
                continue
            student, outcome = students[number], outcomes[number]
            trial = self._trial(number, actions, student, outcome, step, duration_secs)
            results.append(Evaluated(trial, student if trial.is_complete else None))
        gc.collect()  # Graphs and optimizers of the training are cycles, and large.
        return results

    def _train(
        self, students: Sequence[keras.Model], on_epoch: OnEpoch | None, on_batch: OnBatch | None
    ) -> list[TrainingOutcome]:
        return train(
            students,
            self.batches,
            self.validation,
            self.config,
            loss=self.loss,
            teacher=self.teacher,
            strategy=self.distribution,
            from_logits=self.from_logits,
            on_epoch=on_epoch,
            on_batch=on_batch,
            seed=self.seed,
        )

    def _trial(
        self,
        number: int,
        actions: ActionSet,
        student: keras.Model,
        outcome: TrainingOutcome,
        step: int,
        duration_secs: float,
    ) -> Trial:
        num_params, flops = count_params(student), count_flops(student)
        if outcome.failure is not None:
            return Trial(
                number, FAILED, actions, num_params, flops, None, None, duration_secs, step,
                failure=outcome.failure,
            )  # fmt: skip
        measurement = Measurement(num_params, flops, outcome.validation_accuracy)
        return Trial(
            number=number,
            state=COMPLETE,
            actions=actions,
            num_params=num_params,
            flops=flops,
            validation_accuracy=outcome.validation_accuracy,
            objective=self.objective(measurement, self.teacher_measurement),
            duration_secs=duration_secs,
            step=step,
            best_epoch=outcome.best_epoch,
        )
