"""Executors: what every one of them does with what is submitted."""

import contextlib
import types

import pytest

from esnac_tf import executors
from esnac_tf.architecture import ActionSet
from esnac_tf.errors import UnknownNameError
from esnac_tf.evaluation import Evaluated
from esnac_tf.executors import ExecutorContext
from esnac_tf.trial import Trial


class Evaluator:
    """Makes a trial of each student, and remembers what it was given."""

    config = types.SimpleNamespace(epochs=3)

    def __init__(self):
        self.given = []

    def evaluate(self, proposals, step, on_epoch, on_batch, on_finished, step_size):
        self.given.append((sorted(proposals), step, step_size))
        for number, actions in proposals.items():
            trial = Trial(number, "complete", actions, 1, 1, 0.5, 0.5, 1.0, step)
            on_finished([Evaluated(trial, None)])


@pytest.fixture
def context():
    finished, phases = [], []

    @contextlib.contextmanager
    def progress(title, num_epochs):
        phases.append((title, num_epochs))
        yield None, None

    given = ExecutorContext(Evaluator(), finished.extend, progress, 4)
    return types.SimpleNamespace(given=given, finished=finished, phases=phases)


def test_nothing_is_trained_before_somebody_waits(context):
    with executors.opened("local", context.given) as executor:
        assert executor.wait() == 1
        executor.submit({3: ActionSet(), 4: ActionSet()}, 1)
        executor.submit({5: ActionSet()}, 2)
        assert context.finished == []
        assert executor.wait() == 0
        assert [item.trial.number for item in context.finished] == [3, 4]
        assert executor.wait() == 1
    assert [item.trial.number for item in context.finished] == [3, 4, 5]
    assert context.given.evaluator.given == [([3, 4], 1, 4), ([5], 2, 4)]
    assert context.phases == [("Step 2", 3), ("Step 3", 3)]


def test_an_unknown_executor_is_told(context):
    with pytest.raises(UnknownNameError, match="Unknown executor 'lokal'"):
        executors.opened("lokal", context.given)
