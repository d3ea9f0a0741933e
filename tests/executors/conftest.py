"""What executors are tested with: a small evaluator, and one Ray for all tests of a process."""

from __future__ import annotations

import contextlib
import types

import numpy as np
import pytest
import toy

from esnac_tf import datasets, objectives
from esnac_tf.datasets.given import given_evaluation_batches, given_training_batches
from esnac_tf.datasets.stored import training_batches
from esnac_tf.distillation import TrainingConfig, get_strategy, losses
from esnac_tf.distillation.student_groups import StudentGroup
from esnac_tf.evaluation import Evaluator
from esnac_tf.executors import ExecutorContext, Placement
from esnac_tf.graph.cost import count_flops, count_params
from esnac_tf.graph.teacher import analyse
from esnac_tf.objectives import Measurement
from esnac_tf.student import StudentBuilder


@pytest.fixture(scope="package")
def ray():
    """Ray on this machine, with two CPUs."""
    module = pytest.importorskip("ray", reason="Ray is not installed (the extra ray).")
    module.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
    )
    yield module
    module.shutdown()


@pytest.fixture
def npz_file(tmp_path):
    """The toy's examples in a file."""
    path = tmp_path / "toy.npz"
    names = ("x_train", "y_train", "x_test", "y_test")
    np.savez(path, **dict(zip(names, (*toy.examples(106), *toy.TEST), strict=True)))
    return path


@pytest.fixture
def npz_batches(npz_file):
    """Its training data."""
    return training_batches(datasets.load(npz_file), 16)


def make_evaluator(**changes):
    teacher = toy.teacher()
    given = {
        "builder": StudentBuilder(teacher, analyse(teacher)),
        "groups": [StudentGroup(get_strategy("none"), teacher)],
        "teacher_measurement": Measurement(
            count_params(teacher), count_flops(teacher), toy.accuracy(teacher, toy.VALIDATION)
        ),
        "objective": objectives.get("params"),
        "batches": given_training_batches(toy.TRAIN, 16),
        "validation": given_evaluation_batches(toy.VALIDATION, 16),
        "config": TrainingConfig.search(epochs=2),
        "loss": losses.get("logit_mse"),
    }
    return Evaluator(**{**given, **changes})


def make_context(evaluator, step_size=4, **settings):
    """A context, `given`, and what it is told: `finished`, `phases`, `epochs`, `lines`."""
    finished, phases, epochs = [], [], []

    def on_epoch(epoch, records):
        epochs.append((epoch, sorted(records)))

    @contextlib.contextmanager
    def progress(title, num_epochs):
        phases.append((title, num_epochs))
        yield on_epoch, lambda epoch, step: None

    lines = []
    placement = Placement(step_size, **settings)
    given = ExecutorContext(evaluator, finished.extend, progress, lines.append, placement)
    return types.SimpleNamespace(
        given=given, finished=finished, phases=phases, epochs=epochs, lines=lines
    )
