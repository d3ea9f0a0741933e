"""Channel dependencies: what can go alone, together, or not at all."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import small_models
from small_models import MODELS, TEACHERS, graph_of

from esnac_tf.errors import UserError
from esnac_tf.graph.teacher import analyse
from esnac_tf.graph.widths import WidthTable

layers = keras.layers


def shrinkable(name):
    return {group.width: group.name for group in graph_of(name, "dependency").width_groups}


def widths(name):
    return sorted(group.width for group in graph_of(name, "dependency").width_groups)


@pytest.mark.parametrize("name", [*TEACHERS, *MODELS])
def test_groups_partition_the_slots(name):
    channels = graph_of(name, "dependency").channels
    slots = [slot for group in channels.groups for slot in group.slots.tolist()]
    assert sorted(slots) == list(range(len(slots)))
    for index, group in enumerate(channels.groups):
        assert (channels.group_of_slot[group.slots] == index).all()
        parts = [group.fixed, *(bundles.reshape(-1) for bundles in group.bundles)]
        assert sorted(np.concatenate(parts).tolist()) == sorted(group.slots.tolist())
        assert group.width == len(group.slots)


@pytest.mark.parametrize("name", [*TEACHERS, *MODELS])
def test_width_groups_of_both_modes_have_the_same_members(name):
    by_width, by_dependency = graph_of(name, "width"), graph_of(name, "dependency")
    members = [sorted(m for group in graph.width_groups for m in group.members)
               for graph in (by_width, by_dependency)]  # fmt: skip
    assert members[0] == members[1]
    for graph in (by_width, by_dependency):
        names = [group.name for group in graph.width_groups]
        assert len(set(names)) == len(names)
        for group in graph.width_groups:
            assert group.width in {graph.channels.groups[m].width for m in group.members}
    for group in by_dependency.width_groups:
        assert [by_dependency.channels.groups[m].width for m in group.members] == [group.width]


@pytest.mark.parametrize("name", [*TEACHERS, *MODELS])
def test_inputs_and_outputs_of_the_network_are_in_no_group(name):
    graph = graph_of(name, "dependency")
    free = {m for group in graph.width_groups for m in group.members}
    for reference in (
        *graph.architecture.input_references,
        *graph.architecture.output_references,
    ):
        assert not free & graph.channels.groups_of(graph.channels.labels[reference])


def test_operands_of_a_sum_are_one_group():
    graph = graph_of("residual", "dependency")
    assert [(group.name, group.width) for group in graph.width_groups] == [
        ("stem", 6),
        ("conv2", 8),
    ]


def test_parts_of_a_concatenation_are_groups_of_their_own():
    assert widths("concatenated") == [4, 5, 6]


def test_a_gate_is_tied_to_what_it_scales_and_its_bottleneck_is_free():
    assert widths("squeeze_excite") == [4, 8]


def test_depthwise_convolutions_of_both_kinds_make_no_group():
    assert widths("depthwise") == [6]


def test_a_shared_layer_is_one_group():
    assert widths("shared_layer") == [6]
    assert widths("shared_by_input_and_hidden") == [8]  # its own input is the network's


def test_what_fixes_or_compares_channels_pins_them():
    assert set(shrinkable("frozen_noise").values()) == {"free"}


def test_channels_around_a_layer_that_is_not_known_are_kept():
    assert widths("subclassed_part") == []
    assert widths("local_custom_layer") == []


def test_attention_has_heads_and_sizes_that_are_in_no_tensor():
    graph = graph_of("vision_transformer", "dependency")
    groups = {group.name: group.width for group in graph.width_groups}
    assert groups == {
        "patches": 8,
        **{f"attention{number}/heads": 2 for number in range(2)},
        **{f"attention{number}/key_size": 4 for number in range(2)},
        **{f"attention{number}/value_size": 4 for number in range(2)},
        "expand0": 16,
        "expand1": 16,
    }
    assert {"attention0", "attention1"} <= {graph.nodes[index].name for index in graph.removals}


def test_recurrent_units_are_channels():
    assert widths("text_classifier") == [6, 6, 8, 9]  # of `both` one of each direction goes
    assert widths("time_series") == [4, 5, 6]


def test_channels_that_a_reshape_spreads_over_positions_are_kept():
    assert widths("decoder") == [5]


def test_a_grouped_convolution_keeps_equally_many_channels_of_each_block():
    inputs = keras.Input((4, 4, 3))
    hidden = layers.Conv2D(12, 1, name="before")(inputs)
    hidden = layers.Conv2D(8, 3, groups=4, name="grouped")(hidden)
    graph = analyse(keras.Model(inputs, layers.Conv2D(2, 1)(hidden)), "dependency")
    groups = {group.name: group for group in graph.channels.groups}
    assert groups["before"].bundles[0].shape == (3, 4)
    assert groups["grouped"].bundles[0].shape == (2, 4)


@pytest.mark.parametrize(("groups", "bundles"), [(3, (4, 3)), (1, (12, 1)), (-1, (12, 1))])
def test_group_normalization_keeps_equally_many_channels_of_each_block(groups, bundles):
    inputs = keras.Input((4, 4, 3))
    hidden = layers.GroupNormalization(groups)(layers.Conv2D(12, 1, name="before")(inputs))
    graph = analyse(keras.Model(inputs, layers.Conv2D(2, 1)(hidden)), "dependency")
    assert graph.channels.groups[0].bundles[0].shape == bundles


def test_both_directions_keep_equally_many_units():
    graph = graph_of("text_classifier", "dependency")
    groups = {group.name: group for group in graph.channels.groups}
    assert groups["both"].bundles[0].shape == (4, 2)


def test_softmax_in_between_pins_its_channels():
    inputs = keras.Input((4,))
    hidden = layers.Softmax()(layers.Dense(6)(inputs))
    hidden = layers.Activation("log_softmax")(layers.Dense(7)(hidden))
    hidden = layers.Dense(8, activation="relu")(hidden)
    graph = analyse(keras.Model(inputs, layers.Dense(2)(hidden)), "dependency")
    assert [group.width for group in graph.width_groups] == [8]


def test_lengths_that_are_not_known_fit_nothing():
    inputs = keras.Input((None, None, 3))
    hidden = layers.Conv2D(6, 3, padding="same", name="stem")(inputs)
    half = layers.Conv2D(6, 3, strides=2, padding="same", name="half")(hidden)
    graph = analyse(keras.Model(inputs, layers.Conv2D(2, 1)(half)))
    assert not graph.removals
    assert not graph.skip_pairs
    assert [group.width for group in graph.width_groups] == [6]


def bottleneck(trunk=12, inner=4):
    """A stem of the inner width, then two bottleneck blocks, the first with a projection."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(inner, 1, name="stem")(inputs)
    for block in range(2):
        shortcut = x if block else layers.Conv2D(trunk, 1, name="shortcut")(x)
        y = layers.Conv2D(inner, 1, activation="relu", name=f"reduce{block}")(x)
        y = layers.Conv2D(inner, 3, padding="same", name=f"inside{block}")(y)
        x = layers.Add()([layers.Conv2D(trunk, 1, name=f"expand{block}")(y), shortcut])
    outputs = layers.Dense(2, name="top")(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, outputs)


def members_by_name(graph):
    return {
        group.name: {graph.channels.groups[member].name for member in group.members}
        for group in graph.width_groups
    }


def test_what_is_inside_a_residual_block_follows_it():
    graph = analyse(bottleneck())
    assert members_by_name(graph) == {
        "4": {"stem"},
        "12": {"expand0", "reduce0", "inside0", "reduce1", "inside1"},
    }


def test_by_dependency_nothing_follows():
    graph = analyse(bottleneck(), "dependency")
    assert {len(members) for members in members_by_name(graph).values()} == {1}


def convolution(x, width, name):
    return layers.Conv2D(width, 3, padding="same", activation="relu", name=name)(x)


def resnet9(widths=(8, 16, 24, 32)):
    """Plain convolutions, of which the second and the fourth lead into a residual block."""
    inputs = keras.Input((8, 8, 3))
    x = inputs
    for index, width in enumerate(widths):
        x = convolution(x, width, f"plain{width}")
        if index in (1, 3):
            y = convolution(x, width, f"block{width}_conv1")
            x = layers.Add()([x, convolution(y, width, f"block{width}_conv2")])
    outputs = layers.Dense(2, name="top")(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, outputs)


def test_plain_layers_before_a_residual_block_do_not_follow_it():
    assert members_by_name(analyse(resnet9())) == {
        "8": {"plain8"},
        "16": {"plain16", "block16_conv1"},
        "24": {"plain24"},
        "32": {"plain32", "block32_conv1"},
    }


def test_a_plain_chain_that_ends_in_a_residual_block_does_not_follow_it():
    inputs = keras.Input((8, 8, 3))
    x = inputs
    for width in (4, 5, 6):
        x = convolution(x, width, f"plain{width}")
    y = convolution(x, 7, "inside1")
    x = layers.Add()([x, convolution(convolution(y, 3, "inside2"), 6, "last")])
    graph = analyse(keras.Model(inputs, layers.Conv2D(2, 1)(x)))
    assert members_by_name(graph) == {
        "4": {"plain4"},
        "5": {"plain5"},
        "6": {"plain6", "inside1", "inside2"},
    }


def squeeze_and_excite(x, width, name):
    y = layers.GlobalAveragePooling2D(keepdims=True)(x)
    y = layers.Conv2D(width, 1, activation="relu", name=f"{name}_squeeze")(y)
    gate = layers.Conv2D(x.shape[-1], 1, activation="sigmoid", name=f"{name}_excite")(y)
    return layers.Multiply()([x, gate])


def test_a_gate_inside_a_residual_block_follows_it_with_what_it_scales():
    inputs = keras.Input((8, 8, 3))
    x = squeeze_and_excite(convolution(inputs, 10, "stem"), 5, "stem")
    x = convolution(x, 6, "trunk")
    y = squeeze_and_excite(convolution(x, 18, "expand"), 4, "expand")
    x = layers.Add()([x, convolution(y, 6, "project")])
    graph = analyse(keras.Model(inputs, layers.Conv2D(2, 1)(x)))
    assert members_by_name(graph) == {
        "5": {"stem_squeeze"},
        "6": {"trunk", "expand", "expand_squeeze"},
        "10": {"stem"},
    }


def test_ways_that_meet_without_a_fork_are_no_block():
    inputs = [keras.Input((8, 8, 3)) for _ in range(2)]
    ways = [convolution(convolution(x, 4 + i, f"first{i}"), 6, f"last{i}")
            for i, x in enumerate(inputs)]  # fmt: skip
    graph = analyse(keras.Model(inputs, layers.Conv2D(2, 1)(layers.Add()(ways))))
    assert members_by_name(graph) == {"4": {"first0"}, "5": {"first1"}, "6": {"last0"}}


def test_what_leads_to_two_groups_follows_none():
    inputs = keras.Input((4, 4, 3))
    x = layers.Conv2D(6, 1, name="stem")(inputs)
    y = layers.Conv2D(5, 1, name="inner")(x)
    sums = [layers.Add()([layers.Conv2D(8, 1)(y), layers.Conv2D(8, 1)(x)]) for _ in range(2)]
    for ends, members in ((sums, {"inner"}), ([sums[0], y], {"inner"}), (sums[:1], None)):
        graph = analyse(keras.Model(inputs, [layers.Conv2D(1, 1)(end) for end in ends]))
        assert members_by_name(graph).get("5") == members


def test_what_follows_shrinks_in_proportion():
    graph = analyse(bottleneck())
    given, made = WidthTable(graph).node_widths(np.array([[4, 12], [1, 6], [3, 1]]))
    outputs = {
        name: made[:, graph.position[name]].tolist() for name in ("stem", "reduce0", "expand1")
    }
    assert outputs == {"stem": [4, 1, 3], "reduce0": [4, 2, 1], "expand1": [12, 6, 1]}
    assert given[:, graph.position["reduce0"]].tolist() == [4, 1, 3]


def test_actions_that_would_join_groups_of_two_ratios_are_not_offered():
    """The stem and the first block's inside are both 4 wide, but not by the same ratio."""
    model = bottleneck()
    by_width, by_dependency = analyse(model), analyse(model, "dependency")
    assert by_dependency.position["reduce0"] in by_dependency.removals
    assert by_width.position["reduce0"] not in by_width.removals
    assert by_width.position["inside0"] in by_width.removals
    assert ("stem", "inside0") in by_dependency.skip_pair_of
    assert ("stem", "inside0") not in by_width.skip_pair_of


def test_channel_groups_that_are_not_known():
    with pytest.raises(UserError, match="width, dependency"):
        analyse(small_models.model("residual"), "luck")
