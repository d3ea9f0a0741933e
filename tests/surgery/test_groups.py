"""What is told of channel groups is what surgery can do."""

from __future__ import annotations

import re

import keras
import pytest
import small_models
from small_models import MODELS, TEACHERS, graph_of

from esnac_tf import surgery
from esnac_tf.errors import UserError
from surgery.nets import net

layers = keras.layers


def groups_of(model):
    return {group.name: group for group in surgery.channel_groups(model)}


def test_who_makes_holds_and_takes_channels():
    groups = groups_of(net("residual"))
    assert list(groups) == ["stem", "conv2", "top"]
    stem = groups["stem"]
    assert stem.width == 6
    assert stem.made_by == ("stem", "conv1")
    assert set(stem.layers) == {"stem", "conv1", "bn1", "add1", "relu1"}
    assert set(stem.taken_by) == {"conv1", "conv2", "project"}
    assert stem.can_shrink
    assert groups["conv2"].taken_by == ("top",)


def test_through_concatenations_depthwise_convolutions_and_flatten():
    groups = groups_of(net("concatenated"))
    assert set(groups["first"].layers) == {"first", "relu", "joined", "norm"}
    assert groups["second"].taken_by == ("third",)
    group = groups_of(net("depthwise"))["conv"]
    assert (group.made_by, group.taken_by) == (("conv", "disguised"), ("disguised", "top"))
    assert groups_of(net("flattened"))["conv"].taken_by == ("hidden",)


@pytest.mark.parametrize("name", [*MODELS, *TEACHERS])
def test_what_can_shrink_is_what_a_search_shrinks(name):
    graph = graph_of(name, "dependency")
    told = surgery.channel_groups(small_models.model(name))
    expected = {group.name: group.width for group in graph.width_groups}
    assert {group.name: group.width for group in told if group.can_shrink} == expected
    for group in told:
        assert group.made_by[0] == group.name.partition("/")[0]
        assert set(group.made_by) <= set(group.layers)
        assert group.why_fixed is None or "\n" not in group.why_fixed


@pytest.mark.parametrize(
    ("name", "layer", "reason"),
    [
        ("frozen_noise", "noised", r"'dropout\S*' \(Dropout\) needs all of them"),
        ("frozen_noise", "compared", "the activation of 'compared' compares them"),
        ("several_inputs_and_ops", "sliced", "an output of the model"),
        ("several_inputs_and_ops", "first", "needs all of them"),
    ],
)
def test_reasons(name, layer, reason):
    model = MODELS[name]()
    (group,) = (group for group in surgery.channel_groups(model) if layer in group.made_by)
    assert re.search(reason, group.why_fixed)
    with pytest.raises(UserError, match=reason):
        surgery.set_width(model, layer, 1)


def test_reasons_of_single_channels_and_of_inputs():
    inputs = keras.Input((8,))
    narrow = layers.Dense(1, name="narrow")(inputs)
    total = layers.Add(name="sum")([layers.Dense(8, name="tied")(narrow), inputs])
    soft = layers.Softmax(name="soft")(layers.Dense(5, name="compared")(total))
    groups = groups_of(keras.Model(inputs, layers.Dense(2, name="top")(soft)))
    assert groups["narrow"].why_fixed == "there is one only"
    assert groups["tied"].why_fixed == "'sum' joins them with others that can't go"
    assert groups["compared"].why_fixed == "'soft' (Softmax) needs all of them"
    assert groups["top"].why_fixed == "they are an output of the model"


def test_one_bundle():
    inputs = keras.Input((3, 3, 3))
    hidden = layers.Conv2D(2, 1, name="conv")(inputs)
    hidden = layers.Conv2D(4, 1, groups=2, name="grouped")(hidden)
    groups = groups_of(keras.Model(inputs, layers.Conv2D(2, 1)(hidden)))
    assert groups["conv"].why_fixed == "they can only go all at once"


def test_a_sum_that_channels_may_go_from_is_not_blamed():
    inputs = keras.Input((4,))
    hidden = layers.Dense(6, name="hidden")(inputs)
    square = layers.Dot(axes=1, name="harmless")([hidden, hidden])
    root = keras.ops.norm(hidden, axis=1, keepdims=True)
    soft = layers.Softmax(name="soft")(hidden)
    model = keras.Model(inputs, [square, root, layers.Dense(2, name="top")(soft)])
    assert groups_of(model)["hidden"].why_fixed == "'soft' (Softmax) needs all of them"


def test_only_what_meets_fixed_channels_is_joined_with_them():
    inputs = keras.Input((4,))
    tied, free = layers.Dense(4, name="tied")(inputs), layers.Dense(3, name="free")(inputs)
    other = layers.Dense(3, name="other")(inputs)
    first, second = layers.Concatenate()([tied, free]), layers.Concatenate()([inputs, other])
    total = layers.Add(name="sum")([first, second])
    soft = layers.Softmax(name="soft")(free)
    groups = groups_of(keras.Model(inputs, layers.Dense(2)(layers.Concatenate()([total, soft]))))
    assert groups["tied"].why_fixed == "'sum' joins them with others that can't go"
    assert groups["free"].why_fixed == "'soft' (Softmax) needs all of them"


def test_an_activation_is_blamed_for_what_its_layer_makes():
    inputs = keras.Input((4, 4, 3))
    hidden = layers.Conv2D(6, 1, name="conv")(inputs)
    hidden = layers.Permute((3, 1, 2), name="moved")(hidden)
    hidden = layers.Conv2D(5, 1, activation="softmax", name="compared")(hidden)
    groups = groups_of(keras.Model(inputs, layers.Dense(2, name="top")(hidden)))
    assert groups["conv"].why_fixed == "'compared' (Conv2D) needs all of them"
    assert groups["compared"].why_fixed == "the activation of 'compared' compares them"


def test_a_layer_of_ones_own_joins_nothing():
    class Own(layers.Layer):
        def call(self, inputs):
            return inputs[0] + inputs[1]

    inputs = keras.Input((4,))
    own = Own(name="own")([layers.Dense(4, name="hidden")(inputs), inputs])
    groups = groups_of(keras.Model(inputs, layers.Dense(2)(own)))
    assert groups["hidden"].why_fixed == "'own' (Own) needs all of them"


def test_a_shared_layer_joins_what_its_calls_take():
    inputs = keras.Input((4,))
    shared = layers.Dense(4, name="shared")
    twice = shared(layers.Dense(4, name="hidden")(shared(inputs)))
    groups = groups_of(keras.Model(inputs, layers.Dense(2)(twice)))
    assert groups["hidden"].why_fixed == "'shared' joins them with others that can't go"
