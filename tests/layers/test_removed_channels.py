"""What is missed of a channel whose outgoing weights are zero: nothing.

It holds for every layer but those whose mean runs over the channels: LayerNormalization,
GroupNormalization and RMSNormalization divide by what all channels of a position have in common,
so without a channel the others change, whatever its outgoing weights are.
"""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import keras
import numpy as np
import pytest
from small_models import examples_for, randomize, run

from esnac_tf.architecture import ActionSet
from esnac_tf.graph.building import build
from esnac_tf.graph.parsing import named_layers
from esnac_tf.graph.teacher import analyse
from esnac_tf.layers import handler_of
from esnac_tf.layers.weights import axes_of, weight_key
from esnac_tf.student import StudentBuilder
from layers.layer_examples import is_preprocessing, model
from layers.test_layer_contract import EXAMPLES

layers = keras.layers

MEANS_OVER_CHANNELS = ("GroupNormalization", "LayerNormalization", "RMSNormalization")
# Here channels meet in products or norms, not in weights: they must be zero themselves.
WITHOUT_WEIGHTS = ("AdditiveAttention", "Attention", "Dot", "UnitNormalization")

few = hypothesis.settings(
    max_examples=2, deadline=None, derandomize=True, phases=[hypothesis.Phase.generate]
)


def assert_not_missed(teacher, graph, widths, what="outgoing"):
    """The student equals the teacher in which weights of the dropped channels are zero."""
    examples = examples_for(teacher)
    kept = StudentBuilder(teacher, graph, "first").kept_slots(ActionSet.of(widths=widths))
    copy = build(graph.architecture, named_layers(teacher))
    copy.set_weights(teacher.get_weights())
    for name, layer in named_layers(copy).items():
        for weight in getattr(layer, "weights", ()):
            weight.assign(zeroed(graph, name, weight, ~kept, what))
    student = StudentBuilder(copy, graph, "first").build(ActionSet.of(widths=widths))
    assert all(np.abs(output).max() > 1e-3 for output in run(copy, examples))
    for expected, received in zip(run(copy, examples), run(student, examples), strict=True):
        np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-5)
    return student


def zeroed(graph, name, weight, dropped, what):
    """A weight in which the entries of dropped channels are zero."""
    config, values = graph.architecture.layers[name], np.asarray(weight).copy()
    known, roles = handler_of(config).weight_axes(config), graph.channels.roles.get(name, {})
    consumed = graph.channels.consumed_roles.get(name, {})
    axes, key = axes_of(known, weight), weight_key(known, weight)
    for number, axis in enumerate(axes):
        if axis is None or axis.role not in roles or values.shape[number] == 1:
            continue
        again = any(later is not None and later.role == axis.role for later in axes[number + 1 :])
        outgoing = axis.role in consumed or again or goes_out_inside(key, axis.role)
        if what == "outgoing" and not outgoing:
            continue
        entries = np.tile(np.repeat(dropped[roles[axis.role]], axis.repeat), axis.blocks)
        if axis.groups == 1:
            np.moveaxis(values, number, 0)[entries] = 0
        else:  # each block of outputs has the inputs of its own block
            blocks = zip(np.split(values, axis.groups, -1), np.split(entries, axis.groups),
                         strict=True)  # fmt: skip
            for block, going in blocks:
                block[..., going, :] = 0
    return values


def goes_out_inside(key, role):
    """Whether heads and sizes, which never leave an attention layer, end in this weight."""
    return (
        key.startswith("attention_output/") and role in ("heads", "value_size", "head_size")
    ) or (key.startswith("query/") and role in ("key_size", "head_size"))


def draw_widths(data, graph):
    return {group.name: data.draw(st.integers(1, group.width)) for group in graph.width_groups}


@pytest.mark.parametrize(
    "name",
    [name for name in EXAMPLES if not is_preprocessing(name) and name not in MEANS_OVER_CHANNELS],
)
@few
@hypothesis.given(data=st.data())
def test_removed_channels_are_not_missed(name, data):
    teacher = randomize(keras.models.clone_model(model(name)))
    graph = analyse(teacher, "dependency")
    what = "all" if name in WITHOUT_WEIGHTS else "outgoing"
    assert_not_missed(teacher, graph, draw_widths(data, graph), what)


@pytest.mark.parametrize(
    "name", [name for name in EXAMPLES if not is_preprocessing(name) and name != "Dot"]
)
def test_channels_go_from_a_sum_only_where_they_are_zero(name):
    before = keras.models.clone_model(model(name))
    inside = before.get_layer("after").input
    total = keras.ops.sum(inside, axis=-1, keepdims=True)
    teacher = randomize(keras.Model(before.input, layers.Dense(3)(total)))
    graph = analyse(teacher, "dependency")
    assert_not_missed(teacher, graph, {group.name: 2 for group in graph.width_groups}, "all")


@pytest.mark.parametrize("name", MEANS_OVER_CHANNELS)
def test_a_mean_over_channels_misses_them(name):
    teacher = randomize(keras.models.clone_model(model(name)))
    graph = analyse(teacher, "dependency")
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_not_missed(teacher, graph, {"before": 3})


@pytest.mark.parametrize("name", MEANS_OVER_CHANNELS)
def test_whole_widths_of_normalizations_give_equal_outputs(name):
    teacher = randomize(keras.models.clone_model(model(name)))
    graph = analyse(teacher, "dependency")
    widths = {group.name: group.width for group in graph.width_groups}
    student = StudentBuilder(teacher, graph).build(ActionSet.of(widths=widths))
    examples = examples_for(teacher)
    np.testing.assert_array_equal(student(examples), teacher(examples))


def sequence(make):
    """A model of sequences: what `make` does between two dense layers."""

    def model():
        inputs = keras.Input((6, 4))
        hidden = make(layers.Dense(8, name="before")(inputs))
        return keras.Model(inputs, layers.Dense(3, name="after")(hidden))

    return model


def picture(make):
    def model():
        inputs = keras.Input((6, 6, 3))
        hidden = make(layers.Conv2D(8, 3, name="before", activation="relu")(inputs))
        return keras.Model(inputs, layers.Dense(3, name="after")(hidden))

    return model


def states(hidden):
    hidden, *given = layers.LSTM(5, return_sequences=True, return_state=True)(hidden)
    return layers.LSTM(5, go_backwards=True)(hidden, initial_state=given)


def both_states(hidden):
    wrapped = layers.LSTM(5, return_sequences=True, return_state=True)
    hidden, *given = layers.Bidirectional(wrapped)(hidden)
    return layers.Bidirectional(layers.LSTM(5))(hidden, initial_state=given)


def separate(hidden):
    return layers.Concatenate()(layers.Bidirectional(layers.GRU(5), merge_mode=None)(hidden))


def attention_block(hidden):
    """A block of a transformer without its normalizations."""
    attention = layers.MultiHeadAttention(4, 6, value_dim=5, output_shape=8, use_gate=True)
    hidden = hidden + attention(hidden, hidden, use_causal_mask=True)
    dense = layers.Dense(12, activation="gelu")(hidden)
    return layers.Add()([hidden, layers.Dense(8)(dense)])


def cross_attention(hidden):
    query = layers.Dense(7)(hidden)
    attention = layers.MultiHeadAttention(3, 4)
    return attention(key=layers.Dense(5)(hidden), value=hidden, query=query)


def scores(hidden):
    output, given = layers.MultiHeadAttention(3, 4)(hidden, hidden, return_attention_scores=True)
    return output * keras.ops.mean(keras.ops.mean(given, axis=1), axis=-1, keepdims=True)


def mixer(hidden):
    """Positions are mixed for each channel alone."""
    mixed = layers.Permute((2, 1))(layers.Dense(6)(layers.Permute((2, 1))(hidden)))
    return layers.Add()([hidden, mixed])


BETWEEN = {
    "both_states": sequence(both_states),
    "states": sequence(states),
    "separate": sequence(separate),
    "attention_block": sequence(attention_block),
    "cross_attention": sequence(cross_attention),
    "scores": sequence(scores),
    "mixer": sequence(mixer),
    "simple": sequence(layers.SimpleRNN(5, use_bias=False)),
    "gru_reset_before": sequence(layers.GRU(5, reset_after=False)),
    **{
        f"bidirectional_{mode}": sequence(
            layers.Bidirectional(layers.GRU(5, return_sequences=True), merge_mode=mode)
        )
        for mode in ("sum", "mul", "ave")
    },
    "grouped_query": sequence(
        lambda x: x + layers.GroupQueryAttention(4, 6, 3, use_gate=True)(x, x)
    ),
    "time_distributed_norm": sequence(layers.TimeDistributed(layers.BatchNormalization())),
    "instance_normalization": picture(layers.GroupNormalization(-1)),
    "einsum_middle": picture(layers.EinsumDense("abcd,de->abce", (None, None, 5), bias_axes="e")),
    "prelu_shared": picture(layers.PReLU(shared_axes=[1, 2])),
    "prelu_of_all": picture(layers.PReLU(shared_axes=[1, 2, 3])),
    "grouped": picture(layers.Conv2D(8, 3, groups=4)),
    "depthwise_multiplied": picture(layers.DepthwiseConv2D(3, depth_multiplier=2)),
    "split": picture(lambda x: layers.Concatenate()(keras.ops.split(x, 2, axis=-1)[::-1])),
    "split_at": picture(lambda x: layers.Concatenate()(keras.ops.split(x, [3, 5], axis=-1))),
    "flattened": picture(lambda x: layers.BatchNormalization()(layers.Flatten()(x))),
}


@pytest.mark.parametrize("name", BETWEEN)
@few
@hypothesis.given(data=st.data())
def test_removed_channels_are_not_missed_in_networks(name, data):
    teacher = randomize(BETWEEN[name]())
    graph = analyse(teacher, "dependency")
    assert graph.width_groups
    assert_not_missed(teacher, graph, draw_widths(data, graph))
