"""Architecture -> trial: students are built, distilled together, and measured."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from esnac_tf.architecture import ActionSet
from esnac_tf.distillation import TrainingConfig
from esnac_tf.distillation.at_once import AtOnce
from esnac_tf.distillation.checkpoint import Cost, kept_training
from esnac_tf.distillation.interruption import interruptible
from esnac_tf.distillation.step_error import describe_error
from esnac_tf.distillation.student_groups import StudentGroup, group_of, train_in_groups
from esnac_tf.distillation.successive_halving import discarded, rungs
from esnac_tf.distillation.task import Task
from esnac_tf.distillation.teacher_targets import TeacherTargets
from esnac_tf.distillation.training import Batches, OnBatch, OnEpoch
from esnac_tf.distillation.training_outcome import TrainingOutcome
from esnac_tf.errors import InfeasibleStudentError, UserError
from esnac_tf.graph.cost import count_flops, count_params
from esnac_tf.objectives import Measurement, Objective
from esnac_tf.profiling import measured
from esnac_tf.student import StudentBuilder
from esnac_tf.trial import COMPLETE, FAILED, Trial

# What Keras and TensorFlow raise where a layer can't be built.
BUILD_ERRORS = (ValueError, TypeError, KeyError, tf.errors.OpError, MemoryError)


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """A finished trial and what gives its student; a failed trial has none.

    The student may be far away: it is fetched only if its weights are kept, and is None if they are
    gone by then.
    """

    trial: Trial
    student: Callable[[], keras.Model | None] | None


# Called with results as they come.
OnFinished = Callable[[Sequence[Evaluated]], None]


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """Evaluates the students of a step together.

    Attributes:
        builder: Builds students.
        groups: Where students are trained: they are shared out among these.
        teacher_measurement: What was measured of the teacher.
        objective: What the search maximises.
        batches: Training data, with the teacher's scores or without.
        validation: Held-out data that chooses the best epoch and gives the metric.
        config: How students are trained.
        loss: The distillation loss.
        task: What the models are for, and the metric.
        seed: Seed of what is random in training.
        halving_factor: Successive halving: at its rungs one of so many students goes on, those
            with the best objectives; 1 trains all to the end.
        at_once: How many students are trained at once on a device.
        checkpoint_path: Where a training is kept while it goes on; None: nowhere.
        checkpoint_costs: What that takes.
    """

    builder: StudentBuilder
    groups: Sequence[StudentGroup]
    teacher_measurement: Measurement
    objective: Objective
    batches: Batches | TeacherTargets
    validation: tf.data.Dataset
    config: TrainingConfig
    loss: Any
    task: Task = dataclasses.field(default_factory=Task)
    seed: int = 0
    halving_factor: int = 1
    at_once: AtOnce = dataclasses.field(default_factory=AtOnce)
    checkpoint_path: pathlib.Path | None = None
    checkpoint_costs: dict[str, Cost] = dataclasses.field(default_factory=dict)

    def evaluate(
        self,
        proposals: Mapping[int, ActionSet],
        step: int,
        on_epoch: OnEpoch | None = None,
        on_batch: OnBatch | None = None,
        on_finished: OnFinished | None = None,
        step_size: int | None = None,
    ) -> list[Evaluated]:
        """Builds, distils and measures students.

        A student that can't be built, or whose training fails, gives a failed trial; the others
        do not notice.

        Args:
            proposals: Actions by the number of their trial.
            step: The search step they belong to, from 0.
            on_epoch: Called after each epoch with its number from 1 and the students' records.
            on_batch: Called after each batch with the numbers of epoch and batch from 1.
            on_finished: Called with results as soon as they are there: those of students that
                can't be built, then those of students that were trained together.
            step_size: Of how many students the step is, by which successive halving counts; that
                of the proposals by default. Of students that are trained apart, on several
                devices or for want of memory, the same share goes on.

        Returns:
            One result for each proposal, in order.

        Raises:
            UserError: If actions don't fit the teacher.
        """
        start = time.perf_counter()
        results: dict[int, Evaluated] = {}

        def finish(finished: Mapping[int, Evaluated]) -> None:
            results.update(finished)
            if on_finished is not None and finished:
                on_finished(list(finished.values()))

        students, failures = self._build(proposals)
        finish(
            {
                number: Evaluated(
                    self.failed(
                        number, proposals[number], step, failure, time.perf_counter() - start
                    ),
                    None,
                )
                for number, failure in failures.items()
            }
        )
        numbers = list(students)
        size = step_size or len(proposals)
        num_kept = rungs(size, self.config.epochs, self.halving_factor)

        def discard(epoch: int, qualities: Mapping[int, float], num_students: int) -> list[int]:
            if epoch not in num_kept:
                return []
            objectives = {}
            for index, quality in qualities.items():
                model = students[numbers[index]]
                reached = Measurement(count_params(model), count_flops(model), quality)
                objectives[index] = self.objective(reached, self.teacher_measurement)
            return discarded(objectives, math.ceil(num_kept[epoch] * num_students / size))

        def on_outcomes(outcomes: Mapping[int, TrainingOutcome]) -> None:
            finished = {}
            for index, outcome in outcomes.items():
                number = numbers[index]
                student = students[number]
                trial = self._trial(number, proposals[number], student, outcome, step, start)
                get = (lambda model=student: model) if trial.is_complete else None
                finished[number] = Evaluated(trial, get)
            finish(finished)

        names = [
            json.dumps([number, proposals[number].to_json(), repr(self.config)])
            for number in numbers
        ]
        with kept_training(self.checkpoint_path, names, self.checkpoint_costs) as checkpoint:
            train_in_groups(
                self.groups,
                list(students.values()),
                self.batches,
                self.validation,
                self.config,
                loss=self.loss,
                task=self.task,
                on_epoch=on_epoch,
                on_batch=on_batch,
                on_outcomes=on_outcomes,
                discard=discard,
                checkpoint=checkpoint,
                at_once=self.at_once,
                seed=self.seed,
            )
        return [results[number] for number in proposals]

    def _build(
        self, proposals: Mapping[int, ActionSet]
    ) -> tuple[dict[int, keras.Model], dict[int, str]]:
        """Students, and for those that can't be built the reason."""
        students: dict[int, keras.Model] = {}
        failures: dict[int, str] = {}
        with measured("building"), interruptible():
            for number, actions in proposals.items():
                try:
                    with group_of(len(students), self.groups).strategy.scope():
                        students[number] = self.builder.build(actions)
                except UserError:  # A ValueError, but the user's and not the student's.
                    raise
                except InfeasibleStudentError as error:
                    failures[number] = f"can't be built: {error}"
                except BUILD_ERRORS as error:
                    failures[number] = f"can't be built: {describe_error(error)}"
        return students, failures

    def _trial(
        self,
        number: int,
        actions: ActionSet,
        student: keras.Model,
        outcome: TrainingOutcome,
        step: int,
        start: float,
    ) -> Trial:
        num_params, flops = count_params(student), count_flops(student)
        duration_secs = time.perf_counter() - start
        if outcome.failure is not None:
            failed = self.failed(number, actions, step, outcome.failure, duration_secs)
            return dataclasses.replace(failed, num_params=num_params, flops=flops)
        measurement = Measurement(num_params, flops, outcome.quality)
        return Trial(
            number=number,
            state=COMPLETE,
            actions=actions,
            num_params=num_params,
            flops=flops,
            validation_metric=outcome.validation_metric,
            objective=self.objective(measurement, self.teacher_measurement),
            duration_secs=duration_secs,
            step=step,
            best_epoch=outcome.best_epoch,
            num_epochs=len(outcome.history),
            metric=self.task.metric.name,
        )

    def failed(
        self, number: int, actions: ActionSet, step: int, failure: str, duration_secs: float = 0.0
    ) -> Trial:
        """The trial of a student that came to nothing.

        Args:
            number: The trial's number.
            actions: What makes the student.
            step: The search step it belongs to, from 0.
            failure: Why.
            duration_secs: What it took.
        """
        return Trial(
            number=number,
            state=FAILED,
            actions=actions,
            num_params=None,
            flops=None,
            validation_metric=None,
            objective=None,
            duration_secs=duration_secs,
            step=step,
            failure=failure,
            metric=self.task.metric.name,
        )
