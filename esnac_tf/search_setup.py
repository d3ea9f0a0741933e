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
from esnac_tf.datasets.given import given_evaluation_batches, given_training_batches
from esnac_tf.display import Display
from esnac_tf.distillation import get_strategy, losses
from esnac_tf.distillation.at_once import AtOnce
from esnac_tf.distillation.devices import check_divides, one_device_strategies
from esnac_tf.distillation.student_groups import StudentGroup
from esnac_tf.distillation.teacher_targets import TeacherTargets
from esnac_tf.distillation.training import Batches
from esnac_tf.errors import UserError
from esnac_tf.graph.checks import check_examples, check_searchable
from esnac_tf.graph.teacher import TeacherGraph, analyse
from esnac_tf.graph.widths import ParameterTable
from esnac_tf.objectives import Measurement, Objective
from esnac_tf.profiling import measured
from esnac_tf.purpose import Purpose, check_labels, with_outputs
from esnac_tf.record import RunFolder
from esnac_tf.search_space.budget import ParameterBudget
from esnac_tf.search_space.space import SearchSpace
from esnac_tf.student import StudentBuilder
from esnac_tf.teacher_measurement import measure_teacher
from esnac_tf.training_progress import training_progress

# So much of the teacher's outputs is kept where nothing else is asked for.
_MAX_TARGET_BYTES = 2**30


@dataclasses.dataclass(frozen=True, eq=False)
class SearchSetup:
    """What a search works with.

    Attributes:
        config: All settings.
        purpose: What the teacher is for.
        run: The run folder.
        display: Where progress is shown.
        model: The teacher as it was given.
        teacher: The same, built under the strategy's scope.
        groups: Where the students of the search are trained.
        graph: What was read of it.
        measured: What it is worth.
        space: Its students.
        builder: Builds them.
        objective: What the search maximises.
        distribution: The `tf.distribute` strategy that trains.
        batches: Training data.
        search_batches: The same for the search, with the teacher's scores where they are kept.
        validation: Held-out data.
        test: Data for the very end; None without.
        at_once: How many students are trained at once.
        start_secs: When the work began, on `time.perf_counter`'s clock.
    """

    config: SearchConfig
    purpose: Purpose
    run: RunFolder
    display: Display
    model: keras.Model
    teacher: keras.Model
    groups: Sequence[StudentGroup]
    graph: TeacherGraph
    measured: Measurement
    space: SearchSpace
    builder: StudentBuilder
    objective: Objective
    distribution: tf.distribute.Strategy
    batches: Batches
    search_batches: Batches | TeacherTargets
    validation: tf.data.Dataset
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
    graph = analyse(model, config.channel_groups, config.protect)
    check_searchable(graph)
    space = search_space(graph, model, config)
    size, labels = config.batch_size, (purpose.num_classes, purpose.task.is_classifier)
    batches = given_training_batches(train, size, config.seed, *labels)
    held_out = given_evaluation_batches(validation, size, *labels)
    tested = None if test is None else given_evaluation_batches(test, size, *labels, part="test")
    first_epoch = batches.epoch(0)
    check_examples(model, first_epoch, "training")
    check_examples(model, held_out, "validation")
    if tested is not None:
        check_examples(model, tested, "test")
    distribution = get_strategy(config.distribute)
    check_divides(batches.batch_size, distribution)
    if config.distribute in ("mirrored", "grouped") and distribution.num_replicas_in_sync == 1:
        display.message(f"There is one device here: distribute={config.distribute} does nothing.")
    builder = StudentBuilder(model, graph, config.channel_importance)
    with distribution.scope():
        teacher = builder.teacher()
    x, y, *_ = next(iter(first_epoch))
    outputs = model(x, training=False)
    purpose = with_outputs(purpose, outputs)
    check_labels(purpose, outputs, y)
    search_batches: Batches | TeacherTargets = batches
    if keeps_targets(config, purpose, batches, outputs):
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
        config=config,
        purpose=purpose,
        run=run,
        display=display,
        model=model,
        teacher=teacher,
        groups=groups,
        graph=graph,
        measured=measurement,
        space=space,
        builder=builder,
        objective=objectives.get(config.objective),
        distribution=distribution,
        batches=batches,
        search_batches=search_batches,
        validation=held_out,
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
