"""How students are trained fastest here: measured before a long search, kept in the run folder."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from esnac_tf.config import SearchConfig
from esnac_tf.display import Display
from esnac_tf.distillation.devices import num_gpus
from esnac_tf.distillation.student_groups import StudentGroup, group_of, train_in_groups
from esnac_tf.distillation.successive_halving import student_epochs
from esnac_tf.distillation.task import Task
from esnac_tf.distillation.training import Batches
from esnac_tf.errors import InfeasibleStudentError
from esnac_tf.evaluation import BUILD_ERRORS
from esnac_tf.quantities import duration
from esnac_tf.record import RunFolder
from esnac_tf.run_files import plain
from esnac_tf.search_space.space import SearchSpace
from esnac_tf.student import StudentBuilder

# From so many steps of single students on, measuring costs little beside the search.
LONG_SEARCH_STEPS = 20_000
# What is timed: epochs of so many batches, the first of which traces and compiles.
_NUM_BATCHES, _NUM_EPOCHS = 6, 3
# So many students are drawn, in search of some that can be built.
_MAX_DRAWN = 100


@dataclasses.dataclass(frozen=True)
class Way:
    """A way to train students.

    Attributes:
        jit_compile: Whether with XLA.
        mixed_precision: Whether in float16.
        grouped: On several GPUs, whether each student is trained on one of them; else each batch
            is divided among all.
    """

    jit_compile: bool = False
    mixed_precision: bool = False
    grouped: bool = False

    def __str__(self) -> str:
        precision = "float16" if self.mixed_precision else "float32"
        compiler = "with XLA" if self.jit_compile else "without XLA"
        return f"{precision} {compiler}" + (", a student a device" if self.grouped else "")


@dataclasses.dataclass(frozen=True)
class Timing:
    """What training in one way takes.

    Attributes:
        way: The way.
        start_secs: Of one student, what its first epoch takes more than the next.
        step_secs: Of one student and one batch.
    """

    way: Way
    start_secs: float
    step_secs: float


def choose_way(
    config: SearchConfig,
    run: RunFolder,
    display: Display,
    num_batches: int | None,
    measure: Callable[[Way], Timing | None],
) -> Way:
    """The fastest way to train among those that the settings leave open.

    Formula:
        cost = number of students * start_secs + number of student steps * step_secs

    What is set (`jit_compile`, `mixed_precision`, `distribute`) stays. The rest is measured where
    the search is long, `LONG_SEARCH_STEPS` steps of single students or more, and kept in
    calibration.json for processes that resume it; in a short one, or in one that has trials and no
    calibration, it is float32 without XLA, each batch divided among all devices. On several GPUs
    the steps of the full training don't count: it is always divided among them, without XLA.

    Args:
        config: The settings.
        run: The run folder.
        display: Where it is told.
        num_batches: Batches in an epoch; None if that is not known, which counts as a short search.
        measure: Times a way; None where students can't be trained so.

    Raises:
        UserError: The run folder can't be written.

    Example:
        >>> import tempfile
        >>> timings = {False: Timing(Way(), 1.0, 0.02), True: Timing(Way(True), 5.0, 0.01)}
        >>> config = SearchConfig(mixed_precision=False)
        >>> with RunFolder(tempfile.mkdtemp()) as run:
        ...     choose_way(config, run, Display(quiet=True), 350, lambda w: timings[w.jit_compile])
        Way(jit_compile=True, mixed_precision=False, grouped=False)
    """
    fixed = Way(
        bool(config.jit_compile), bool(config.mixed_precision), config.distribute == "grouped"
    )
    key = {**config.fixed(), "distribute": config.distribute, "num_gpus": num_gpus()}
    recorded, has_trials = run.calibration(), bool(run.trials())
    if recorded is not None and (has_trials or recorded["settings"] == plain(key)):
        return _as_set(Way(**recorded["chosen"]), config, fixed)
    open_ways = list(_open_ways(config, fixed))
    starts, steps = _work(config, num_batches)
    if has_trials or len(open_ways) == 1 or steps < LONG_SEARCH_STEPS:
        return fixed
    display.message("Measuring how students are trained fastest here.")
    timings = [timing for timing in map(measure, open_ways) if timing is not None]
    if not timings:
        return fixed
    costs = {t.way: starts * t.start_secs + steps * t.step_secs for t in timings}
    chosen = min(costs, key=lambda way: costs[way])
    for timing in timings:
        display.message(
            f"Students in {timing.way}: {1000 * timing.step_secs:.1f} ms a batch after "
            f"{duration(timing.start_secs)}, {duration(costs[timing.way])} in all"
            f"{' (chosen)' if timing.way == chosen else ''}."
        )
    run.write_calibration(
        {
            "settings": key,
            "chosen": dataclasses.asdict(chosen),
            "measured": [dataclasses.asdict(timing) for timing in timings],
        }
    )
    return chosen


def measure_way(
    way: Way,
    config: SearchConfig,
    groups: list[StudentGroup],
    builder: StudentBuilder,
    space: SearchSpace,
    batches: Batches,
    validation: tf.data.Dataset,
    loss: Any,
    task: Task,
) -> Timing | None:
    """Times a way to train on a few batches, by random students, one for each device.

    Args:
        way: The way.
        config: The settings.
        groups: Where students are trained in this way.
        builder: Builds students.
        space: Where they are drawn from.
        batches: Training data.
        validation: Held-out data.
        loss: The distillation loss.
        task: What the students are for.

    Returns:
        The time of one student; None if it can't be trained so.
    """
    num_students = max(1, num_gpus())
    students = _random_students(num_students, config.seed, groups, builder, space)
    if len(students) < num_students:
        return None
    training = dataclasses.replace(
        config.search_training(),
        epochs=_NUM_EPOCHS,
        jit_compile=way.jit_compile,
        mixed_precision=way.mixed_precision,
    )
    few = _FewBatches(batches)
    outcomes = train_in_groups(
        groups,
        students,
        few,
        validation.take(1),
        training,
        loss=loss,
        task=task,
        seed=config.seed,
    )
    if any(outcome.failure is not None for outcome in outcomes):
        return None
    secs = [[record.secs for record in outcome.history] for outcome in outcomes]
    first, *others = np.max(secs, axis=0)  # they train side by side
    epoch_secs = float(min(others))
    return Timing(
        way,
        start_secs=max(0.0, float(first) - epoch_secs) / num_students,
        step_secs=epoch_secs / (_NUM_BATCHES * num_students),
    )


class _FewBatches:
    """The first batches of each epoch."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches
        self.batch_size = batches.batch_size

    def epoch(self, epoch: int) -> tf.data.Dataset:
        """Of an epoch, counted from 0, always as many, from the beginning again if need be."""
        return self._batches.epoch(epoch).repeat().take(_NUM_BATCHES)


def _random_students(
    number: int,
    seed: int,
    groups: list[StudentGroup],
    builder: StudentBuilder,
    space: SearchSpace,
) -> list[keras.Model]:
    """So many students that can be built, or as many as are among a hundred."""
    students: list[keras.Model] = []
    for actions in space.to_actions(space.sample(_MAX_DRAWN, np.random.default_rng(seed))):
        if len(students) == number:
            break
        scope = group_of(len(students), groups).strategy.scope()
        with contextlib.suppress(InfeasibleStudentError, *BUILD_ERRORS), scope:
            students.append(builder.build(actions))
    return students


def _as_set(way: Way, config: SearchConfig, fixed: Way) -> Way:
    """A way that was chosen before, perhaps on other devices, but for what is set."""
    return Way(
        way.jit_compile if config.jit_compile is None else fixed.jit_compile,
        way.mixed_precision if config.mixed_precision is None else fixed.mixed_precision,
        way.grouped if _may_group(config) else fixed.grouped,
    )


def _may_group(config: SearchConfig) -> bool:
    """Whether the settings and the devices leave open if students are shared out among devices."""
    # Successive halving compares the students that are trained on one device.
    return config.distribute == "auto" and num_gpus() > 1 and config.halving_factor == 1


def _open_ways(config: SearchConfig, fixed: Way) -> Iterator[Way]:
    """The ways that the settings leave open; the one without anything special is the first."""
    gpus = num_gpus()
    compiled = (False, True) if config.jit_compile is None else (fixed.jit_compile,)
    # On CPUs float16 is several times slower without XLA, and no faster with it.
    halves = (False, True) if config.mixed_precision is None and gpus else (fixed.mixed_precision,)
    grouped = (False, True) if _may_group(config) else (fixed.grouped,)
    for group, half, jit in itertools.product(grouped, halves, compiled):
        if not (jit and gpus > 1 and not group):  # which TensorFlow can't do
            yield Way(jit, half, group)


def _work(config: SearchConfig, num_batches: int | None) -> tuple[int, int]:
    """How many students are trained, and in how many steps of single students, all together."""
    epochs = student_epochs(config.num_kernels, config.search_epochs, config.halving_factor)
    starts, epochs = config.num_steps * config.num_kernels, config.num_steps * epochs
    if num_gpus() < 2:
        starts, epochs = starts + config.num_best, epochs + config.num_best * config.full_epochs
    return starts, epochs * (num_batches or 0)
