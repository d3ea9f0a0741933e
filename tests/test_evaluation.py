"""Students become trials; what fails fails alone."""

import dataclasses
import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy

from esnac_tf import objectives
from esnac_tf.architecture import ActionSet
from esnac_tf.datasets.given import given_evaluation_batches, given_training_batches
from esnac_tf.distillation import TrainingConfig, get_strategy, losses, training
from esnac_tf.distillation.step_error import StepError
from esnac_tf.distillation.student_groups import StudentGroup
from esnac_tf.errors import InfeasibleStudentError, UserError
from esnac_tf.evaluation import Evaluator
from esnac_tf.graph.cost import count_flops
from esnac_tf.graph.teacher import analyse
from esnac_tf.objectives import Measurement
from esnac_tf.student import StudentBuilder
from esnac_tf.trial import COMPLETE, FAILED

GOOD = ActionSet.of(removed=["branch"], widths={"12": 5})
OTHER = ActionSet.of(widths={"12": 3})
INFEASIBLE, POISONED = ActionSet.of(widths={"12": 1}), ActionSet.of(widths={"12": 2})


class Builder(StudentBuilder):
    """Has one student that can't be built and one whose loss is NaN."""

    def build(self, actions, name=None):
        if actions == INFEASIBLE:
            raise InfeasibleStudentError("layer 'branch': no room")
        student = super().build(actions, name)
        if actions == POISONED:
            kernel = student.get_layer("classes").kernel
            kernel.assign(np.full(kernel.shape, np.nan))
        return student


@pytest.fixture(scope="module")
def evaluator():
    teacher = toy.teacher()
    return Evaluator(
        builder=Builder(teacher, analyse(teacher)),
        groups=[StudentGroup(get_strategy("none"), teacher)],
        teacher_measurement=Measurement(
            sum(int(np.prod(weight.shape)) for weight in teacher.trainable_weights),
            count_flops(teacher),
            toy.accuracy(teacher, toy.VALIDATION),
        ),
        objective=objectives.get("params"),
        batches=given_training_batches(toy.TRAIN, 16),
        validation=given_evaluation_batches(toy.VALIDATION, 16),
        config=TrainingConfig.search(epochs=2),
        loss=losses.get("logit_mse"),
        seed=0,
    )


@pytest.fixture(scope="module")
def evaluated(evaluator):
    proposals = {4: GOOD, 5: INFEASIBLE, 6: POISONED, 7: OTHER}
    return evaluator.evaluate(proposals, step=1)


def test_trials_come_in_order_with_their_numbers_and_actions(evaluated):
    trials = [item.trial for item in evaluated]
    assert [(trial.number, trial.actions) for trial in trials] == [
        (4, GOOD), (5, INFEASIBLE), (6, POISONED), (7, OTHER)
    ]  # fmt: skip
    assert [trial.state for trial in trials] == [COMPLETE, FAILED, FAILED, COMPLETE]
    assert all(trial.step == 1 and trial.duration_secs > 0 for trial in trials)
    assert [item.student is None for item in evaluated] == [False, True, True, False]


def test_numbers_can_be_computed_again_from_the_student(evaluated, evaluator):
    for item in evaluated:
        if item.student is None:
            continue
        trial, student = item.trial, item.student()
        num_params = sum(int(np.prod(weight.shape)) for weight in student.trainable_weights)
        assert trial.num_params == num_params
        # Multiply-adds of Dense layers are the sizes of their kernels.
        dense = [layer for layer in student.layers if isinstance(layer, keras.layers.Dense)]
        kernels = sum(int(np.prod(layer.kernel.shape)) for layer in dense)
        assert kernels <= trial.flops == count_flops(student) <= 2 * kernels
        assert trial.validation_accuracy == pytest.approx(toy.accuracy(student, toy.VALIDATION))
        teacher = evaluator.teacher_measurement
        saved = 1 - num_params / teacher.num_params
        expected = saved * (2 - saved) * trial.validation_accuracy / teacher.quality
        assert trial.objective == pytest.approx(expected)
        assert trial.best_epoch in (1, 2)
        assert trial.failure is None


def test_failures_have_one_line_and_no_figures(evaluated):
    infeasible, poisoned = evaluated[1].trial, evaluated[2].trial
    assert infeasible.failure == "can't be built: layer 'branch': no room"
    assert infeasible.num_params is infeasible.flops is None
    assert poisoned.failure == "loss became NaN in epoch 1, step 1"
    assert poisoned.num_params > 0 < poisoned.flops
    for trial in (infeasible, poisoned):
        assert trial.validation_accuracy is trial.objective is trial.best_epoch is None


def test_the_others_do_not_notice(evaluated, evaluator):
    epochs, batches = [], []
    alone = evaluator.evaluate(
        {4: GOOD, 7: OTHER},
        1,
        on_epoch=lambda epoch, records: epochs.append((epoch, sorted(records))),
        on_batch=lambda epoch, step: batches.append((epoch, step)),
    )
    assert epochs == [(1, [0, 1]), (2, [0, 1])]
    assert batches == [(epoch, step) for epoch in (1, 2) for step in range(1, 7)]
    for item, other in zip(alone, (evaluated[0], evaluated[3]), strict=True):
        assert item.trial.objective == other.trial.objective
        weights = zip(item.student().get_weights(), other.student().get_weights(), strict=True)
        for one, same in weights:
            np.testing.assert_array_equal(one, same)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("the shapes\ndon't fit"),
        TypeError("no such argument"),
        KeyError("kernel"),
        MemoryError("no room"),
        tf.errors.ResourceExhaustedError(None, None, "no room"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_keras_raises_fails_alone(evaluator, monkeypatch, error):
    build = evaluator.builder.build

    def raise_once(actions, name=None):
        if actions == OTHER:
            raise error
        return build(actions, name)

    monkeypatch.setattr(evaluator.builder, "build", raise_once)
    config = TrainingConfig.search(epochs=1)
    evaluator = dataclasses.replace(evaluator, config=config)
    failed, good = (item.trial for item in evaluator.evaluate({0: OTHER, 1: GOOD}, 0))
    assert (failed.state, good.state) == (FAILED, COMPLETE)
    message = " ".join(str(error).split())
    assert failed.failure == f"can't be built: {type(error).__name__}: {message}"


def test_nothing_of_a_training_is_left(evaluator):
    """What `train` compiled is freed, not only when Python next thinks of it."""

    def optimizers():
        return weakref.WeakSet(
            item for item in gc.get_objects() if isinstance(item, keras.optimizers.Optimizer)
        )

    seen = []
    gc.collect()
    before = optimizers()
    gc.disable()
    try:
        config = TrainingConfig.search(epochs=1)
        evaluator = dataclasses.replace(evaluator, config=config)
        evaluator.evaluate({0: GOOD}, 0, on_batch=lambda *_: seen.append(len(optimizers())))
        assert seen[0] > len(before)
        assert not optimizers() - before
    finally:
        gc.enable()


def test_graphs_are_freed_that_tensorflow_would_keep(evaluator):
    """One of them would stay of every call, with all that it holds."""

    def num_graphs():
        gc.collect()
        return sum(isinstance(item, tf.Graph) for item in gc.get_objects())

    config = TrainingConfig.search(epochs=1)
    evaluator = dataclasses.replace(evaluator, config=config)
    numbers = []
    for number in range(3):
        evaluator.evaluate({number: GOOD}, 0)
        numbers.append(num_graphs())
    assert numbers[1] == numbers[2]


def test_results_are_told_as_soon_as_they_are_there(evaluator, monkeypatch):
    """A step that fails is trained in halves: the first half is known before the second."""
    train_part, told = training._Run.train_part, []

    def no_room_for_two(self, students, checkpoint):
        if len(students) > 1:
            raise StepError("no room")
        told.append("training")
        return train_part(self, students, checkpoint)

    monkeypatch.setattr(training._Run, "train_part", no_room_for_two)
    evaluator = dataclasses.replace(evaluator, config=TrainingConfig.search(epochs=1))
    results = evaluator.evaluate(
        {0: GOOD, 1: INFEASIBLE, 2: OTHER},
        0,
        on_finished=lambda items: told.append([item.trial.number for item in items]),
    )
    assert told == [[1], "training", [0], "training", [2]]
    assert [item.trial.number for item in results] == [0, 1, 2]


def test_if_all_fail_there_are_only_failed_trials(evaluator):
    results = evaluator.evaluate({0: INFEASIBLE}, 0)
    assert [item.trial.state for item in results] == [FAILED]


def test_actions_of_another_teacher_are_the_user_s_error(evaluator):
    with pytest.raises(UserError, match="can't be removed"):
        evaluator.evaluate({0: ActionSet.of(["nowhere"])}, 0)


class TestSuccessiveHalving:
    """Students that are trained apart are compared apart, and the same share of them goes on."""

    PROPOSALS = {number: ActionSet.of(widths={"12": 11 - number}) for number in range(8)}

    def epochs_of(self, evaluator, proposals, **arguments):
        config = TrainingConfig.search(epochs=8)
        changes = {"config": config, "halving_factor": 2, **arguments}
        results = dataclasses.replace(evaluator, **changes).evaluate(proposals, 0, step_size=8)
        return sorted(item.trial.num_epochs for item in results)

    def test_one_step(self, evaluator):
        assert self.epochs_of(evaluator, self.PROPOSALS) == [1, 1, 1, 1, 2, 2, 4, 8]

    def test_for_want_of_memory(self, evaluator):
        at_once = training.AtOnce()
        at_once.memory_ran_out(8)
        found = self.epochs_of(evaluator, self.PROPOSALS, at_once=at_once)
        assert found == sorted(2 * [1, 1, 2, 8])

    def test_on_two_devices(self, evaluator):
        groups = []
        for _ in range(2):
            strategy = tf.distribute.OneDeviceStrategy("CPU:0")
            with strategy.scope():
                groups.append(StudentGroup(strategy, evaluator.builder.teacher()))
        found = self.epochs_of(evaluator, self.PROPOSALS, groups=groups)
        assert found == sorted(2 * [1, 1, 2, 8])

    def test_what_an_interrupted_step_left(self, evaluator):
        half = {number: self.PROPOSALS[number] for number in range(4)}
        assert self.epochs_of(evaluator, half) == [1, 1, 2, 8]
