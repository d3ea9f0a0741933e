"""What a model must be to be searched; `tests/test_compression.py` has the errors."""

import re

import keras
import numpy as np
import pytest
import small_models
import tensorflow as tf
import toy

from esnac_tf.errors import UserError
from esnac_tf.graph.checks import (
    are_probabilities,
    check_classifier,
    check_examples,
    check_searchable,
)
from esnac_tf.graph.teacher import analyse


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


def test_what_keeps_channels_and_layers_is_named():
    inputs = keras.Input((8,))
    hidden = keras.layers.Dense(4, activation="softmax", name="compared")(inputs)
    hidden = small_models.SubclassedPart(name="own")(hidden)
    model = keras.Model(inputs, keras.layers.Dense(2, name="top")(hidden))
    with pytest.raises(UserError) as caught:
        check_searchable(analyse(model))
    what, hint = str(caught.value).splitlines()
    for part in (
        "the channels of 'compared' can't be fewer, as the activation of 'compared' compares them",
        "'own' can't be removed, as it takes [4] and gives [6]",
        "the channels of 'top' can't be fewer, as they are an output of the model",
    ):
        assert part in what
    assert "CONTRIBUTING.md" in hint


def test_the_first_three_reasons_are_told_that_an_output_is_one_comes_last():
    inputs = hidden = keras.Input((8,))
    output = keras.layers.Dense(2, name="first")(inputs)
    for width in range(3, 8):
        hidden = keras.layers.Dense(width, activation="softmax", name=f"compared{width}")(hidden)
    model = keras.Model(inputs, [output, hidden])
    with pytest.raises(UserError) as caught:
        check_searchable(analyse(model))
    text = str(caught.value)
    assert re.findall(r"channels of '(\w+)'", text) == ["compared3", "compared4", "compared5"]
    assert text.endswith("Give a model with hidden layers whose channels may go.")


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


def told(model, x):
    dataset = tf.data.Dataset.from_tensors((x, np.zeros(2)))
    with pytest.raises(UserError) as caught:
        check_examples(model, dataset, "training")
    assert len(str(caught.value).splitlines()) == 2
    return str(caught.value)


def test_data_that_the_teacher_can_not_compute_is_refused():
    first, second = keras.Input((4,), dtype="int32"), keras.Input((4,), dtype="int32")
    embedding = keras.layers.Embedding(50, 3)
    one = keras.Model(first, keras.layers.Flatten()(embedding(first)))
    two = keras.Model([first, second], keras.layers.Add()([embedding(first), embedding(second)]))
    tokens = np.full((2, 4), 70)
    for model, x in ((one, tokens), (two, (tokens, tokens))):
        text = told(model, x)
        assert text.startswith("The teacher can't compute the training data: indices[0,0] = 70 is ")
        assert text.splitlines()[0].endswith("not in [0, 50)")


def test_text_is_refused_where_numbers_are_taken():
    model = toy.untrained()
    text = np.zeros((2, 8)).astype(str)
    assert told(model, text).startswith(
        "The training data has examples of text, the model 'toy' takes float32."
    )
    both = keras.Model([model.input, keras.Input((2,))], model.output)
    assert "examples of text" in told(both, (text, np.zeros((2, 2))))


def test_text_is_taken_where_it_is_meant():
    inputs = keras.Input((2,), dtype="string")
    model = keras.Model(inputs, keras.layers.StringLookup(vocabulary=["a", "b"])(inputs))
    dataset = tf.data.Dataset.from_tensors((np.full((2, 2), "a"), np.zeros(2)))
    check_examples(model, dataset, "training")


def test_examples_in_parts_are_refused():
    dataset = tf.data.Dataset.from_tensors(({"a": np.zeros((2, 8))}, np.zeros(2)))
    with pytest.raises(UserError, match="no tensor"):
        check_examples(toy.untrained(), dataset, "training")


def test_probabilities_are_told_from_logits_wherever_they_come_from():
    x, _ = toy.TEST
    softmax = keras.Sequential([keras.Input((3,)), keras.layers.Softmax()])
    for end in ([], [keras.layers.ReLU()], [keras.layers.Activation("sigmoid")]):
        assert not are_probabilities(toy.teacher(end)(x))
    for end in ([keras.layers.Softmax()], [softmax], [keras.layers.Activation("softmax")]):
        assert are_probabilities(toy.teacher(end)(x))
    assert are_probabilities(toy.teacher(activation="softmax")(x))
