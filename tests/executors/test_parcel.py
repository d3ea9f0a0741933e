"""Evaluators on their way to another process."""

from __future__ import annotations

import dataclasses
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy

from esnac_tf.architecture import ActionSet
from esnac_tf.datasets.given import given_training_batches
from esnac_tf.distillation import losses
from esnac_tf.distillation.task import SearchMetric, Task
from esnac_tf.distillation.teacher_targets import TeacherTargets
from esnac_tf.errors import UserError
from esnac_tf.executors import parcel
from esnac_tf.executors.parcel import (
    DataMissingError,
    check_travels,
    may_be_read,
    pack,
    unpack,
)
from esnac_tf.graph.teacher import analyse
from esnac_tf.student import StudentBuilder

from .conftest import make_evaluator

STUDENTS = {0: ActionSet.of(widths={"12": 5}), 1: ActionSet.of(removed=["branch"])}


def sent(evaluator, folder):
    return unpack(pickle.loads(pickle.dumps(pack(evaluator))), folder)


def trials_and_weights(evaluator):
    results = evaluator.evaluate(STUDENTS, 2)
    trials = [dataclasses.replace(item.trial, duration_secs=0.0) for item in results]
    return trials, [weight for item in results for weight in item.student().get_weights()]


@pytest.mark.parametrize(
    ("loss", "kept"), [("logit_mse", False), ("logit_mse", True), ("cross_entropy", False)]
)
def test_what_arrives_trains_alike(loss, kept, tmp_path):
    changes = {"loss": losses.get(loss), "seed": 3}
    evaluator = make_evaluator(**changes)
    if kept:
        group = evaluator.groups[0]
        targets = TeacherTargets(
            evaluator.batches, group.teacher, Task(), group.strategy, tmp_path / "here"
        )
        evaluator = dataclasses.replace(evaluator, batches=targets)
    arrived = sent(evaluator, tmp_path / "there")
    assert isinstance(arrived.batches, TeacherTargets) == kept
    trials, weights = trials_and_weights(arrived)
    expected_trials, expected = trials_and_weights(evaluator)
    assert trials == expected_trials
    for one, other in zip(weights, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert (tmp_path / "there").exists() == kept


class Shifted(keras.layers.Layer):
    """A layer of the user's own, which nobody registered."""

    def call(self, x):
        return x + 1.0


def test_layers_of_the_users_own_arrive(tmp_path):
    teacher = toy.teacher(end=[Shifted(name="shifted")])
    evaluator = make_evaluator(builder=StudentBuilder(teacher, analyse(teacher)))
    arrived = sent(evaluator, tmp_path)
    one, other = (made.builder.build(STUDENTS[0]) for made in (evaluator, arrived))
    np.testing.assert_array_equal(one(toy.TEST[0]), other(toy.TEST[0]))


@keras.saving.register_keras_serializable("tests")
def halved(x):
    return x / 2


def test_what_is_registered_arrives_where_the_teacher_has_it():
    teacher = toy.teacher(end=[keras.layers.Activation(halved, name="halved")])
    packed = pack(make_evaluator(builder=StudentBuilder(teacher, analyse(teacher))))
    assert packed.custom_objects == {"tests>halved": halved}
    assert pack(make_evaluator()).custom_objects == {}


def test_datasets_of_batches_are_refused():
    dataset = tf.data.Dataset.from_tensor_slices(toy.TRAIN).batch(16)
    evaluator = make_evaluator(batches=given_training_batches(dataset, 16))
    with pytest.raises(UserError, match="training data as arrays"):
        check_travels(evaluator)
    check_travels(make_evaluator())


class TestDataThatLiesInFiles:
    @pytest.fixture
    def evaluator(self, npz_batches, monkeypatch):
        monkeypatch.setattr(parcel, "_LARGE_BYTES", 1)
        return make_evaluator(batches=npz_batches)

    def test_it_is_read_where_it_is(self, evaluator, tmp_path):
        assert may_be_read(evaluator)
        packed = pickle.dumps(pack(evaluator, with_data=False))
        x, _ = evaluator.batches.arrays
        assert len(packed) < len(pickle.dumps(pack(evaluator))) - x.nbytes
        arrived = unpack(pickle.loads(packed), tmp_path / "there")
        for one, other in zip(arrived.batches.arrays, evaluator.batches.arrays, strict=True):
            np.testing.assert_array_equal(one, other)
        assert trials_and_weights(arrived)[0] == trials_and_weights(evaluator)[0]

    @pytest.mark.parametrize("change", ["gone", "broken", "other"])
    def test_it_must_be_there_and_the_same(self, evaluator, npz_file, change, tmp_path):
        packed = pack(evaluator, with_data=False)
        if change == "gone":
            npz_file.unlink()
        elif change == "broken":
            npz_file.write_bytes(b"no data")
        else:
            with np.load(npz_file) as arrays:
                np.savez(npz_file, **{**arrays, "x_train": arrays["x_train"] + 1})
        with pytest.raises(DataMissingError):
            unpack(packed, tmp_path / "there")

    def test_small_data_is_sent(self, npz_batches):
        assert not may_be_read(make_evaluator(batches=npz_batches))

    def test_data_without_files_is_sent(self, monkeypatch):
        monkeypatch.setattr(parcel, "_LARGE_BYTES", 1)
        assert not may_be_read(make_evaluator())


def halved_error(y, scores):
    return keras.losses.mean_squared_error(y, scores) / 2


class TestMetrics:
    def evaluator(self, metric):
        search_metric = SearchMetric("halved", "min", metric=metric)
        return make_evaluator(task=Task(metric=search_metric))

    def test_one_that_keras_does_not_know_is_refused(self):
        metric = keras.metrics.MeanMetricWrapper(halved_error, name="halved")
        with pytest.raises(UserError, match=r"can't be sent .*halved_error.*\nRegister"):
            check_travels(self.evaluator(metric))

    def test_one_that_is_registered_travels(self):
        register = keras.saving.register_keras_serializable("tests")
        metric = keras.metrics.MeanMetricWrapper(register(halved_error), name="halved")
        evaluator = self.evaluator(metric)
        check_travels(evaluator)
        assert pack(evaluator).custom_objects["tests>halved_error"] is halved_error
