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


def added_behind_a_sum(more=()):
    """A residual block; its branch begins with a layer that may go; `more` use the sum too."""
    inputs = keras.Input((8, 8, 3))
    stem = layers.Conv2D(4, 3, padding="same", name="stem")(inputs)
    branch = layers.Conv2D(4, 3, padding="same", name="conv1")(stem)
    branch = layers.ReLU(name="relu1")(branch)
    branch = layers.Conv2D(4, 3, padding="same", name="conv2")(branch)
    total = layers.Add(name="add")([branch, stem])
    outputs = [layers.ReLU(name="relu2")(total), *[layer(total) for layer in more]]
    end = layers.Add(name="end")(outputs) if more else outputs[0]
    teacher = small_models.randomize(keras.Model(inputs, layers.Conv2D(2, 1, name="top")(end)))
    return teacher, StudentBuilder(teacher, analyse(teacher))


def sums_of(student):
    """Each sum's name and number of operands."""
    return {
        layer.name: len(layer.input) for layer in student.layers if isinstance(layer, layers.Add)
    }


@pytest.mark.parametrize("shared", [False, True])
def test_what_a_sum_holds_is_not_added_again(shared):
    """Without conv1 its output is the stem's, which the sum before relu2 holds already."""
    teacher, builder = added_behind_a_sum([layers.Conv2D(4, 1, name="other")] if shared else ())
    student = builder.build(ActionSet.of(["conv1"], skips=[("conv1", "relu2")]))
    plain = builder.build(ActionSet.of(["conv1"]))
    assert sums_of(student) == sums_of(plain)
    examples = examples_for(teacher)
    np.testing.assert_array_equal(student(examples), plain(examples))


def test_a_sum_that_nothing_else_uses_takes_what_is_added():
    teacher, builder = added_behind_a_sum()
    student = builder.build(ActionSet.of(skips=[("conv1", "relu2"), ("relu1", "relu2")]))
    assert sums_of(student) == {"add": 4}

    def forward(get, x):
        stem = get("stem")(x)
        hidden = get("conv1")(stem)
        active = get("relu1")(hidden)
        return get("top")(get("relu2")(get("conv2")(active) + stem + hidden + active))

    copy = builder.build(ActionSet())
    inputs = keras.Input((8, 8, 3))
    assert_equal_models(student, keras.Model(inputs, forward(copy.get_layer, inputs)))
    assert_equal_models(copy, teacher)


def test_a_sum_that_others_use_stays_as_it_is():
    _, builder = added_behind_a_sum([layers.Conv2D(4, 1, name="other")])
    student = builder.build(ActionSet.of(skips=[("conv1", "relu2")]))
    assert sums_of(student) == {"add": 2, "relu2_skip": 2, "end": 2}

    copy = builder.build(ActionSet())
    inputs = keras.Input((8, 8, 3))
    stem = copy.get_layer("stem")(inputs)
    hidden = copy.get_layer("conv1")(stem)
    total = copy.get_layer("conv2")(copy.get_layer("relu1")(hidden)) + stem
    end = copy.get_layer("relu2")(total + hidden) + copy.get_layer("other")(total)
    assert_equal_models(student, keras.Model(inputs, copy.get_layer("top")(end)))


def test_a_sum_that_another_skip_connection_adds_stays_as_it_is():
    """Without relu2 what it stands for, the sum, is added to conv4's input too."""
    inputs = keras.Input((8, 8, 3))
    stem = layers.Conv2D(4, 3, padding="same", name="stem")(inputs)
    total = layers.Add(name="add")([layers.Conv2D(4, 1, name="conv1")(stem), stem])
    hidden = layers.ReLU(name="relu2")(total)
    for number in (3, 4):
        hidden = layers.Conv2D(4, 1, name=f"conv{number}")(hidden)
    teacher = small_models.randomize(keras.Model(inputs, layers.Conv2D(2, 1, name="top")(hidden)))
    builder = StudentBuilder(teacher, analyse(teacher, "dependency"))
    actions = ActionSet.of(["relu2"], skips=[("conv1", "conv3"), ("relu2", "conv4")])
    student = builder.build(actions)
    # conv1 is in the sum already, so nothing is added in front of conv3.
    assert sums_of(student) == {"add": 2, "conv4_skip": 2}
    stem = teacher.get_layer("stem")(inputs)
    total = teacher.get_layer("conv1")(stem) + stem
    last = teacher.get_layer("conv4")(teacher.get_layer("conv3")(total) + total)
    assert_equal_models(student, keras.Model(inputs, teacher.get_layer("top")(last)))


def test_a_sum_waits_for_what_is_added_to_it():
    """The teacher sums before it calls the layer whose output is added."""
    inputs = keras.Input((8,))
    stem = layers.Dense(8, name="stem")(inputs)
    total = layers.Add(name="add")([stem, layers.Dense(8, name="a")(stem)])
    late = layers.Dense(8, name="late")(stem)
    end = layers.Multiply(name="end")([total, layers.ReLU(name="relu")(late)])
    teacher = small_models.randomize(keras.Model(inputs, layers.Dense(2, name="top")(end)))
    graph = analyse(teacher)
    called = [call.layer for call in graph.architecture.calls]
    assert called.index("add") < called.index("late") < called.index("end")
    student = StudentBuilder(teacher, graph).build(ActionSet.of(skips=[("late", "end")]))
    assert sums_of(student) == {"add": 3}
    stem = teacher.get_layer("stem")(inputs)
    late = teacher.get_layer("late")(stem)
    total = teacher.get_layer("a")(stem) + stem + late
    end = teacher.get_layer("top")(total * teacher.get_layer("relu")(late))
    assert_equal_models(student, keras.Model(inputs, end))


def test_an_op_that_adds_two_is_followed_by_a_sum():
    inputs = keras.Input((8,))
    stem = layers.Dense(8, name="stem")(inputs)
    hidden = layers.Dense(8, name="a")(stem)
    total = layers.Dense(8, name="b")(layers.ReLU(name="r")(hidden)) + stem
    teacher = keras.Model(inputs, layers.Dense(2, name="top")(layers.ReLU(name="relu")(total)))
    builder = StudentBuilder(small_models.randomize(teacher), analyse(teacher))
    student = builder.build(ActionSet.of(skips=[("a", "relu")]))
    assert sums_of(student) == {"relu_skip": 2}
    again = builder.build(ActionSet.of(["a"], skips=[("a", "relu")]))
    assert sums_of(again) == {}


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
        (ActionSet.of(["bn1"], skips=[("stem", "bn1")]), "'stem' to 'bn1': the latter is removed"),
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
