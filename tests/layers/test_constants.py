"""Arrays among the arguments of a call: their entries go with the channels that they meet."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import keras
import numpy as np
import pytest
from small_models import examples_for, randomize, run

from esnac_tf.architecture import ActionSet, Constant
from esnac_tf.graph.cost import count_params
from esnac_tf.graph.parsing import parse
from esnac_tf.graph.teacher import analyse
from esnac_tf.graph.widths import ParameterTable
from esnac_tf.search_space.space import SearchSpace
from esnac_tf.student import StudentBuilder
from layers.test_removed_channels import assert_not_missed, draw_widths, few

layers, ops = keras.layers, keras.ops


def array(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def tensor(*shape):
    return ops.convert_to_tensor(array(*shape))


def positions(hidden):
    """The position embedding of a vision transformer: an Embedding called on numbers."""
    return hidden + layers.Embedding(5, 8)(ops.arange(5))


# On channels [B, 5, 8].
FOLLOWING = {
    "embedding": positions,
    "array": lambda x: x + array(5, 8),
    "array_first": lambda x: ops.subtract(array(8), x),
    "tensor": lambda x: x * tensor(1, 5, 8),
    "variable": lambda x: x + keras.Variable(array(1, 1, 8)),
    "one_for_all_channels": lambda x: x + array(5, 1),
    "one_for_all": lambda x: x * tensor(1, 1, 1),
    "broadcast_over_positions": lambda x: x[:, :1] + array(5, 8),
    "chosen": lambda x: ops.where(array(5, 8) > 0, x, array(8)),
    "compared": lambda x: x * ops.cast(x > array(8), "float32"),
    "number": lambda x: x * ops.convert_to_tensor(2.0),
    "in_a_layer_for_all_positions": lambda x: layers.Multiply()([x, tensor(1, 8)]),
    "in_a_layer": lambda x: layers.Add()([x, tensor(1, 5, 8)]),
    "in_a_sum_of_three": lambda x: layers.Add()([x, layers.Dense(8)(x), array(1, 5, 8)]),
    "by_name": lambda x: ops.add(x1=x, x2=array(8)),
    "across": lambda x: ops.transpose(ops.transpose(x, (0, 2, 1)) + array(8, 1), (0, 2, 1)),
    "flattened": lambda x: layers.Flatten()(x) * array(40),
    "not_floats": lambda x: ops.where(np.arange(8) > 3, x, 0.0),
}

# Here the channels are kept.
KEEPING = {
    "attention": lambda x: layers.Attention()([x, tensor(1, 5, 8)]),
    "concatenated": lambda x: ops.concatenate([x, tensor(1, 5, 8)], axis=1),
    "concatenated_channels": lambda x: layers.Concatenate()([x, tensor(1, 5, 8)]),
    "dot": lambda x: layers.Dot(2)([x, tensor(1, 5, 8)]),
    "matrix": lambda x: ops.matmul(x, array(8, 8)),
    "parts": lambda x: ops.reshape(ops.reshape(x, (-1, 5, 2, 4)) + array(2, 4), (-1, 5, 8)),
    "one_for_each_example_in_a_layer": lambda x: layers.Add()([x, array(2, 8)]),
    "one_more_axis": lambda x: x[:, 0] + array(1, 1, 8),
    "one_for_each_example": lambda x: x + array(2, 5, 8),
    "stacked": lambda x: ops.mean(ops.stack([x, tensor(1, 5, 8)], axis=1), axis=1),
}


def network(function):
    inputs = keras.Input((5, 4))
    hidden = function(layers.Dense(8, name="before")(inputs))
    return randomize(keras.Model(inputs, layers.Dense(3, name="after")(hidden)))


def constants(model):
    return [constant for call in parse(model).calls for constant in call.constants]


@pytest.mark.parametrize("name", FOLLOWING)
def test_nothing_done_gives_the_same_outputs(name):
    teacher = network(FOLLOWING[name])
    student = StudentBuilder(teacher, analyse(teacher)).build(ActionSet())
    examples = examples_for(teacher)
    np.testing.assert_array_equal(run(student, examples), run(teacher, examples))
    assert constants(student) == constants(teacher)


@pytest.mark.parametrize("name", FOLLOWING)
@few
@hypothesis.given(data=st.data())
def test_removed_channels_are_not_missed(name, data):
    teacher = network(FOLLOWING[name])
    graph = analyse(teacher, "dependency")
    assert "before" in [group.name for group in graph.width_groups]
    assert_not_missed(teacher, graph, draw_widths(data, graph))


@pytest.mark.parametrize("name", FOLLOWING)
def test_random_students_build_run_and_reload(name, tmp_path):
    teacher = network(FOLLOWING[name])
    graph = analyse(teacher)
    space, table = SearchSpace(graph), ParameterTable(graph, teacher)
    candidates = space.sample(3, np.random.default_rng(0))
    examples = examples_for(teacher)
    for actions, count in zip(
        space.to_actions(candidates), table.count(candidates.removed, candidates.widths),
        strict=True,
    ):  # fmt: skip
        student = StudentBuilder(teacher, graph).build(actions)
        assert count_params(student) == count
        student.save(tmp_path / "student.keras")
        loaded = keras.saving.load_model(tmp_path / "student.keras")
        np.testing.assert_array_equal(run(loaded, examples), run(student, examples))


@pytest.mark.parametrize("name", KEEPING)
def test_channels_are_kept(name):
    graph = analyse(network(KEEPING[name]))
    assert not graph.width_groups
    for reference, labels in graph.channels.labels.items():
        assert labels.ndim == len(graph.architecture.shapes[reference]) - 1


# A layer that creates channels of what it is given: these can shrink.
CREATING = {
    "initial_state": lambda x: layers.GRU(8)(x, initial_state=array(2, 8)),
    "initial_states": lambda x: layers.ConvLSTM1D(8, 1)(
        x[:, None], initial_state=[array(2, 5, 8), array(2, 5, 8)]
    ),
    "mask": lambda x: layers.MultiHeadAttention(2, 3)(x, x, attention_mask=array(1, 5, 5) > 0),
    "value": lambda x: layers.MultiHeadAttention(2, 3)(x, tensor(2, 7, 6)),
    "value_and_key": lambda x: layers.GroupQueryAttention(3, 4, 2)(x, tensor(2, 7, 8)),
}


@pytest.mark.parametrize("name", CREATING)
def test_layers_that_create_channels_take_arrays_whole(name):
    teacher = network(CREATING[name])
    graph = analyse(teacher, "dependency")
    examples = examples_for(teacher)
    student = StudentBuilder(teacher, graph).build(ActionSet())
    np.testing.assert_array_equal(run(student, examples), run(teacher, examples))
    widths = {group.name: 1 for group in graph.width_groups}
    assert constants(assert_not_missed(teacher, graph, widths)) == constants(teacher)


def test_entries_of_the_channels_that_stay():
    teacher = network(positions)
    (codes,) = constants(teacher)
    teacher.get_layer("before").kernel.assign(np.diag([1, 9, 1, 1, 9, 1, 9, 1])[:4] + 1.0)
    teacher.get_layer("before").bias.assign(np.zeros(8))
    builder = StudentBuilder(teacher, analyse(teacher))
    actions = ActionSet.of(widths={"8": 3})
    (student_codes,) = constants(builder.build(actions))
    kept = builder.kept_slots(actions)[:8]
    assert kept.sum() == 3
    assert student_codes == Constant(codes.values[:, kept], is_tensor=True)


def test_a_sum_with_an_array_keeps_it_when_a_connection_is_added():
    """Only a sum of tensors alone may take more, or become one of its terms."""
    teacher = network(FOLLOWING["in_a_sum_of_three"])
    graph = analyse(teacher)
    removable = [graph.nodes[index].name for index in graph.removals]
    (dense,) = (name for name in removable if name.startswith("dense"))
    student = StudentBuilder(teacher, graph).build(ActionSet.of(removed=[dense]))
    assert len(constants(student)) == 1


def test_equal_arrays_are_equal_constants():
    assert Constant(array(3)) == Constant(array(3))
    assert hash(Constant(array(3))) == hash(Constant(array(3)))
    for other in (Constant(array(3), is_tensor=True), Constant(array(3) + 1), array(3),
                  Constant(array(3).astype("float64")), Constant(array(3)[None])):  # fmt: skip
        assert Constant(array(3)) != other


class PositionEmbedding(layers.Layer):
    """Somebody's own layer: nothing is known of its weights."""

    def build(self, shape):
        self.codes = self.add_weight(shape=shape[1:])

    def call(self, inputs):
        return inputs + self.codes


def test_a_position_embedding_of_ones_own_keeps_the_channels():
    teacher = network(PositionEmbedding(name="positions"))
    graph = analyse(teacher, "dependency")
    assert not graph.width_groups
    student = StudentBuilder(teacher, graph).build(ActionSet())
    examples = examples_for(teacher)
    np.testing.assert_array_equal(run(student, examples), run(teacher, examples))
