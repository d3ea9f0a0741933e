"""Masks of outputs weigh in losses and metrics as Keras has it."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from esnac_tf.distillation import evaluate
from esnac_tf.distillation.output_losses import LabelLoss
from esnac_tf.distillation.output_masks import mask_of, masked, with_masks
from esnac_tf.distillation.task import Task, search_metric

WORDS = np.array([[1, 2, 3, 0], [4, 0, 0, 0], [2, 2, 0, 0], [1, 1, 1, 1]])


def tagger(length=4):
    words = keras.Input((length,), dtype="int32")
    hidden = keras.layers.Embedding(9, 5, mask_zero=True)(words)
    return keras.Model(words, keras.layers.Dense(3)(hidden))


def test_no_mask_and_one_of_other_axes_leave_losses_as_they_are():
    values = tf.constant([[1.0, 3.0]])
    assert masked(values, None) is values
    assert masked(values, tf.constant([[True, False, True]])) is values


def test_losses_with_more_axes_than_the_mask():
    values = tf.constant([[[1.0, 5.0], [7.0, 7.0]]])
    assert masked(values, tf.constant([[True, False]])).numpy().tolist() == [
        [[2.0, 10.0], [0.0, 0.0]]
    ]


def test_a_batch_of_nothing_but_filling_has_no_loss():
    assert masked(tf.ones((1, 2)), tf.constant([[False, False]])).numpy().tolist() == [[0.0, 0.0]]


def test_masks_are_hung_where_they_are():
    first, second = with_masks([tf.zeros((1, 2)), tf.zeros((1, 2))], [None, tf.ones((1, 2), bool)])
    assert mask_of(first) is None
    assert mask_of(second).numpy().tolist() == [[True, True]]


def test_what_a_loss_leaves_out_by_itself_does_not_count():
    labels = tf.constant([[0, 2, 2, 1], [2, 2, 2, 2]])
    outputs = tf.random.stateless_normal((2, 4, 3), [0, 0], stddev=3.0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=2)
    ours = LabelLoss(loss)(labels, None, outputs)
    assert float(tf.reduce_mean(ours)) == pytest.approx(float(loss(labels, outputs)), rel=1e-5)


@pytest.mark.parametrize("rows", [4, 3], ids=["as many sentences as words", "fewer"])
def test_a_metric_with_weights_of_sentences_and_masks(rows):
    model, x = tagger(), WORDS[:rows]
    y = np.argmax(model(x), axis=-1)
    y[1:] = (y[1:] + 1) % 3  # only the first sentence is right
    weight = np.array([100.0, 1, 1, 1], np.float32)[:rows]
    task = Task(False, metric=search_metric("sparse_categorical_accuracy"))
    dataset = tf.data.Dataset.from_tensors((x, y, weight))
    lengths = (x > 0).sum(axis=1)
    expected = 100 * lengths[0] / (weight * lengths).sum()
    assert evaluate([model], dataset, task=task) == [pytest.approx(expected)]
