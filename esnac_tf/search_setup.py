"""What a search works with, made ready and checked before the first student is proposed."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from esnac_tf import objectives
from esnac_tf.calibration import Timing, Way, choose_way, measure_way
from esnac_tf.config import SearchConfig
from esnac_tf.datasets.given import given_evaluation_batches
from esnac_tf.display import Display
from esnac_tf.distillation import get_strategy, losses
from esnac_tf.distillation.at_once import AtOnce
from esnac_tf.distillation.devices import check_divides, one_device_strategies
from esnac_tf.distillation.student_groups import StudentGroup
from esnac_tf.distillation.teacher_targets import TeacherTargets
from esnac_tf.distillation.training import Batches
from esnac_tf.errors import UserError
from esnac_tf.graph.checks import check_examples
from esnac_tf.graph.teacher import TeacherGraph
from esnac_tf.graph.widths import ParameterTable
from esnac_tf.objectives import Measurement, Objective
from esnac_tf.profiling import measured
from esnac_tf.purpose import Purpose
from esnac_tf.record import RunFolder
from esnac_tf.search_space.budget import ParameterBudget
from esnac_tf.search_space.space import SearchSpace
from esnac_tf.teacher_measurement import measure_teacher
from esnac_tf.training_progress import training_progress
from esnac_tf.training_setup import TrainingSetup, prepare_training

# So much of the teacher's outputs is kept where nothing else is asked for.
_MAX_TARGET_BYTES = 2**30


@dataclasses.dataclass(frozen=True, eq=False)
class SearchSetup(TrainingSetup):
    """What a search works with.

    Attributes:
        config: All settings.
        run: The run folder.
        display: Where progress is shown.
        model: The teacher as it was given.
        teacher: The same, built under the strategy's scope.
        groups: Where the students of the search are trained.
        measured: What it is worth.
        space: Its students.
        objective: What the search maximises.
        distribution: The `tf.distribute` strategy that trains.
        search_batches: The training data, with the teacher's scores where they are kept.
        test: Data for the very end; None without.
        at_once: How many students are trained at once.
        start_secs: When the work began, on `time.perf_counter`'s clock.
    """

    config: SearchConfig
    run: RunFolder
    display: Display
    model: keras.Model
    teacher: keras.Model
    groups: Sequence[StudentGroup]
    measured: Measurement
    space: SearchSpace
    objective: Objective
    distribution: tf.distribute.Strategy
    search_batches: Batches | TeacherTargets
    test: tf.data.Dataset | None
    at_once: AtOnce
    start_secs: float

    def progress(self, title: str, num_epochs: int) -> Any:
        """A phase of the display that follows a training."""
        metric = self.purpose.task.metric.name
        return training_progress(self.display, title, num_epochs, self.batches, metric)


def prepare(
    model: keras.Model,
    train: Any,
    validation: Any,
    test: Any,
    config: SearchConfig,
    purpose: Purpose,
    run: RunFolder,
    display: Display,
) -> SearchSetup:
    """Reads the teacher, holds the data against it, and measures it.

    Args:
        model: As for `esnac_tf.search_students`.
        train: Likewise.
        validation: Likewise.
        test: Likewise.
        config: Likewise.
        purpose: What the teacher is for.
        run: The run folder.
        display: Where progress is shown.

    Raises:
        UserError: The model or the data can't be used, or the run folder holds a search with
            others.
    """
    start_secs = time.perf_counter()
    training = prepare_training(model, train, validation, config, purpose)
    purpose, builder = training.purpose, training.builder
    batches, held_out = training.batches, training.validation
    space = search_space(training.graph, model, config)
    tested = None
    if test is not None:
        labels = purpose.num_classes, purpose.task.is_classifier
        tested = given_evaluation_batches(test, config.batch_size, *labels, part="test")
        check_examples(model, tested, "test")
    distribution = get_strategy(config.distribute)
    check_divides(batches.batch_size, distribution)
    if config.distribute in ("mirrored", "grouped") and distribution.num_replicas_in_sync == 1:
        display.message(f"There is one device here: distribute={config.distribute} does nothing.")
    with distribution.scope():
        teacher = builder.teacher()
    search_batches: Batches | TeacherTargets = batches
    if keeps_targets(config, purpose, batches, training.outputs):
        search_batches = TeacherTargets(
            batches,
            teacher,
            purpose.task,
            distribution,
            targets_folder(run),
            bool(config.jit_compile),
            None if config.teacher_targets == "kept" else display.message,
        )
    measurement = measure_teacher(teacher, purpose, batches, held_out, distribution, run, display)

    # Where the teacher's outputs are kept, students train without it.
    is_needed = purpose.search_loss.needs_teacher and search_batches is batches

    def groups_of(way: Way) -> list[StudentGroup]:
        if not way.grouped:
            return [StudentGroup(distribution, teacher if is_needed else None)]
        groups = []
        for strategy in one_device_strategies():
            with strategy.scope():
                groups.append(StudentGroup(strategy, builder.teacher() if is_needed else None))
        return groups

    def timing(way: Way) -> Timing | None:
        loss = purpose.search_loss
        if search_batches is not batches:  # as fast as with kept outputs
            is_classifier = purpose.task.is_classifier
            loss = losses.get("cross_entropy") if is_classifier else purpose.full_loss
        given = batches, held_out, loss, purpose.task
        return measure_way(way, config, groups_of(way), builder, space, *given)

    with measured("calibration", whole=True):
        way = choose_way(config, run, display, getattr(batches, "num_batches", None), timing)
    config = dataclasses.replace(
        config, jit_compile=way.jit_compile, mixed_precision=way.mixed_precision
    )
    groups = groups_of(way)
    return SearchSetup(
        **vars(training),
        config=config,
        run=run,
        display=display,
        model=model,
        teacher=teacher,
        groups=groups,
        measured=measurement,
        space=space,
        objective=objectives.get(config.objective),
        distribution=distribution,
        search_batches=search_batches,
        test=tested,
        at_once=AtOnce(display.message),
        start_secs=start_secs,
    )


def targets_folder(run: RunFolder) -> pathlib.Path:
    """Where the teacher's outputs are kept while a search goes on."""
    return run.path / "checkpoints" / "teacher_targets"


def keeps_targets(config: SearchConfig, purpose: Purpose, batches: Batches, outputs: Any) -> bool:
    """Whether the teacher's outputs are kept from one search step to the next.

    Args:
        config: The settings.
        purpose: What the teacher is for.
        batches: The training data.
        outputs: The teacher's for one batch.

    Raises:
        UserError: They are to be, and the data may come in another order each time.
    """
    if config.teacher_targets == "computed" or not purpose.search_loss.needs_teacher:
        return False
    is_repeatable = getattr(batches, "is_repeatable", False)
    if config.teacher_targets == "kept":
        if not is_repeatable:
            raise UserError(
                "teacher_targets='kept' needs data that is the same in every search step, received "
                "a dataset of its own order.\nGive arrays, or teacher_targets='computed'."
            )
        return True
    num_bytes = sum(4 * math.prod(output.shape) for output in keras.tree.flatten(outputs))
    num_batches = getattr(batches, "num_batches", None) or math.inf
    fits = config.search_epochs * num_batches * num_bytes <= _MAX_TARGET_BYTES
    return is_repeatable and config.num_steps > 1 and fits


def search_space(graph: TeacherGraph, model: keras.Model, config: SearchConfig) -> SearchSpace:
    """The space of a teacher's students that some settings ask for.

    Raises:
        UserError: No student is within the budget.
    """
    budget = None
    if config.max_params is not None:
        budget = ParameterBudget(ParameterTable(graph, model), config.max_params)
    return SearchSpace(
        graph,
        config.max_shrinkage,
        config.round_channels_to,
        config.removal_probabilities,
        budget,
    )
