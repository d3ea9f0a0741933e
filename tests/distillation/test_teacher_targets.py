"""Kept scores of the teacher: the same students come of them, and no wrong ones are used."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from esnac_tf.datasets.pipelines import TrainingBatches
from esnac_tf.datasets.structures import StructuredBatches
from esnac_tf.distillation import TrainingConfig, losses, train
from esnac_tf.distillation.output_losses import OutputLoss
from esnac_tf.distillation.task import Task, search_metric
from esnac_tf.distillation.teacher_targets import TeacherTargets
from esnac_tf.errors import UserError

from .tiny import conv_net, pictures, validation

CONFIG = TrainingConfig(epochs=2, learning_rate=0.01)
ONE = tf.distribute.get_strategy


class Counted(keras.layers.Layer):
    """Counts the batches that a teacher computes."""

    def build(self, shape):
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, x):
        self.calls.assign(self.calls + 1.0)
        return x


def augmented(seed=0):
    x, y = pictures(48)
    return TrainingBatches(x, y, 16, augmentation="crop_flip", seed=seed)


def targets_of(teacher, folder, batches=None):
    return TeacherTargets(batches or augmented(), teacher, Task(), ONE(), folder)


def trained(batches, teacher=None):
    student = conv_net(4, seed=1)
    rows = validation(*pictures(32, seed=1))
    [outcome] = train(
        [student], batches, rows, CONFIG, loss=losses.get("logit_mse"), teacher=teacher
    )
    return student.get_weights(), outcome


def scores_of(targets, epoch=0):
    return [targets.split(batch)[3].numpy() for batch in targets.epoch(epoch)]


def test_students_are_those_of_a_pass_with_every_batch(tmp_path):
    teacher = conv_net(8, seed=90)
    expected, outcome = trained(augmented(), teacher)
    weights, kept = trained(targets_of(teacher, tmp_path))
    again, read = trained(targets_of(teacher, tmp_path))
    for one, other, third in zip(expected, weights, again, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(other, third)
    assert kept.validation_metric == read.validation_metric == outcome.validation_metric


def test_each_epoch_is_computed_once(tmp_path):
    counter = Counted()
    teacher = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(), counter])
    targets = targets_of(teacher, tmp_path)
    first = scores_of(targets)
    calls = float(counter.calls)
    assert calls >= 3  # batches of an epoch
    np.testing.assert_array_equal(first, scores_of(targets))
    assert float(counter.calls) == calls + 1  # the first batch is held against the file
    assert not np.array_equal(first, scores_of(targets, epoch=1))


def test_scores_belong_to_their_batches(tmp_path):
    teacher = conv_net(8, seed=90)
    targets = targets_of(teacher, tmp_path)
    for _ in range(2):  # computed, then read
        for batch in targets.epoch(1):
            x, _, weight, scores = targets.split(batch)
            np.testing.assert_allclose(scores, teacher(x, training=False), rtol=1e-5, atol=1e-6)
            assert weight is None


@pytest.mark.parametrize("damage", ["cut off", "a byte", "no file of arrays", "objects"])
def test_a_damaged_file_is_computed_again(tmp_path, damage):
    teacher = conv_net(8, seed=90)
    expected = scores_of(targets_of(teacher, tmp_path))
    path = tmp_path / "epoch_00000.npz"
    content = bytearray(path.read_bytes())
    if damage == "cut off":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "a byte":
        content[400] ^= 1
        path.write_bytes(content)
    elif damage == "objects":
        np.savez(path, key=np.array([{}], object), digest=np.array([{}], object))
    else:
        path.write_text("nothing of the kind")
    np.testing.assert_allclose(scores_of(targets_of(teacher, tmp_path)), expected, rtol=1e-6)
    np.testing.assert_allclose(scores_of(targets_of(teacher, tmp_path)), expected, rtol=1e-6)


def test_scores_of_another_teacher_or_other_batches_are_not_used(tmp_path):
    teacher, other = conv_net(8, seed=90), conv_net(8, seed=91)
    scores_of(targets_of(teacher, tmp_path))
    folder = tmp_path / "other"
    np.testing.assert_array_equal(
        scores_of(targets_of(other, tmp_path)), scores_of(targets_of(other, folder))
    )
    np.testing.assert_array_equal(
        scores_of(targets_of(other, tmp_path, augmented(seed=1))),
        scores_of(targets_of(other, folder, augmented(seed=1))),
    )


def test_several_outputs_and_weights_of_examples(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 5)).astype("float32")
    y = {"sum": x.sum(axis=1, keepdims=True), "first": x[:, :1]}
    weight = rng.uniform(size=32).astype("float32")
    batches = StructuredBatches(x, y, 8, weight=weight)

    def model(seed):
        inputs = keras.Input((5,))
        kernel = keras.initializers.GlorotUniform(seed=seed)
        return keras.Model(
            inputs,
            {name: keras.layers.Dense(1, kernel_initializer=kernel)(inputs) for name in y},
        )

    teacher = model(1)
    task = Task(False, metric=search_metric({"sum": "mean_absolute_error"}))
    targets = TeacherTargets(batches, teacher, task, ONE(), tmp_path)
    rows = tf.data.Dataset.from_tensors((x, y, weight))
    results = []
    for data, given in ((batches, teacher), (targets, None)):
        student = model(2)
        train([student], data, rows, CONFIG, loss=OutputLoss(), teacher=given, task=task)
        results.append(student.get_weights())
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_without_room_they_are_computed_each_time(tmp_path):
    """A file lies where the folder would be."""
    (tmp_path / "file").write_text("")
    teacher, told = conv_net(8, seed=90), []
    expected = scores_of(targets_of(teacher, tmp_path / "folder"))
    where = tmp_path / "file" / "folder"
    targets = TeacherTargets(augmented(), teacher, Task(), ONE(), where, told=told.append)
    for _ in range(2):
        np.testing.assert_array_equal(scores_of(targets), expected)
    assert len(told) == 1
    assert told[0].startswith("The teacher's outputs are not kept. Cannot write ")
    with pytest.raises(UserError, match="Cannot write"):
        scores_of(targets_of(teacher, where))


def test_another_number_of_batches_is_not_served(tmp_path):
    class First:
        """The first batches of each epoch."""

        def __init__(self, number):
            self.number, self.batch_size = number, 16

        def epoch(self, epoch):
            return augmented().epoch(epoch).take(self.number)

    teacher = conv_net(8, seed=90)
    few = scores_of(targets_of(teacher, tmp_path, First(2)))
    more = scores_of(targets_of(teacher, tmp_path, First(3)))
    assert (len(few), len(more)) == (2, 3)


def test_scores_of_other_outputs_are_not_used(tmp_path):
    """The same weights, another activation; the same model, read as probabilities."""

    def model(activation):
        kernel = keras.initializers.GlorotUniform(seed=1)
        dense = keras.layers.Dense(3, activation, kernel_initializer=kernel)
        return keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(), dense])

    logits = scores_of(targets_of(model(None), tmp_path))
    teacher = model("softmax")
    outputs = scores_of(targets_of(teacher, tmp_path))
    read = TeacherTargets(augmented(), teacher, Task(from_logits=False), ONE(), tmp_path)
    assert not np.allclose(logits, outputs)
    np.testing.assert_allclose(scores_of(read), np.log(outputs), rtol=1e-4)
