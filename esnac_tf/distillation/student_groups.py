"""Students shared out among devices: each group trains on one of them, beside the others."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from esnac_tf.distillation.checkpoint import Checkpoint
from esnac_tf.distillation.freed_graphs import graphs_freed
from esnac_tf.distillation.teacher_targets import TeacherTargets
from esnac_tf.distillation.training import (
    Batches,
    Discard,
    OnBatch,
    OnEpoch,
    OnOutcomes,
    train,
)
from esnac_tf.distillation.training_config import TrainingConfig
from esnac_tf.distillation.training_outcome import EpochRecord, TrainingOutcome
from esnac_tf.profiling import measured


class _Aborted(Exception):
    """Another group failed, or the user interrupted."""


@dataclasses.dataclass(frozen=True)
class StudentGroup:
    """Where some of the students are trained.

    Attributes:
        strategy: The strategy under whose scope these students are built.
        teacher: A teacher built under it; None if none is needed.
    """

    strategy: tf.distribute.Strategy
    teacher: keras.Model | None = None


def group_of(index: int, groups: Sequence[StudentGroup]) -> StudentGroup:
    """The group of a student, by the student's index: students go to groups in turn."""
    return groups[index % len(groups)]


@graphs_freed()
def train_in_groups(
    groups: Sequence[StudentGroup],
    students: Sequence[keras.Model],
    batches: Batches | TeacherTargets,
    validation: tf.data.Dataset,
    config: TrainingConfig,
    *,
    on_epoch: OnEpoch | None = None,
    on_batch: OnBatch | None = None,
    on_outcomes: OnOutcomes | None = None,
    should_stop: Callable[[], bool] | None = None,
    discard: Discard | None = None,
    checkpoint: Checkpoint | None = None,
    **arguments: Any,
) -> list[TrainingOutcome]:
    """Trains students as `train` does, each group in a thread of its own.

    A student comes out as if all were trained together. What is called back is called by one
    thread at a time, with the students of one group. The memory of its graphs is given back at the
    end (see `freed_graphs`).

    Args:
        groups: One or more.
        students: Each built under the scope of its `group_of`.
        batches: As for `train`.
        validation: Likewise.
        config: Likewise.
        on_epoch: Likewise.
        on_batch: Likewise, for the batches of the first group.
        on_outcomes: Likewise.
        should_stop: Likewise.
        discard: Likewise; it sees each group by itself.
        checkpoint: Likewise; each group has a file of its own.
        **arguments: As of `train`, but for teacher and strategy.

    Returns:
        Outcomes in the order of the students.

    Raises:
        UserError: As `train`.

    Example:
        >>> from esnac_tf.distillation import losses
        >>> class OneBatch:
        ...     batch_size = 2
        ...     def epoch(self, epoch):
        ...         return tf.data.Dataset.from_tensors((tf.eye(2), tf.range(2)))
        >>> devices = [StudentGroup(tf.distribute.OneDeviceStrategy("CPU:0")) for _ in range(2)]
        >>> students = []
        >>> for index in range(2):
        ...     with group_of(index, devices).strategy.scope():
        ...         students.append(keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)]))
        >>> rows = tf.data.Dataset.from_tensors((tf.eye(2), tf.range(2)))
        >>> outcomes = train_in_groups(
        ...     devices, students, OneBatch(), rows, TrainingConfig(epochs=1),
        ...     loss=losses.get("cross_entropy"),
        ... )
        >>> [len(outcome.history) for outcome in outcomes]
        [1, 1]
    """
    lock = threading.RLock()
    aborted = threading.Event()

    def train_group(number: int) -> list[TrainingOutcome]:
        indices = range(number, len(students), len(groups))

        def stops() -> bool:
            if aborted.is_set():  # which is no end: nothing of this group is finished
                raise _Aborted
            return bool(should_stop and should_stop())

        def of_all(values: Mapping[int, Any]) -> dict[int, Any]:
            return {indices[position]: value for position, value in values.items()}

        def group_on_epoch(epoch: int, records: Mapping[int, EpochRecord]) -> None:
            with lock:
                if on_epoch is not None:
                    on_epoch(epoch, of_all(records))

        def group_on_batch(epoch: int, step: int) -> None:
            with lock:
                if on_batch is not None and number == 0:
                    on_batch(epoch, step)

        def group_on_outcomes(outcomes: Mapping[int, TrainingOutcome]) -> None:
            with lock:
                if on_outcomes is not None:
                    on_outcomes(of_all(outcomes))

        def group_discard(
            epoch: int, qualities: Mapping[int, float], num_students: int
        ) -> list[int]:
            if discard is None:
                return []
            with lock:
                ended = discard(epoch, of_all(qualities), num_students)
                return [indices.index(index) for index in ended]

        return train(
            [students[index] for index in indices],
            batches,
            validation,
            config,
            teacher=groups[number].teacher,
            strategy=groups[number].strategy,
            on_epoch=group_on_epoch,
            on_batch=group_on_batch,
            on_outcomes=group_on_outcomes,
            should_stop=stops,
            discard=group_discard,
            checkpoint=checkpoint and checkpoint.of(indices, f"_{number}"),
            **arguments,
        )

    if len(groups) == 1:
        return train_group(0)
    numbers = range(min(len(groups), len(students)))
    with measured("training"), concurrent.futures.ThreadPoolExecutor(len(groups)) as pool:
        futures = [pool.submit(train_group, number) for number in numbers]
        try:
            concurrent.futures.wait(futures, return_when=concurrent.futures.FIRST_EXCEPTION)
            ended = [future.exception() for future in futures if future.done()]
            # For an interruption each group stops by itself, when it has kept its epoch.
            if any(error and not isinstance(error, KeyboardInterrupt) for error in ended):
                aborted.set()
            concurrent.futures.wait(futures)
        except BaseException:
            aborted.set()  # every group ends after its step
            raise
    errors = [error for error in (future.exception() for future in futures) if error is not None]
    for error in errors:
        if not isinstance(error, _Aborted):
            raise error
    results = [future.result() for future in futures]
    by_index = {
        index: outcome
        for number, outcomes in enumerate(results)
        for index, outcome in zip(range(number, len(students), len(groups)), outcomes, strict=True)
    }
    return [by_index[index] for index in range(len(students))]
