"""The contract of executors: every file in esnac_tf/executors/ passes it."""

from __future__ import annotations

import dataclasses

import pytest
import toy

from esnac_tf import executors
from esnac_tf.architecture import ActionSet
from esnac_tf.errors import UnknownNameError, UserError
from esnac_tf.trial import COMPLETE

from .conftest import make_context, make_evaluator

STUDENTS = {3 + width: ActionSet.of(widths={"12": width}) for width in (5, 4, 3, 2)}


@pytest.fixture(scope="module")
def expected():
    """Trials of the students, evaluated here."""
    return {item.trial.number: item.trial for item in make_evaluator().evaluate(STUDENTS, 1)}


@pytest.fixture(scope="module", params=executors.names())
def running(request):
    """An executor and its context, for all tests."""
    if request.param == "ray":
        request.getfixturevalue("ray")
    context = make_context(make_evaluator())
    with executors.opened(request.param, context.given) as executor:
        yield executor, context


def results(running, count):
    """What comes until so many are there."""
    executor, context = running
    while len(context.finished) < count:
        executor.wait()
    executor.wait()
    finished = list(context.finished)
    context.finished.clear()
    return finished


def without_secs(trial):
    return dataclasses.replace(trial, duration_secs=0.0)


def test_there_is_room_where_nothing_is_trained(running):
    executor, context = running
    assert executor.wait() >= 1
    assert context.finished == []


def test_students_of_a_step_come_out_as_if_evaluated_here(running, expected):
    executor, _ = running
    executor.submit(STUDENTS, 1)
    finished = results(running, len(STUDENTS))
    assert sorted(item.trial.number for item in finished) == sorted(STUDENTS)
    for item in finished:
        trial = item.trial
        assert trial.state == COMPLETE
        assert trial.duration_secs > 0
        assert without_secs(trial) == without_secs(expected[trial.number])
        accuracy = toy.accuracy(item.student(), toy.VALIDATION)
        assert accuracy == pytest.approx(trial.validation_accuracy)


def test_several_may_be_submitted_before_somebody_waits(running):
    executor, context = running
    context.phases.clear()
    numbers = list(STUDENTS)
    executor.submit({number: STUDENTS[number] for number in numbers[:2]}, 0)
    executor.submit({numbers[2]: STUDENTS[numbers[2]]}, 2)
    executor.submit({numbers[2] + 9: STUDENTS[numbers[2]]}, 4)
    finished = results(running, 4)
    steps = {item.trial.number: item.trial.step for item in finished}
    assert len(finished) == 4
    assert steps == {numbers[0]: 0, numbers[1]: 0, numbers[2]: 2, numbers[2] + 9: 4}
    told = {title.split(",")[0] for title, _ in context.phases}
    assert told == {"Step 1", "Step 3", "Step 5"}
    assert {num_epochs for _, num_epochs in context.phases} == {2}


def test_a_mistake_of_the_user_comes_through(running):
    executor, context = running
    executor.submit({0: ActionSet.of(removed=["no such layer"])}, 0)
    with pytest.raises(UserError, match="no such layer"):
        executor.wait()
    assert context.finished == []
    executor.submit({1: next(iter(STUDENTS.values()))}, 0)  # and it goes on
    assert [item.trial.state for item in results(running, 1)] == [COMPLETE]


def test_local_trains_nothing_before_somebody_waits():
    context = make_context(make_evaluator())
    with executors.opened("local", context.given) as executor:
        executor.submit(STUDENTS, 0)
        assert context.phases == []


def test_an_unknown_executor_is_told():
    with pytest.raises(UnknownNameError, match="Unknown executor 'lokal'"):
        executors.opened("lokal", make_context(None).given)
