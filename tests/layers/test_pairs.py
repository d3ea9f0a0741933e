"""Siamese networks: one encoder for two pictures, and what compares what it makes of them."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import keras
import numpy as np
import pytest
from small_models import examples_for, randomize, run

from esnac_tf.architecture import ActionSet
from esnac_tf.graph.teacher import analyse
from esnac_tf.student import StudentBuilder
from layers.test_removed_channels import assert_not_missed, draw_widths, few

layers, ops = keras.layers, keras.ops


def attend(layer, query, *keys):
    """The query asks the keys, which are the values, too."""
    return layer([ops.expand_dims(query, 1), ops.stack(keys, axis=1)])


# Both embeddings meet element by element, and weights follow.
ELEMENTWISE = {
    "AdditiveAttention": lambda a, b: attend(
        layers.AdditiveAttention(), ops.sigmoid(a), ops.sigmoid(b), b
    ),
    "Multiply": lambda a, b: layers.Multiply()([a, b]),
    "Subtract": lambda a, b: layers.Subtract()([a, b]),
    "abs": lambda a, b: ops.abs(a - b),
    "all_of_them": lambda a, b: layers.Concatenate()([a, b, ops.abs(a - b), a * b]),
    "maximum": ops.maximum,
    "multiply": ops.multiply,
    "square": lambda a, b: ops.square(a - b),
    "subtract": ops.subtract,
}


def unit(embedding):
    return embedding / ops.sqrt(ops.sum(ops.square(embedding), axis=1, keepdims=True))


def distance(a, b):
    return ops.sum(ops.abs(a - b), axis=-1, keepdims=True)


# They are summed over their channels, with no weight for any: one that is zero adds nothing.
SUMMED = {
    "AdditiveAttention_without_scale": lambda a, b: attend(
        layers.AdditiveAttention(use_scale=False), a, a, b
    ),
    "Attention": lambda a, b: attend(layers.Attention(use_scale=True), a, b, ops.sigmoid(b)),
    "Attention_concat": lambda a, b: attend(layers.Attention(score_mode="concat"), a, a, b),
    "Attention_of_Attention": lambda a, b: distance(
        *ops.split(attend(layers.Attention(), a, a, b) - ops.stack([a, b], axis=1), 2, axis=1)
    ),
    "BatchNormalization": lambda a, b: distance(
        layers.ReLU()(layers.BatchNormalization()(a)), layers.Dropout(0.5)(ops.tanh(b))
    ),
    "Dot_of_one": lambda a, b: layers.Dot(axes=1)([a, ops.sigmoid(b)]),
    "Dot": lambda a, b: layers.Dot(axes=1)([a, b]),
    "Dot_of_each_pair": lambda a, b: layers.Dot(axes=(2, -1))(
        [ops.stack([a, b], axis=1), ops.expand_dims(b, 1)]
    ),
    "Dot_normalized": lambda a, b: layers.Dot(axes=-1, normalize=True)([a, b]),
    "UnitNormalization": lambda a, b: layers.Dot(axes=1)(
        [layers.UnitNormalization()(a), layers.UnitNormalization()(b)]
    ),
    "distance": lambda a, b: ops.sqrt(ops.sum(ops.square(a - b), axis=-1, keepdims=True) + 1e-7),
    "gate": lambda a, b: ops.norm(a * ops.exp(b) / (1.0 + ops.abs(a)), axis=-1, keepdims=True),
    "norm": lambda a, b: ops.norm(a - b, axis=-1, keepdims=True),
    "norm_1": lambda a, b: ops.norm(a - b, ord=1, axis=1, keepdims=True),
    "normalize": lambda a, b: ops.sum(ops.normalize(a) * ops.normalize(b), -1, keepdims=True),
    "power": lambda a, b: ops.sum((a - b) ** 2, axis=-1, keepdims=True),
    "sum": lambda a, b: ops.expand_dims(ops.sum(a * b, axis=(1,)), 1),
    "unit": lambda a, b: ops.sum(unit(a) * unit(b), axis=-1, keepdims=True),
}

# Here zeros count, channels are mixed with positions, or anything may be done with them.
KEEPING = {
    "Dot_over_positions": lambda a, b: layers.Dot(axes=1)([a[:, None], b[:, None]]),
    "Dot_with_what_has_no_channels": lambda a, b: layers.Dot(axes=1)([a, ops.ones_like(b)]),
    "Lambda": lambda a, b: layers.Lambda(lambda pair: abs(pair[0] - pair[1]))([a, b]),
    "mean": lambda a, b: ops.mean(ops.square(a - b), axis=-1, keepdims=True),
    "norm_of_each": lambda a, b: ops.norm(a[:, :, None] - CENTRES + b[:, :, None], axis=1),
    "norm_of_least": lambda a, b: ops.norm(a - b, ord=-np.inf, axis=-1, keepdims=True),
}

CENTRES = np.random.default_rng(0).normal(size=(8, 5)).astype("float32")


def summed(values):
    return ops.sum(values, axis=-1, keepdims=True)


def normalized(values):
    mean = summed(values) / 8
    deviation = summed(ops.square(values - mean)) / 8
    return (values - mean) / ops.sqrt(deviation + 1e-5)


# Here a channel whose weights are zero is not zero in a sum, so it does not go.
NOT_ZERO = {
    "AdditiveAttention_without_scale": lambda x: attend(
        layers.AdditiveAttention(use_scale=False), x, x, ops.sigmoid(x)
    ),
    "Attention": lambda x: attend(layers.Attention(), ops.sigmoid(x), x, ops.sigmoid(x)),
    "Attention_concat": lambda x: attend(
        layers.Attention(score_mode="concat"), x, x, ops.sigmoid(x)
    ),
    "Dense": lambda x: summed(layers.Dense(8, activation="sigmoid")(x)),
    "Dot": lambda x: layers.Dot(axes=1)([ops.sigmoid(x), ops.sigmoid(x)]),
    "Dot_normalized": lambda x: layers.Dot(axes=1, normalize=True)([x, ops.sigmoid(x)]),
    "LayerNormalization": normalized,
    "UnitNormalization": lambda x: layers.UnitNormalization()(ops.sigmoid(x)),
    "array": lambda x: summed(x + CENTRES[:, 0]),
    "gate_of_all": lambda x: summed(ops.sigmoid(x) * layers.Dense(1)(x)),
    "less_log_of_sum": lambda x: x - ops.log(summed(ops.exp(x))),
    "map_of_all": lambda x: summed(x + layers.Dense(1)(x)),
    "norm": lambda x: ops.norm(ops.cos(x), axis=-1, keepdims=True),
    "number": lambda x: summed(x + 1),
    "power": lambda x: summed(2.0**x),
    "ratio": lambda x: summed(ops.sigmoid(x) / (1.0 + ops.abs(x))),
    "sigmoid": lambda x: summed(ops.sigmoid(x)),
    "softmax": lambda x: ops.exp(x) / summed(ops.exp(x)),
    "threshold": lambda x: summed(layers.ReLU(threshold=0.5, negative_slope=0.1)(x)),
    "where": lambda x: summed(ops.where(x > 0, x, 1)),
}


def network(compare):
    picture = keras.Input((6, 6, 3))
    hidden = layers.Conv2D(6, 3, activation="relu", name="stem")(picture)
    embedding = layers.Dense(8, name="embedding")(layers.GlobalAveragePooling2D()(hidden))
    encoder = keras.Model(picture, embedding, name="encoder")
    inputs = [keras.Input((6, 6, 3)), keras.Input((6, 6, 3))]
    compared = compare(*(encoder(each) for each in inputs))
    return randomize(keras.Model(inputs, layers.Dense(1, name="top")(compared)))


def widths_of(graph):
    return {group.name: group.width for group in graph.width_groups}


@pytest.mark.parametrize("name", ELEMENTWISE | SUMMED)
def test_nothing_done_gives_the_same_outputs(name):
    teacher = network((ELEMENTWISE | SUMMED)[name])
    student = StudentBuilder(teacher, analyse(teacher)).build(ActionSet())
    examples = examples_for(teacher)
    np.testing.assert_array_equal(run(student, examples), run(teacher, examples))


@pytest.mark.parametrize("name", ELEMENTWISE | SUMMED)
@few
@hypothesis.given(data=st.data())
def test_removed_channels_are_not_missed(name, data):
    teacher = network((ELEMENTWISE | SUMMED)[name])
    graph = analyse(teacher, "dependency")
    assert widths_of(graph) == {"stem": 6, "embedding": 8}
    widths = draw_widths(data, graph)
    student = assert_not_missed(teacher, graph, widths, "all" if name in SUMMED else "outgoing")
    assert student.get_layer("embedding").units == widths["embedding"]


@pytest.mark.parametrize("name", KEEPING)
def test_embeddings_are_kept(name):
    assert widths_of(analyse(network(KEEPING[name]), "dependency")) == {"stem": 6}


@pytest.mark.parametrize("name", NOT_ZERO)
def test_what_is_not_zero_in_a_sum_is_kept(name):
    inputs = keras.Input((5,))
    hidden = NOT_ZERO[name](layers.Dense(8, name="before")(inputs))
    graph = analyse(keras.Model(inputs, layers.Dense(2)(hidden)), "dependency")
    assert widths_of(graph) == ({"before": 8} if name == "Dense" else {})


@pytest.mark.parametrize("wrap", [lambda layer: layer, layers.Bidirectional])
def test_units_of_recurrent_layers_may_go_from_a_sum(wrap):
    sentence = keras.Input((5, 4))
    encoder = keras.Model(sentence, wrap(layers.LSTM(6, name="words"))(sentence))
    inputs = [keras.Input((5, 4)), keras.Input((5, 4))]
    compared = distance(*(encoder(each) for each in inputs))
    teacher = randomize(keras.Model(inputs, layers.Dense(1)(compared)))
    graph = analyse(teacher, "dependency")
    assert graph.width_groups
    assert_not_missed(teacher, graph, {group.name: 2 for group in graph.width_groups}, "all")


def test_the_embedding_of_a_similarity_that_is_the_output_can_shrink():
    picture = keras.Input((5,))
    encoder = keras.Model(picture, layers.Dense(8, name="embedding")(picture))
    inputs = [keras.Input((5,)), keras.Input((5,))]
    pair = [encoder(each) for each in inputs]
    teacher = randomize(keras.Model(inputs, layers.Dot(1, normalize=True)(pair)))
    graph = analyse(teacher, "dependency")
    assert widths_of(graph) == {"embedding": 8}
    assert_not_missed(teacher, graph, {"embedding": 3}, "all")
