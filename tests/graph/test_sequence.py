"""The layer sequence of a graph."""

from __future__ import annotations

import keras
import small_models

from esnac_tf.graph.parsing import parse
from esnac_tf.graph.sequence import layer_sequence
from esnac_tf.graph.teacher import skip_pairs

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


def test_identity_layers_are_edges():
    inputs = keras.Input((4,))
    hidden = layers.Identity()(layers.Dense(4, name="first")(inputs))
    nodes = sequence(keras.Model(inputs, layers.Dense(2, name="second")(hidden)))
    assert [(node.name, node.predecessors) for node in nodes] == [("first", ()), ("second", (0,))]


def test_what_turns_integers_into_numbers_is_not_removed_and_takes_no_connections():
    pixels = keras.Input((4, 4, 6), dtype="uint8")
    scaled = pixels / 255
    hidden = layers.Conv2D(6, 3, padding="same", name="conv")(scaled)
    model = keras.Model(pixels, layers.Conv2D(2, 1, name="top")(layers.ReLU(name="relu")(hidden)))
    nodes = sequence(model)
    assert [node.name for node in nodes if node.is_removable] == ["conv", "relu"]
    assert (nodes[0].takes_floats, nodes[0].gives_floats) == (False, True)
    assert all(target > 0 for _, target in skip_pairs(nodes))


def test_integers_are_added_to_nothing():
    words = keras.Input((6,), dtype="int32")
    classes = words % 5
    hidden = layers.Dense(6, name="dense")(layers.Rescaling(0.2, name="scaled")(classes))
    nodes = sequence(keras.Model(words, layers.Dense(2, name="top")(hidden)))
    pairs = [(nodes[source].name, nodes[target].name) for source, target in skip_pairs(nodes)]
    assert pairs == [("dense", "top")]
    assert [node.name for node in nodes if node.is_removable] == ["dense"]
