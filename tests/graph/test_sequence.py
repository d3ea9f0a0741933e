"""The layer sequence of a graph."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import small_models

from esnac_tf.architecture import ActionSet
from esnac_tf.graph.cost import count_params
from esnac_tf.graph.parsing import parse
from esnac_tf.graph.sequence import layer_sequence
from esnac_tf.graph.teacher import analyse, skip_pairs
from esnac_tf.graph.widths import ParameterTable
from esnac_tf.search_space.space import SearchSpace
from esnac_tf.student import StudentBuilder

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


class TestLayersOfOnesOwn:
    """What nobody knows may go as a whole where its shapes allow, and is never changed."""

    class Block(keras.layers.Layer):
        def build(self, shape, *others):
            self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")

        def call(self, x, padding_mask=None):
            x = x * self.scale
            return (
                x if padding_mask is None else x * keras.ops.cast(padding_mask, x.dtype)[..., None]
            )

    class Halving(keras.layers.Layer):
        def call(self, x):
            return x[..., ::2]

    @pytest.fixture
    def teacher(self):
        tokens, mask = keras.Input((5,), name="tokens"), keras.Input((5,), name="mask")
        x = keras.layers.Embedding(9, 6, name="words")(tokens)
        for name in ("first", "second"):
            x = self.Block(name=name)(x, padding_mask=mask)
        x = keras.layers.Lambda(lambda tensor: tensor + 1, name="plus_one")(x)
        x = self.Halving(name="halving")(x)
        x = keras.ops.flip(x, axis=1)
        return keras.Model([tokens, mask], keras.layers.Dense(2)(x))

    def test_they_are_removable_where_they_give_their_first_input_s_shape(self, teacher):
        removable = {node.name: node.is_removable for node in layer_sequence(parse(teacher))}
        assert removable["first"]
        assert removable["second"]
        assert removable["plus_one"]
        assert not removable["halving"]

    def test_those_that_stay_give_what_they_gave(self, teacher):
        builder = StudentBuilder(teacher, analyse(teacher))
        tokens, mask = np.arange(10).reshape(2, 5) % 9, np.eye(2, 5)
        teacher.get_layer("first").scale.assign([1, 2, 3, 4, 5, 6])
        same = builder.build(ActionSet())
        np.testing.assert_array_equal(same([tokens, mask]), teacher([tokens, mask]))
        student = builder.build(ActionSet.of(["first"]))
        assert [layer.name for layer in student.layers if "first" in layer.name] == []
        kept = teacher.get_layer("second")
        expected = kept(teacher.get_layer("words")(tokens), padding_mask=mask)
        found = keras.Model(student.inputs, student.get_layer("second").output)([tokens, mask])
        np.testing.assert_allclose(found, expected)

    def test_inputs_that_only_they_took_stay_inputs(self, teacher):
        builder = StudentBuilder(teacher, analyse(teacher))
        student = builder.build(ActionSet.of(["first", "second"]))
        assert [tensor.name for tensor in student.inputs] == ["tokens", "mask"]
        tokens = np.zeros((2, 5))
        np.testing.assert_array_equal(
            student([tokens, np.zeros((2, 5))]), student([tokens, np.ones((2, 5))])
        )

    def test_they_stay_where_others_work_for_them_alone(self):
        inputs = keras.Input((5,))
        x = keras.layers.Embedding(9, 6)(inputs)
        side = keras.layers.Dense(5, name="side")(inputs)
        before = self.Block(name="before")(x, padding_mask=inputs)
        block = self.Block(name="block")(before, padding_mask=side)
        model = keras.Model(inputs, keras.layers.Dense(2)(block))
        removable = {node.name: node.is_removable for node in layer_sequence(parse(model))}
        assert removable["before"]
        assert not removable["block"]

    def test_parameters_are_foretold(self, teacher):
        graph = analyse(teacher)
        table = ParameterTable(graph, teacher)
        space = SearchSpace(graph)
        candidates = space.sample(10, np.random.default_rng(0))
        builder = StudentBuilder(teacher, graph)
        students = map(builder.build, space.to_actions(candidates))
        counts = table.count(candidates.removed, candidates.widths)
        assert list(map(count_params, students)) == counts.tolist()
