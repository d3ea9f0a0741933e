"""What it costs to train students in other processes."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pickle
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.timing import Finding
from esnac_tf import datasets, executors, objectives, teachers
from esnac_tf.architecture import ActionSet
from esnac_tf.datasets.pipelines import TrainingBatches, evaluation_batches
from esnac_tf.distillation import TrainingConfig, get_strategy, losses
from esnac_tf.distillation.student_groups import StudentGroup
from esnac_tf.evaluation import Evaluated, Evaluator
from esnac_tf.executors import ExecutorContext, Placement
from esnac_tf.executors.parcel import pack
from esnac_tf.graph.cost import count_flops, count_params
from esnac_tf.graph.teacher import analyse
from esnac_tf.objectives import Measurement
from esnac_tf.search_space.space import SearchSpace
from esnac_tf.student import StudentBuilder

_NUM_STUDENTS = 4
_NUM_CLASSES = 10
# Seconds of a candidate, once workers are warm.
_LIMIT_SECS = 2.0


def overhead(size: str) -> Iterator[Finding]:
    """Steps of students by the executor "local" and by "ray", with one worker and with two.

    A slim ResNet-18 on the digits, four students a step, all steps with other students. A step's
    overhead is the time from its submission to its last result less the time that the slowest
    worker spent on its students: what goes into sending, waiting and handing over. The first step
    of all includes the start. All have the same cores: two workers have half of them each.
    """
    num_steps, num_epochs = (4, 5) if size == "full" else (3, 1)
    evaluator, students = _work(num_steps, num_epochs)
    yield _bytes("teacher and data, sent to each worker's machine once", pack(evaluator))
    names = [("local", None)]
    if importlib.util.find_spec("ray"):
        num_cpus = len(os.sched_getaffinity(0))
        names += [("ray, 1 worker", num_cpus), ("ray, 2 workers", max(1, num_cpus // 2))]
    else:
        print("Ray is not installed: only the executor local is measured.")
    walls = {}
    for name, cpus in names:
        finished: list[Evaluated] = []
        context = _context(evaluator, cpus, finished)
        with executors.opened(name.split(",")[0], context) as executor:
            steps = [
                _step(executor, proposals, step, finished)
                for step, proposals in enumerate(students)
            ]
        yield Finding(f"{name}: the first step, start included", steps[0][0], "s")
        walls[name] = statistics.median(wall for wall, _ in steps[1:])
        yield Finding(f"{name}: a later step", walls[name], "s")
        each = [over / _NUM_STUDENTS for _, over in steps[1:]]
        low, high = np.percentile(each, [25, 75])
        yield Finding(
            f"{name}: overhead of a candidate in a later step",
            statistics.median(each),
            "s",
            float(low),
            float(high),
            None if name == "local" else _LIMIT_SECS,
        )
    for name in list(walls)[1:]:
        yield Finding(f"a later step by {name} / by local", walls[name] / walls["local"])
    [actions] = list(students[0].values())[:1]
    yield _bytes("a student on its way to a worker", actions)
    yield _bytes("its weights on their way back", evaluator.builder.build(actions).get_weights())


def _context(evaluator: Evaluator, cpus: int | None, finished: list[Evaluated]) -> ExecutorContext:
    @contextlib.contextmanager
    def progress(title: str, num_epochs: int) -> Iterator[Any]:
        yield (lambda *_: None), (lambda *_: None)

    def on_finished(evaluated: Sequence[Evaluated]) -> None:
        for item in evaluated:  # as a search does with the best
            if item.student is not None:
                item.student()
        finished.extend(evaluated)

    placement = Placement(_NUM_STUDENTS, cpus_per_candidate=cpus)
    return ExecutorContext(evaluator, on_finished, progress, print, placement)


def _step(
    executor: Any, proposals: Mapping[int, ActionSet], step: int, finished: list[Evaluated]
) -> tuple[float, float]:
    """Seconds of a step, and of them those in which the slowest worker did not work on it."""
    finished.clear()
    start = time.perf_counter()
    executor.submit(proposals, step)
    while len(finished) < len(proposals):
        executor.wait()
    wall = time.perf_counter() - start
    return wall, wall - max(item.trial.duration_secs for item in finished)


def _work(num_steps: int, num_epochs: int) -> tuple[Evaluator, list[dict[int, ActionSet]]]:
    """An evaluator, and the students of each step."""
    splits = datasets.load("digits")
    shape = splits.x_train.shape[1:]
    model = teachers.build("resnet18(width=16)", shape, _NUM_CLASSES, splits.normalization)
    graph = analyse(model)
    space, builder = SearchSpace(graph), StudentBuilder(model, graph)
    drawn = space.to_actions(space.sample(num_steps * _NUM_STUDENTS, np.random.default_rng(0)))
    numbered = list(enumerate(drawn))
    steps = [
        dict(numbered[first : first + _NUM_STUDENTS])
        for first in range(0, len(numbered), _NUM_STUDENTS)
    ]
    evaluator = Evaluator(
        builder=builder,
        groups=[StudentGroup(get_strategy("none"), builder.teacher())],
        teacher_measurement=Measurement(count_params(model), count_flops(model), 1.0),
        objective=objectives.get("params"),
        batches=TrainingBatches(splits.x_train, splits.y_train, 64),
        validation=evaluation_batches(splits.x_validation, splits.y_validation, 64),
        config=TrainingConfig.search(epochs=num_epochs),
        loss=losses.get("logit_mse"),
    )
    return evaluator, steps


def _bytes(name: str, value: Any) -> Finding:
    return Finding(name, len(pickle.dumps(value, protocol=5)) / 2**20, "MiB")
