"""Parameters and multiply-adds against numbers computed by hand."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import small_models
from small_models import MODELS, graph_of

from esnac_tf.graph.cost import count_flops, count_params
from esnac_tf.graph.widths import ParameterTable
from esnac_tf.search_space.space import SearchSpace

layers = keras.layers


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: layers.Conv2D(5, 3), 6 * 6 * 5 * 9 * 4),
        (lambda: layers.Conv2D(5, (3, 1), padding="same", strides=2), 4 * 4 * 5 * 3 * 4),
        (lambda: layers.Conv2D(6, 3, groups=2), 6 * 6 * 6 * 9 * 2),
        (lambda: layers.DepthwiseConv2D(3, depth_multiplier=2), 6 * 6 * 8 * 9),
        (lambda: layers.SeparableConv2D(5, 3), 6 * 6 * (4 * 9 + 4 * 5)),
        (lambda: layers.SeparableConv2D(5, 3, depth_multiplier=2), 6 * 6 * (8 * 9 + 8 * 5)),
        (lambda: layers.Conv2DTranspose(5, 3, strides=2), 8 * 8 * 4 * 9 * 5),
        (lambda: layers.Dense(7), 8 * 8 * 4 * 7),
        (lambda: layers.BatchNormalization(), 0),
        (lambda: layers.AveragePooling2D(2), 0),
        (lambda: layers.EinsumDense("abcd,de->abce", (8, 8, 7)), 8 * 8 * 4 * 7),
        (lambda: layers.EinsumDense("abcd,cde->abe", (8, 7)), 8 * 7 * 8 * 4),
        (lambda: layers.TimeDistributed(layers.Conv1D(5, 3)), 8 * 6 * 5 * 3 * 4),
        (lambda: layers.SpectralNormalization(layers.Dense(7)), 8 * 8 * 4 * 7),
    ],
)
def test_multiply_adds(make, expected):
    inputs = keras.Input((8, 8, 4))
    assert count_flops(keras.Model(inputs, make()(inputs))) == expected


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: layers.SimpleRNN(5), 6 * 5 * (4 + 5)),
        (lambda: layers.GRU(5, return_sequences=True), 6 * 3 * 5 * (4 + 5)),
        (lambda: layers.LSTM(5), 6 * 4 * 5 * (4 + 5)),
        (lambda: layers.Bidirectional(layers.LSTM(5)), 2 * 6 * 4 * 5 * (4 + 5)),
    ],
)
def test_multiply_adds_of_recurrent_layers(make, expected):
    inputs = keras.Input((6, 4))
    assert count_flops(keras.Model(inputs, make()(inputs))) == expected


def test_multiply_adds_of_a_convolutional_lstm():
    inputs = keras.Input((3, 8, 8, 2))
    model = keras.Model(inputs, layers.ConvLSTM2D(5, 3)(inputs))
    assert count_flops(model) == 3 * 6 * 6 * 4 * 5 * 9 * (2 + 5)


def test_multiply_adds_of_attention():
    query, value = keras.Input((6, 4)), keras.Input((9, 5))
    layer = layers.MultiHeadAttention(2, 3, value_dim=7, output_shape=11)
    projections = 6 * 4 * 2 * 3 + 9 * 5 * 2 * 3 + 9 * 5 * 2 * 7 + 6 * 2 * 7 * 11
    products = 6 * 9 * 2 * 3 + 6 * 9 * 2 * 7
    assert count_flops(keras.Model([query, value], layer(query, value))) == projections + products


def test_multiply_adds_of_attention_along_one_axis():
    inputs = keras.Input((6, 9, 4))
    layer = layers.MultiHeadAttention(2, 3, attention_axes=2)
    projections = 54 * 4 * 2 * 3 * 4
    assert count_flops(keras.Model(inputs, layer(inputs, inputs))) == projections + 2 * 54 * 9 * 6


def test_multiply_adds_of_grouped_query_attention():
    inputs = keras.Input((6, 8))
    layer = layers.GroupQueryAttention(3, 4, 2)
    projections = 6 * 8 * 3 * (4 + 2 + 2) + 6 * 4 * 3 * 8
    products = 2 * 6 * 6 * 4 * 3
    assert count_flops(keras.Model(inputs, layer(inputs, inputs))) == projections + products


def test_multiply_adds_of_attention_without_heads():
    query, value = keras.Input((6, 4)), keras.Input((9, 4))
    model = keras.Model([query, value], layers.Attention()([query, value]))
    assert count_flops(model) == 2 * 6 * 9 * 4


def test_multiply_adds_of_nested_and_shared_layers_count_at_every_call():
    model = small_models.model("nested")
    assert count_flops(model) == 4 * 6 + 2 * 6 * 6 + 6 * 2


def test_multiply_adds_with_channels_first():
    model = small_models.model("channels_first")
    assert count_flops(model) == 6 * 3 * 6 * 9 * 3 + 6 * 6 * 3 * 2


def test_parameters_are_what_is_learned_frozen_or_not():
    model = MODELS["nested"]()  # whose inner Dense layer is frozen
    expected = 4 * 6 + 6 + 6 * 6 + 6 + 2 * 6 + 6 * 2 + 2
    assert count_params(model) == expected
    model.trainable = False
    assert count_params(model) == expected


def test_statistics_are_no_parameters():
    inputs = keras.Input((4,))
    hidden = layers.Normalization()(inputs)
    hidden = layers.BatchNormalization()(hidden)
    assert count_params(keras.Model(inputs, layers.Dense(2)(hidden))) == 2 * 4 + 4 * 2 + 2


def test_a_layer_that_is_in_two_models_counts_once():
    shared = layers.Dense(4)
    inner_input = keras.Input((4,))
    inner = keras.Model(inner_input, shared(inner_input))
    inputs = keras.Input((4,))
    assert count_params(keras.Model(inputs, inner(shared(inputs)))) == 4 * 4 + 4


@pytest.mark.parametrize("name", list(MODELS))
def test_the_parameter_table_knows_the_teacher(name):
    model, graph = small_models.model(name), graph_of(name, "width")
    teacher = SearchSpace(graph).teacher()
    table = ParameterTable(graph, model)
    np.testing.assert_array_equal(
        table.count(teacher.removed, teacher.widths), [count_params(model)]
    )


def test_the_parameter_table_counts_many_at_once():
    graph = graph_of("residual", "dependency")
    candidates = SearchSpace(graph).sample(20, np.random.default_rng(0))
    table = ParameterTable(graph, small_models.model("residual"))
    counts = table.count(candidates.removed, candidates.widths)
    for index in range(20):
        one = candidates[[index]]
        assert table.count(one.removed, one.widths)[0] == counts[index]
