"""Training of students together: against the sum of its parts, and its share of a search."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks.cifar10 import DATA_DIR, cifar10_flags
from benchmarks.timing import Finding, alternate, ratio
from esnac_tf import teachers
from esnac_tf.distillation import TrainingConfig, losses
from esnac_tf.distillation.devices import share_out
from esnac_tf.distillation.joint_step import JointStep, StepSettings
from esnac_tf.distillation.task import Task
from esnac_tf.distillation.teacher_targets import scores_of
from esnac_tf.graph.teacher import analyse
from esnac_tf.search_space.space import SearchSpace
from esnac_tf.student import StudentBuilder

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_BATCH_SIZE = 64
_NUM_BATCHES = 10


def joint_step(size: str) -> Iterator[Finding]:
    """A step of K students together / each one's bare update and one forward pass of the teacher.

    Both distil by the mean squared error of logits, with Adam and weight decay.
    """
    num_students, rounds = (8, 15) if size == "full" else (4, 7)
    config = TrainingConfig.search()
    model, together, alone = teacher_and_students(num_students, 2)
    x, y = examples(_BATCH_SIZE)
    step = new_joint_step(model, together, config, _BATCH_SIZE)

    def joint() -> None:
        step(x, y)
        step.mean_losses()

    teacher = tf.function(lambda x: model(x, training=False))
    updates = [_bare_update(student, config) for student in alone]

    def parts() -> None:
        targets = teacher(x)
        for update in updates:
            update(x, targets).numpy()

    secs = alternate({"joint": joint, "parts": parts}, rounds, warm_ups=2)
    detail = f"{num_students} students, batches of {_BATCH_SIZE} pictures"
    yield ratio(
        "a step together / the sum of its parts", secs["joint"], secs["parts"], 1.05, detail=detail
    )


def distiller(size: str) -> Iterator[Finding]:
    """Students in turn by `keras.distillation.Distiller` / the same students together.

    The same batches in the same order, the mean squared error of logits, Adam, no weight decay.
    """
    num_students, rounds = (8, 5) if size == "full" else (4, 3)
    config = TrainingConfig.search(weight_decay=0.0)
    model, together, alone = teacher_and_students(num_students, 2)
    x, y = examples(_NUM_BATCHES * _BATCH_SIZE)
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(_BATCH_SIZE).cache()
    step = new_joint_step(model, together, config, _BATCH_SIZE)
    distillers = [
        keras.distillation.Distiller(
            model,
            student,
            keras.distillation.LogitsDistillation(temperature=1.0, loss="mse"),
            student_loss_weight=0.0,
        )
        for student in alone
    ]
    for one in distillers:
        one.compile(
            keras.optimizers.Adam(config.learning_rate),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )

    def joint() -> None:
        for batch in share_out(batches, tf.distribute.get_strategy()):
            step(*batch)
        step.mean_losses()

    def in_turn() -> None:
        for one in distillers:
            one.fit(batches, epochs=1, shuffle=False, verbose=0)

    secs = alternate({"turn": in_turn, "joint": joint}, rounds)
    detail = f"{num_students} students, {_NUM_BATCHES} batches of {_BATCH_SIZE} pictures"
    yield ratio(
        "keras.distillation.Distiller in turn / together",
        secs["turn"],
        secs["joint"],
        1.3,
        at_least=True,
        detail=detail,
    )
    targets = model(x, training=False)
    losses_after = [
        [float(tf.reduce_mean((student(x, training=True) - targets) ** 2)) for student in students]
        for students in (together, alone)
    ]
    difference = np.max(np.abs(np.divide(*losses_after) - 1))
    yield Finding("largest relative difference of losses after it", float(difference), "")


def teacher_targets(size: str) -> Iterator[Finding]:
    """A step of K students with the teacher's outputs known / the same, and the teacher computes.

    The same students learn in both, by the mean squared error of logits. The outputs are in memory.
    """
    num_students, rounds = (8, 15) if size == "full" else (4, 7)
    config = TrainingConfig.search()
    model, students = teacher_and_students(num_students, 1)
    x, y = examples(_BATCH_SIZE)
    scores = scores_of(model, Task(), config.jit_compile)(x)
    step = new_joint_step(model, students, config, _BATCH_SIZE)

    def kept() -> None:
        step(x, y, teacher_scores=scores)
        step.mean_losses()

    def computed() -> None:
        step(x, y)
        step.mean_losses()

    secs = alternate({"kept": kept, "computed": computed}, rounds, warm_ups=2)
    detail = f"{num_students} students, batches of {_BATCH_SIZE} pictures"
    name = "a step with kept targets / one in which the teacher computes"
    yield ratio(name, secs["kept"], secs["computed"], detail=detail)


def tracing(size: str) -> Iterator[Finding]:
    """What the wall time of a search goes into, per cent by parts, tracing among them.

    A whole process. Small: the quickstart with one search step and two full epochs. Full: the
    laptop recipe if $ESNAC_TF_CIFAR10_DIR names the folder that holds CIFAR-10, else the whole
    quickstart. There is a bar for the laptop recipe only. All of the teacher's training is the
    teacher's part, and takes no time if the cache holds the teacher.
    """
    recipe, flags, limit, detail = "quickstart", [], None, ""
    if size == "small":
        flags = ["--num_steps=1", "--full_epochs=2"]
        detail = "one search step, two full epochs"
    elif cifar10_flags():
        recipe, flags, limit = "laptop_resnet18_cifar10", cifar10_flags(), 5.0
    else:
        detail = f"{DATA_DIR} is not set, so not the laptop recipe"
    with tempfile.TemporaryDirectory() as folder:
        run_dir = pathlib.Path(folder) / "run"
        command = [sys.executable, "-m", "esnac_tf.search", f"--flagfile=flags/{recipe}.flags"]
        command += [*flags, f"--run_dir={run_dir}"]
        code = subprocess.run(command, stdout=subprocess.DEVNULL, cwd=_ROOT).returncode
        if code:
            sys.exit(code)  # the search itself said why
        profile = json.loads((run_dir / "summary.json").read_text())["profile"]
    yield from profile_findings(recipe, profile, limit, detail)


def profile_findings(
    run: str, profile: Mapping[str, float], limit: float | None, detail: str
) -> Iterator[Finding]:
    """The parts of a run's wall time in per cent; the bar is tracing's.

    Args:
        run: Which run it was.
        profile: Seconds by part, as in a run's summary.
        limit: The most per cent that tracing may take; None without a bar.
        detail: Added to tracing's.
    """
    total = sum(profile.values())
    for part, secs in profile.items():
        bar, more = (limit, f", {detail}" * bool(detail)) if part == "tracing" else (None, "")
        told = f"{secs:.3g} s of {total:.3g} s{more}"
        yield Finding(f"{run}: {part}", 100 * secs / total, "%", limit=bar, detail=told)


def teacher_and_students(num_students: int, copies: int) -> list[Any]:
    """A ResNet-18 of width 16 for CIFAR-10, and random students of it, so many times."""
    model = teachers.build("resnet18(width=16)", (32, 32, 3), 10)
    graph = analyse(model)
    space, builder = SearchSpace(graph), StudentBuilder(model, graph)
    actions = space.to_actions(space.sample(num_students, np.random.default_rng(0)))
    return [model, *([builder.build(action) for action in actions] for _ in range(copies))]


def examples(number: int) -> tuple[tf.Tensor, tf.Tensor]:
    """So many pictures of CIFAR-10's shape, of random numbers, and random classes of 10."""
    generator = np.random.default_rng(1)
    x = tf.constant(generator.uniform(0, 255, (number, 32, 32, 3)), tf.float32)
    return x, tf.constant(generator.integers(10, size=number), tf.int32)


def new_joint_step(
    model: keras.Model, students: list[keras.Model], config: TrainingConfig, batch_size: int
) -> JointStep:
    """A step of students together, by the mean squared error of logits, at an epoch's start."""
    strategy, loss = tf.distribute.get_strategy(), losses.get("logit_mse")
    step = JointStep(students, StepSettings(config, loss, model, strategy, batch_size, Task()))
    step.start_epoch(config.learning_rate)
    return step


def _bare_update(student: keras.Model, config: TrainingConfig) -> Any:
    """Forward pass, backward pass and Adam of one student, and nothing else."""
    optimizer = keras.optimizers.Adam(config.learning_rate)
    optimizer.build(student.trainable_variables)
    variables = [variable.value for variable in student.trainable_variables]

    @tf.function
    def update(x: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((student(x, training=True) - targets) ** 2)
        gradients = [
            gradient + config.weight_decay * variable
            for gradient, variable in zip(tape.gradient(loss, variables), variables, strict=True)
        ]
        optimizer.apply(gradients, student.trainable_variables)
        return loss

    return update
