"""Trains students together and keeps the best epoch of each."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import itertools
import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from esnac_tf.distillation.at_once import AtOnce
from esnac_tf.distillation.batch_normalization import batch_norm_for_training
from esnac_tf.distillation.checkpoint import Checkpoint
from esnac_tf.distillation.devices import check_divides, share_out
from esnac_tf.distillation.interruption import interruptible
from esnac_tf.distillation.joint_step import JointStep, StepSettings
from esnac_tf.distillation.losses import DistillationLoss
from esnac_tf.distillation.metric_evaluation import evaluation_for
from esnac_tf.distillation.mixed_precision import float16_compute
from esnac_tf.distillation.replica_statistics import averaging
from esnac_tf.distillation.step_error import StepError
from esnac_tf.distillation.student_progress import StudentProgress, keep, restore
from esnac_tf.distillation.task import Task
from esnac_tf.distillation.teacher_targets import TeacherTargets
from esnac_tf.distillation.training_config import TrainingConfig
from esnac_tf.distillation.training_outcome import EpochRecord, TrainingOutcome
from esnac_tf.distillation.unfreezing import unfrozen
from esnac_tf.errors import UserError
from esnac_tf.profiling import measured

# Called with the epoch, counted from 1, and its records by the student's index.
OnEpoch = Callable[[int, Mapping[int, EpochRecord]], None]
# Called with epoch and step, both counted from 1.
OnBatch = Callable[[int, int], None]
# Called with the epoch, counted from 1, the quality of the best epoch so far by the student's
# index, and how many students are trained together; gives the indices of those that end.
Discard = Callable[[int, Mapping[int, float], int], Sequence[int]]
# Called with outcomes by the student's index.
OnOutcomes = Callable[[Mapping[int, TrainingOutcome]], None]


class Batches(Protocol):
    """The training pictures, epoch by epoch (`datasets.pipelines.TrainingBatches` is one).

    Attributes:
        batch_size: Rows of a batch, of all replicas together.
    """

    batch_size: int

    def epoch(self, epoch: int) -> tf.data.Dataset:
        """Returns the batches of an epoch, counted from 0.

        The dataset is of (x [B, ...], y [B, ...]), every batch of `batch_size` rows, and the same
        at every call with the same epoch.
        """
        ...


def train(
    students: Sequence[keras.Model],
    batches: Batches | TeacherTargets,
    validation: tf.data.Dataset,
    config: TrainingConfig,
    *,
    loss: DistillationLoss,
    teacher: keras.Model | None = None,
    strategy: tf.distribute.Strategy | None = None,
    task: Task | None = None,
    on_epoch: OnEpoch | None = None,
    on_batch: OnBatch | None = None,
    on_outcomes: OnOutcomes | None = None,
    should_stop: Callable[[], bool] | None = None,
    discard: Discard | None = None,
    at_once: AtOnce | None = None,
    checkpoint: Checkpoint | None = None,
    seed: int = 0,
) -> list[TrainingOutcome]:
    """Trains K students together, and leaves in each the weights of its best epoch.

    Every batch, and one forward pass of the teacher on it, serve all students. Otherwise
    they have nothing in common: each has its own optimizer, and comes out as if it had been
    trained alone. The best epoch is that of the best validation metric, of equally good
    ones the earliest. A teacher is trained as a student without a teacher, with the loss
    `cross_entropy`.

    Layers that are frozen train too, and are frozen again in the end.

    Failures stay with the student that fails; its weights are those of its best epoch, or
    as they were at first if it finished none:

    - A loss that becomes NaN or infinite ends the student's training, and so do outputs
      that are NaN or infinite for all of the validation.
    - A student that can't be traced, because of an error in one of its layers say, is left
      out.
    - If a step of several students fails, for want of memory say, all of them go back to
      their first weights and each half is trained by itself, in the end each student
      alone. Only those that fail alone have failed.

    Args:
        students: K different models, built under the strategy's scope.
        batches: The training data; as `TeacherTargets` with the teacher's scores, no teacher is
            needed.
        validation: Of (x [B, ...], y [B, ...], weight [B]), weight 0 for rows that only fill a
            batch; equal shapes in every batch.
        config: How long, and with what optimizer.
        loss: One of `esnac_tf.distillation.losses`.
        teacher: Likewise built under the scope. Needed if the loss needs it.
        strategy: The strategy of the scope; the current one by default.
        task: What the models are for, and the metric by which the best epoch is chosen;
            classifiers that give logits, judged by accuracy, by default.
        on_epoch: Called with the epoch, counted from 1, and its records by the student's
            index, after every epoch. If a step failed, epochs are seen again.
        on_batch: Called with epoch and step, both counted from 1, after every step was
            started. It may still run.
        on_outcomes: Called with the outcomes of those who are finished, by the student's
            index: once, or if a step failed, for each part that was trained by itself.
        should_stop: Asked after every step; True ends all training. The epoch then
            under way doesn't count.
        discard: Called with the epoch, counted from 1, the quality of each student's best epoch so
            far by its index, and how many students are trained together, those that failed
            included; the training of those whose indices it gives ends, as if it had had no more
            epochs. Students that are trained one part after the other are seen by parts.
        at_once: How many students are trained at once; falls where memory runs out. By default it
            is known of this call alone.
        checkpoint: Where the training is kept after epochs, and goes on from; None: nowhere. The
            file stays when the training is finished: its outcome may not be kept yet.
        seed: Seeds what is random in the students, such as Dropout.

    Returns:
        K outcomes, in the order of the students.

    Raises:
        UserError: If the loss needs a teacher and there is none, a model was built outside
            the scope, a student is given twice, the batch size doesn't divide among the
            replicas or is not that of every batch, or there are no rows to validate.

    References:
        [1] Cao, Wang, Kitani, "Learnable Embedding Space for Efficient Neural Architecture
            Compression", ICLR 2019, section 4.

    Example:
        >>> from esnac_tf.distillation import losses
        >>> x, y = np.eye(4, dtype="float32"), np.arange(4)
        >>> class AllInOneBatch:
        ...     batch_size = 4
        ...     def epoch(self, epoch):
        ...         return tf.data.Dataset.from_tensors((x, y))
        >>> student = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)])
        >>> [outcome] = train(
        ...     [student],
        ...     AllInOneBatch(),
        ...     tf.data.Dataset.from_tensors((x, y, np.ones(4))),
        ...     TrainingConfig(epochs=30, learning_rate=0.1),
        ...     loss=losses.get("cross_entropy"),
        ... )
        >>> outcome.validation_metric
        1.0
    """
    strategy = strategy or tf.distribute.get_strategy()
    models = [*students, *([teacher] if teacher is not None else [])]
    _check(students, models, batches, loss, teacher, strategy)
    replicas = strategy.num_replicas_in_sync
    if config.jit_compile and replicas > 1:
        # XLA looks for every replica's variables on the first device, and can't compile the
        # exchange of BatchNormalization's statistics (TensorFlow 2.21).
        warnings.warn(f"On {replicas} devices models are trained without XLA.", stacklevel=2)
        config = dataclasses.replace(config, jit_compile=False)
    stop = should_stop or (lambda: False)
    run = _Run(
        StepSettings(config, loss, teacher, strategy, batches.batch_size, task or Task()),
        batches,
        validation,
        on_epoch or (lambda epoch, records: None),
        on_batch or (lambda epoch, step: None),
        stop,
        discard or (lambda epoch, qualities, num_students: ()),
    )
    on_outcomes = on_outcomes or (lambda outcomes: None)
    first_weights = [student.get_weights() for student in students]
    outcomes: dict[int, TrainingOutcome] = {}
    at_once = at_once or AtOnce()
    parts = at_once.parts(range(len(students)))
    with (
        measured("training"),
        interruptible() as check_interruption,
        unfrozen(students),
        _precision(config, models),
        batch_norm_for_training(students, config.batch_norm_momentum, replicas),
    ):
        # What tracing swallows is noticed after the step, not after all epochs.
        run = dataclasses.replace(run, should_stop=lambda: check_interruption() or stop())
        while parts:
            part = parts.pop(0)
            for index in part:
                _seed_generators(students[index], seed)
            own = checkpoint and checkpoint.of(part)
            try:
                finished = run.train_part({index: students[index] for index in part}, own)
            except StepError as error:
                check_interruption()
                if replicas > 1 and replicas > len(strategy.extended.worker_devices):
                    raise UserError(
                        f"A step of several machines failed on this one: {error}.\n"
                        "Give a smaller --batch_size, or fewer students (--num_best)."
                    ) from error
                reason, is_of_memory = str(error), error.is_of_memory
            else:
                check_interruption()
                at_once.had_room(len(part))
                outcomes.update(finished)
                on_outcomes(finished)
                continue
            gc.collect()  # Free the optimizers and graphs of the failed step first.
            for index in part:
                students[index].set_weights(first_weights[index])
            if len(part) == 1:
                outcomes[part[0]] = TrainingOutcome.from_history([], failure=reason)
                on_outcomes({part[0]: outcomes[part[0]]})
            elif is_of_memory:
                at_once.memory_ran_out(len(part))
                parts = at_once.parts([*part, *itertools.chain(*parts)])
            else:
                middle = len(part) // 2
                parts[:0] = [part[:middle], part[middle:]]
    return [outcomes[index] for index in range(len(students))]


@dataclasses.dataclass(frozen=True)
class _Run:
    """What one call of `train` was given."""

    settings: StepSettings
    batches: Batches | TeacherTargets
    validation: tf.data.Dataset
    on_epoch: OnEpoch
    on_batch: OnBatch
    should_stop: Callable[[], bool]
    discard: Discard

    def train_part(
        self, students: Mapping[int, keras.Model], checkpoint: Checkpoint | None = None
    ) -> dict[int, TrainingOutcome]:
        """Trains students together and leaves in each its best weights.

        Raises:
            StepError: If a step fails and nothing tells which student's fault it was.
        """
        config, strategy = self.settings.config, self.settings.strategy
        indices, models = list(students), list(students.values())
        progress = [StudentProgress(model.get_weights()) for model in models]
        step = JointStep(models, self.settings)
        average_statistics = averaging(models, strategy)
        task = self.settings.task
        evaluation = evaluation_for(models, self.validation, strategy, task, config.jit_compile)

        first = 1 + (restore(checkpoint, progress, step) if checkpoint else 0)
        for epoch in range(first, config.epochs + 1):
            start = time.perf_counter()
            step.start_epoch(config.learning_rate_at(epoch))
            if not self._train_epoch(step, epoch):
                break
            losses = step.mean_losses()
            for position, failure in step.failures(epoch).items():
                progress[position].failure = failure
            active = [student.is_active for student in progress]
            if not any(active):
                break
            average_statistics()
            with measured("evaluation"):
                scores = evaluation(active)
            for student, score in zip(progress, scores, strict=True):
                if student.is_active and score.finite == 0:
                    student.failure = f"gives NaN or infinite outputs after epoch {epoch}"
                elif student.is_active and not math.isfinite(score.value):
                    student.failure = (
                        f"has a {task.metric.name} of {score.value} after epoch {epoch}"
                    )
            active = [student.is_active for student in progress]
            if not any(active):
                break
            secs = time.perf_counter() - start
            records, qualities = {}, {}
            for position, student in enumerate(progress):
                if active[position]:
                    value = scores[position].value
                    quality = task.metric.quality(value)
                    record = EpochRecord(epoch, losses[position], value, quality, secs)
                    student.history.append(record)
                    records[indices[position]] = record
                    outcome = student.outcome()
                    qualities[indices[position]] = outcome.quality
                    if outcome.best_epoch == epoch:
                        student.best_weights = models[position].get_weights()
            self.on_epoch(epoch, records)
            for index in self.discard(epoch, qualities, len(indices)):
                progress[indices.index(index)].is_discarded = True
            step.set_active([student.is_active for student in progress])
            if checkpoint is not None:
                keep(checkpoint, epoch, progress, step)

        for model, student in zip(models, progress, strict=True):
            model.set_weights(student.best_weights)
        return {index: student.outcome() for index, student in zip(indices, progress, strict=True)}

    def _train_epoch(self, step: JointStep, epoch: int) -> bool:
        """Returns whether the epoch was finished: False if training shall stop."""
        dataset = self.batches.epoch(epoch - 1)
        rows = keras.tree.flatten(dataset.element_spec)[0].shape[0]
        if rows != self.batches.batch_size:
            raise UserError(
                f"Every batch must have {self.batches.batch_size} rows, received {rows}.\n"
                "Drop the last rows: dataset.batch(batch_size, drop_remainder=True)."
            )
        shared = share_out(dataset, self.settings.strategy)
        for number, batch in enumerate(shared, start=1):
            if isinstance(self.batches, TeacherTargets):
                step(*self.batches.split(batch))
            else:
                step(*batch)
            self.on_batch(epoch, number)
            if self.should_stop():
                return False
        return True


def _precision(
    config: TrainingConfig, models: Sequence[keras.Model]
) -> contextlib.AbstractContextManager[None]:
    if not config.mixed_precision:
        return contextlib.nullcontext()
    if not tf.config.list_logical_devices("GPU"):
        warnings.warn("mixed_precision on CPUs is 2 to 25 times slower than float32.", stacklevel=3)
    return float16_compute(models)


def _seed_generators(model: keras.Model, seed: int) -> None:
    states = [variable for variable in model.variables if "seed_generator" in variable.path]
    for index, state in enumerate(states):
        words = np.random.SeedSequence([seed, index]).generate_state(2)
        state.assign((words & 0x7FFFFFFF).astype(state.dtype))


def _check(
    students: Sequence[keras.Model],
    models: Sequence[keras.Model],
    batches: Batches | TeacherTargets,
    loss: DistillationLoss,
    teacher: keras.Model | None,
    strategy: tf.distribute.Strategy,
) -> None:
    if loss.needs_teacher and teacher is None and not isinstance(batches, TeacherTargets):
        raise UserError(
            f"The distillation loss {type(loss).__name__} needs a teacher, received none.\n"
            "Give one, or use the loss cross_entropy."
        )
    if len({id(model) for model in models}) < len(models):
        raise UserError("A model is given twice: students and teacher must be different models.")
    check_divides(batches.batch_size, strategy)
    for model in models:
        if not model.built:
            raise UserError(f"The model {model.name!r} is not built: call it on inputs first.")
        variables: list[Any] = [variable.value for variable in model.variables]
        if not all(map(strategy.extended.variable_created_in_scope, variables)):
            raise UserError(
                f"The model {model.name!r} was built outside of the strategy's scope.\n"
                "Build, clone or load it inside `with strategy.scope():`."
            )
