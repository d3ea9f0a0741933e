"""Removed layers and added connections, against models built by hand."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import small_models
from small_models import builder_of, examples_for, graph_of

from esnac_tf.architecture import ActionSet
from esnac_tf.errors import UserError
from esnac_tf.graph.surgery import check_actions, rewire
from esnac_tf.graph.teacher import analyse
from esnac_tf.student import StudentBuilder

layers = keras.layers


def by_hand(forward):
    """The model that a function of the residual model's layers and its input gives."""
    copy = builder_of("residual", "width").build(ActionSet())
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, forward(copy.get_layer, inputs))


def assert_equal_models(first, second):
    examples = examples_for(second)
    np.testing.assert_allclose(first(examples), second(examples), rtol=1e-5, atol=1e-6)


def tail(get, trunk):
    """All from the first sum on."""
    trunk = get("relu1")(trunk)
    trunk = layers.Add()([get("conv2")(trunk), get("project")(trunk)])
    return get("top")(get("pool")(get("relu2")(trunk)))


def test_a_residual_block_whose_branch_is_removed_is_the_identity():
    student = builder_of("residual", "width").build(ActionSet.of(["conv1", "bn1"]))
    assert "add1" not in [layer.name for layer in student.layers]
    assert_equal_models(student, by_hand(lambda get, x: tail(get, get("stem")(x))))


def test_a_removed_layer_is_the_identity():
    student = builder_of("residual", "width").build(ActionSet.of(["bn1", "relu2"]))

    def forward(get, x):
        stem = get("stem")(x)
        trunk = get("relu1")(layers.Add()([get("conv1")(stem), stem]))
        trunk = layers.Add()([get("conv2")(trunk), get("project")(trunk)])
        return get("top")(get("pool")(trunk))

    assert_equal_models(student, by_hand(forward))


def test_a_skip_connection_adds():
    student = builder_of("residual", "width").build(ActionSet.of(skips=[("stem", "bn1")]))

    def forward(get, x):
        stem = get("stem")(x)
        branch = get("bn1")(layers.Add()([get("conv1")(stem), stem]))
        return tail(get, layers.Add()([branch, stem]))

    assert_equal_models(student, by_hand(forward))


def test_two_skip_connections_and_a_removal_at_once():
    """The source of one is removed: what it stood for is added."""
    actions = ActionSet.of(["bn1"], skips=[("bn1", "project"), ("stem", "conv2")])
    student = builder_of("residual", "width").build(actions)

    def forward(get, x):
        stem = get("stem")(x)
        branch = get("conv1")(stem)
        trunk = get("relu1")(layers.Add()([branch, stem]))
        first = get("conv2")(layers.Add()([trunk, stem]))
        second = get("project")(layers.Add()([trunk, branch]))
        return get("top")(get("pool")(get("relu2")(layers.Add()([first, second]))))

    assert_equal_models(student, by_hand(forward))


def test_a_tensor_is_added_once():
    """With its branch removed, the skip connection adds what arrives anyway."""
    actions = ActionSet.of(["conv1"], skips=[("stem", "bn1")])
    student = builder_of("residual", "width").build(actions)
    plain = builder_of("residual", "width").build(ActionSet.of(["conv1"]))
    assert len(student.layers) == len(plain.layers)
    assert_equal_models(student, plain)


def test_skip_connections_of_narrow_layers():
    actions = ActionSet.of(["bn1"], {"6": 2, "8": 3}, [("stem", "conv2")])
    student = builder_of("residual", "width").build(actions)
    assert student.get_layer("conv2_skip").output.shape == (None, 8, 8, 2)
    assert student.get_layer("relu2").output.shape == (None, 8, 8, 3)


def test_a_removal_joins_the_widths_on_its_two_sides():
    """Without conv3 its input and output are one: both have the least of their widths."""
    inputs = keras.Input((8, 8, 3))
    hidden = layers.Conv2D(8, 3, padding="same", name="conv1")(inputs)
    hidden = layers.ReLU(name="relu1")(hidden)
    hidden = layers.Conv2D(8, 3, padding="same", name="conv2")(hidden)
    hidden = layers.BatchNormalization(name="bn2")(hidden)
    teacher = small_models.randomize(keras.Model(inputs, layers.Conv2D(2, 1, name="top")(hidden)))
    builder = StudentBuilder(teacher, analyse(teacher, "dependency"))
    student = builder.build(ActionSet.of(["conv2"], {"conv1": 5, "conv2": 3}))
    assert student.get_layer("conv1").filters == 3
    assert student.get_layer("bn2").gamma.shape == (3,)
    kept = builder.kept_slots(ActionSet.of(["conv2"], {"conv1": 5, "conv2": 3}))
    np.testing.assert_array_equal(kept[:8], kept[8:16])
    np.testing.assert_array_equal(
        student.get_layer("bn2").gamma,
        np.asarray(teacher.get_layer("bn2").gamma)[kept[8:16]],
    )


def test_the_sum_is_a_plain_layer_whose_name_is_free():
    inputs = keras.Input((4,))
    hidden = layers.Dense(6, name="a")(inputs)
    hidden = layers.ReLU(name="b_skip")(hidden)
    hidden = layers.Dense(6, name="c")(hidden)
    hidden = layers.Dense(6, name="b")(hidden)
    teacher = keras.Model(inputs, layers.Dense(2)(hidden))
    student = StudentBuilder(teacher, analyse(teacher)).build(ActionSet.of(skips=[("a", "b")]))
    assert type(student.get_layer("b_skip_")) is layers.Add


def test_an_output_that_is_a_sum_of_nothing_but_the_input():
    inputs = keras.Input((4,))
    teacher = keras.Model(inputs, layers.Add()([inputs, layers.Dense(4, name="d")(inputs)]))
    student = StudentBuilder(teacher, analyse(teacher)).build(ActionSet.of(["d"]))
    examples = np.ones((2, 4), np.float32)
    np.testing.assert_array_equal(student(examples), examples)


@pytest.mark.parametrize("name", ["residual", "several_inputs_and_ops", "concatenated"])
def test_no_action_changes_nothing(name):
    graph = graph_of(name, "width")
    assert rewire(graph, ActionSet()) == graph.architecture


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (ActionSet.of(["nothing"]), "Layer 'nothing' can't be removed"),
        (ActionSet.of(["stem"]), "Layer 'stem' can't be removed"),
        (ActionSet.of(["top"]), "Layer 'top' can't be removed"),
        (ActionSet.of(["add1"]), "Layer 'add1' can't be removed"),
        (ActionSet.of(widths={"6": 0}), "'6' can't have the width 0"),
        (ActionSet.of(widths={"6": 7}), "'6' can't have the width 7"),
        (ActionSet.of(widths={"7": 1}), "6: 6, 8: 8"),
        (ActionSet.of(skips=[("bn1", "stem")]), "'bn1' to 'stem'"),
        (ActionSet.of(skips=[("stem", "conv1")]), "'stem' to 'conv1'"),  # it exists
        (ActionSet.of(skips=[("stem", "pool")]), "'stem' to 'pool'"),
        (ActionSet.of(skips=[("stem", "nothing")]), "'stem' to 'nothing'"),
    ],
)
def test_actions_that_a_teacher_does_not_allow_are_told_in_two_lines(actions, message):
    with pytest.raises(UserError, match=message) as error:
        check_actions(graph_of("residual", "width"), actions)
    assert len(str(error.value).splitlines()) == 2


def test_a_shared_layer_and_an_output_are_never_removed():
    graph = graph_of("shared_layer", "width")
    assert not {"shared", "shared#1"} & {graph.nodes[index].name for index in graph.removals}
    inputs = keras.Input((4,))
    hidden = layers.Dense(4, name="hidden")(inputs)
    graph = analyse(keras.Model(inputs, [hidden, layers.ReLU(name="end")(hidden)]))
    assert not graph.removals
