"""What a model must be to be searched; `tests/test_compression.py` has the errors."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy

from esnac_tf.errors import UserError
from esnac_tf.graph.checks import check_classifier, check_examples, gives_probabilities


def test_a_classifier_tells_its_number_of_classes():
    assert check_classifier(toy.untrained()) == 3
    sequential = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    assert check_classifier(sequential) == 2


@pytest.mark.parametrize("shape", [(1,), (4, 3), ()])
def test_one_score_and_scores_for_places_are_refused(shape):
    inputs = keras.Input((12,))
    outputs = keras.layers.Reshape(shape)(keras.layers.Dense(int(np.prod(shape)))(inputs))
    with pytest.raises(UserError, match="2 classes or more"):
        check_classifier(keras.Model(inputs, outputs))


def test_axes_of_any_length_take_any_example():
    inputs = keras.Input((None, None, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3)(pooled))
    for shape, fits in (((5, 8, 3), True), ((5, 8, 1), False), ((8, 3), False)):
        dataset = tf.data.Dataset.from_tensors((np.zeros((2, *shape)), np.zeros(2)))
        if fits:
            check_examples(model, dataset, "test")
        else:
            with pytest.raises(UserError, match="the test data has"):
                check_examples(model, dataset, "test")


def test_examples_in_parts_are_refused():
    dataset = tf.data.Dataset.from_tensors(({"a": np.zeros((2, 8))}, np.zeros(2)))
    with pytest.raises(UserError, match="no tensor"):
        check_examples(toy.untrained(), dataset, "training")


def test_probabilities_are_told_from_logits_wherever_they_come_from():
    x, _ = toy.TEST
    softmax = keras.Sequential([keras.Input((3,)), keras.layers.Softmax()])
    for end in ([], [keras.layers.ReLU()], [keras.layers.Activation("sigmoid")]):
        assert not gives_probabilities(toy.teacher(end), x)
    for end in ([keras.layers.Softmax()], [softmax], [keras.layers.Activation("softmax")]):
        assert gives_probabilities(toy.teacher(end), x)
    assert gives_probabilities(toy.teacher(activation="softmax"), x)
