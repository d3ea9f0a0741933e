"""The layer sequence of a graph."""

from __future__ import annotations

import keras
import small_models

from esnac_tf.graph.parsing import parse
from esnac_tf.graph.sequence import layer_sequence

layers = keras.layers


def sequence(model):
    return layer_sequence(parse(model))


def test_sums_are_edges_and_the_branch_comes_before_the_shortcut():
    nodes = sequence(small_models.model("residual"))
    assert [(node.name, node.predecessors) for node in nodes] == [
        ("stem", ()),
        ("conv1", (0,)),
        ("bn1", (1,)),
        ("relu1", (0, 2)),
        ("conv2", (3,)),
        ("project", (3,)),
        ("relu2", (4, 5)),
        ("pool", (6,)),
        ("top", (7,)),
    ]
    removable = [node.name for node in nodes if node.is_removable]
    assert removable == ["conv1", "bn1", "relu1", "relu2"]


def test_calls_of_a_shared_layer_are_nodes_of_their_own():
    names = [node.name for node in sequence(small_models.model("shared_layer"))]
    assert "shared" in names
    assert "shared#1" in names


def test_a_channel_shuffle_is_one_node_and_preprocessing_none():
    inputs = keras.Input((4, 4, 6))
    hidden = layers.Rescaling(1 / 255)(inputs)
    hidden = layers.Reshape((4, 4, 2, 3), name="shuffle")(hidden)
    hidden = layers.Permute((1, 2, 4, 3))(hidden)
    hidden = layers.Reshape((4, 4, 6))(hidden)
    (shuffle, top) = sequence(keras.Model(inputs, layers.Conv2D(2, 1)(hidden)))
    assert (shuffle.name, shuffle.kind, len(shuffle.calls)) == ("shuffle", "reshaping", 3)
    assert shuffle.is_removable
    assert shuffle.predecessors == ()
    assert top.attributes == (1, 1, 0, 1)


def test_an_element_mover_with_two_consumers_ends_its_chain():
    inputs = keras.Input((4, 6))
    moved = layers.Permute((2, 1), name="first")(inputs)
    again = layers.Permute((2, 1), name="second")(moved)
    outputs = [layers.Dense(2)(moved), layers.Dense(2)(again)]
    names = [node.name for node in sequence(keras.Model(inputs, outputs))]
    assert {"first", "second"} <= set(names)


def test_a_sum_that_broadcasts_is_a_layer():
    inputs = keras.Input((4, 4, 3))
    hidden = layers.Conv2D(6, 1, name="conv")(inputs)
    pooled = layers.GlobalAveragePooling2D(keepdims=True, name="pool")(hidden)
    nodes = sequence(keras.Model(inputs, layers.Add(name="sum")([hidden, pooled])))
    assert [node.name for node in nodes] == ["conv", "pool", "sum"]
    assert nodes[-1].kind == "merging"
