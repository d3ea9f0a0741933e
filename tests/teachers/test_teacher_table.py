"""The teachers as the paper's reference builds and parses them."""

from __future__ import annotations

import functools
from collections import Counter

import keras
import numpy as np
import pytest

from esnac_tf import teachers
from esnac_tf.architecture import CHANNEL_GROUPS
from esnac_tf.graph.cost import count_params
from esnac_tf.graph.teacher import analyse, skip_pairs
from esnac_tf.graph.widths import ParameterTable, WidthTable
from esnac_tf.search_space.space import SearchSpace

# name: layers, edges, parameters for 10 and for 100 classes, removable, skip pairs, and for
# each width the numbers of layer inputs and of layer outputs in its group.
TABLE = {
    "vgg16": (46, 45, 14_728_266, 14_774_436, 35, 192,
              {64: (7, 7), 128: (7, 7), 256: (10, 10), 512: (21, 21)}),
    "vgg19": (55, 54, 20_040_522, 20_086_692, 44, 294,
              {64: (7, 7), 128: (7, 7), 256: (13, 13), 512: (27, 27)}),
    "resnet18": (60, 67, 11_173_962, 11_220_132, 50, 465,
                 {64: (16, 15), 128: (14, 14), 256: (14, 14), 512: (15, 16)}),
    "resnet34": (108, 123, 21_282_122, 21_328_292, 98, 1605,
                 {64: (22, 21), 128: (26, 26), 256: (38, 38), 512: (21, 22)}),
    "shufflenet": (159, 174, 987_870, 1_059_960, 114, 2028, None),  # stages: see below
}  # fmt: skip


# The last layer of the trunk of ShuffleNet's stem and of each of its stages, and its width.
TRUNKS = {
    "stem_relu": 24,
    "stage1_block4_relu3": 200,
    "stage2_block8_relu3": 400,
    "stage3_block4_relu3": 800,
}


@functools.cache
def teacher(name, num_classes=10):
    return teachers.build(name, (32, 32, 3), num_classes)


@functools.cache
def graph_of(name, mode="width"):
    return analyse(teacher(name), mode)


def trunk_of(graph, layer):
    """The number of the one channel group of a layer's output."""
    output = graph.nodes[graph.position[layer]].output
    (index,) = graph.channels.groups_of(graph.channels.labels[output])
    return index


def test_every_teacher_is_in_the_table():
    assert sorted(TABLE) == teachers.names()


@pytest.mark.parametrize("name", TABLE)
def test_row_of_the_table(name):
    layers, edges, params_10, params_100, removable, pairs, groups = TABLE[name]
    nodes = graph_of(name).nodes
    assert len(nodes) == layers
    assert sum(len(node.predecessors) for node in nodes) == edges
    assert count_params(teacher(name)) == params_10
    assert count_params(teacher(name, 100)) == params_100
    assert sum(node.is_removable for node in nodes) == removable
    assert len(list(skip_pairs(nodes))) == pairs
    if groups is not None:
        given = [node.input_shape[-1] for node in nodes]
        made = [node.output_shape[-1] for node in nodes]
        assert {width: (given.count(width), made.count(width)) for width in groups} == groups
        assert_width_groups(name, list(groups))
        assert sorted(graph_of(name).removals) == [
            index for index, node in enumerate(nodes) if node.is_removable
        ]


def assert_width_groups(name, widths):
    """In "width" mode a group of each width, of all channel groups that are so wide."""
    graph = graph_of(name)
    assert [(group.name, group.width) for group in graph.width_groups] == [
        (str(width), width) for width in widths
    ]
    for group in graph.width_groups:
        assert set(group.members) == {
            index
            for index, channels in enumerate(graph.channels.groups)
            if channels.is_shrinkable and len(channels.slots) == group.width
        }


@pytest.mark.parametrize("name", ["vgg16", "vgg19", "resnet18", "resnet34"])
def test_all_inputs_and_outputs_of_a_width_are_in_its_group(name):
    """All that the table counts: so all but the first layer's input and the classifier's output."""
    graph = graph_of(name)
    width_of = {index: group.width for group in graph.width_groups for index in group.members}
    tensors = [(node.inputs[0], node.input_shape[-1]) for node in graph.nodes]
    tensors += [(node.output, node.output_shape[-1]) for node in graph.nodes]
    counts = Counter()
    for tensor, width in tensors:
        members = graph.channels.groups_of(graph.channels.labels[tensor])
        searched = [width_of[index] for index in members if index in width_of]
        assert searched == ([width] if width in TABLE[name][-1] else [])
        counts.update(searched)
    assert counts == {width: sum(ends) for width, ends in TABLE[name][-1].items()}


def test_width_groups_of_shufflenet_are_its_stages():
    """24 / 200 / 400 / 800: what is inside a block follows its stage; of the stem nothing does."""
    graph = graph_of("shufflenet")
    assert [(group.name, group.width) for group in graph.width_groups] == [
        (str(width), width) for width in TRUNKS.values()
    ]
    widths_of = {}
    for stage, (group, layer) in enumerate(zip(graph.width_groups, TRUNKS, strict=True)):
        assert trunk_of(graph, layer) in group.members
        widths_of[stage] = Counter(graph.channels.groups[member].width for member in group.members)
        for member in set(group.members) - {trunk_of(graph, layer)}:
            assert graph.channels.groups[member].name.startswith(f"stage{stage}_block")
    # A block's inside has a quarter of the channels that its last convolution gives.
    assert widths_of == {
        0: {24: 1},
        1: {200: 1, (200 - 24) // 4: 1, 200 // 4: 3},
        2: {400: 1, (400 - 200) // 4: 1, 400 // 4: 7},
        3: {800: 1, (800 - 400) // 4: 1, 800 // 4: 3},
    }


def test_a_ratio_of_shufflenet_is_that_of_all_its_stage():
    graph = graph_of("shufflenet")
    _, made = WidthTable(graph).node_widths(np.array([[12, 100, 40, 800], [2, 20, 40, 80]]))
    outputs = {node.name: made[0, index] for index, node in enumerate(graph.nodes)}
    assert outputs["stem_conv"] == 12
    assert outputs["stage1_block2_conv1"] == 24  # 13 + 12 pairs, half of each, rounded down
    assert outputs["stage1_block2_conv3"] == 100
    assert outputs["stage2_block2_conv1"] == 8  # twice 25 pairs, a tenth of each
    assert outputs["stage2_block2_conv3"] == 40
    assert outputs["stage3_block4_conv1"] == 200
    # What follows is rounded down again: 4 of 50 are less than a tenth.
    assert made[1, graph.position["stage1_block2_conv1"]] == 4


@pytest.mark.parametrize("name", TABLE)
def test_skip_pairs_of_the_search_are_the_tables_without_those_that_are_connected(name):
    graph = graph_of(name)
    offered = {(pair.source, pair.target) for pair in graph.skip_pairs}
    connected = {
        (source, target) for target, node in enumerate(graph.nodes) for source in node.predecessors
    }
    assert offered <= set(skip_pairs(graph.nodes)) - connected
    if name != "shufflenet":  # of which some lead from one channel pattern to another
        assert offered == set(skip_pairs(graph.nodes)) - connected


def test_skip_pairs_of_shufflenet_that_one_ratio_leaves():
    """The numbers in docs/architecture.md and in the recipes."""
    offered = {mode: len(graph_of("shufflenet", mode).skip_pairs) for mode in CHANNEL_GROUPS}
    assert offered == {"width": 1578, "dependency": 1818}


def test_trunks_of_shufflenet_are_channel_groups():
    """By dependency; held: the trunk of each stage is one group, 24 / 200 / 400 / 800 wide."""
    graph = graph_of("shufflenet", "dependency")
    searched = {member for group in graph.width_groups for member in group.members}
    for layer, width in TRUNKS.items():
        trunk = trunk_of(graph, layer)
        group = graph.channels.groups[trunk]
        assert len(group.slots) == group.width == width
        assert group.is_shrinkable
        assert trunk in searched


@pytest.mark.parametrize("mode", ["width", "dependency"])
def test_shortcuts_of_shufflenet_are_never_removed(mode):
    graph = graph_of("shufflenet", mode)
    by_shape = {index for index, node in enumerate(graph.nodes) if node.is_removable}
    assert len(by_shape) == 114
    assert len(graph.removals) == 111
    assert {graph.nodes[index].name for index in by_shape - set(graph.removals)} == {
        f"stage{stage}_block1_shortcut_conv" for stage in (1, 2, 3)
    }


def test_shuffled_and_grouped_channels_of_shufflenet_stay_even():
    graph = graph_of("shufflenet", "dependency")
    space = SearchSpace(graph)
    widths = space.sample(200, np.random.default_rng(0)).widths
    given, made = WidthTable(graph).node_widths(widths)
    for index, node in enumerate(graph.nodes):
        if node.kind == "convolution" and node.attributes[3] == 2:
            assert not (given[:, index] % 2).any()
            assert not (made[:, index] % 2).any()
        if node.kind == "reshaping" and "shuffle" in node.name:
            assert not (given[:, index] % 2).any()


@pytest.mark.parametrize(
    ("name", "mean", "low", "high"),
    [("resnet18", 0.80, 0.55, 0.96), ("resnet34", 0.84, 0.66, 0.98), ("vgg19", 0.83, 0.55, 0.99)],
)
def test_random_students_compress_as_the_papers(name, mean, low, high):
    graph = graph_of(name)
    space, table = SearchSpace(graph), ParameterTable(graph, teacher(name))
    candidates = space.sample(2000, np.random.default_rng(0))
    full = table.count(space.teacher().removed, space.teacher().widths)
    assert full == count_params(teacher(name))
    compression = 1 - table.count(candidates.removed, candidates.widths) / full
    assert compression.mean() == pytest.approx(mean, abs=0.05)
    assert np.percentile(compression, 10) == pytest.approx(low, abs=0.06)
    assert np.percentile(compression, 90) == pytest.approx(high, abs=0.05)


@pytest.mark.parametrize(
    ("spec", "picture", "pooled"),
    [
        ("resnet18(width=8)", (8, 8, 3), 64),
        ("resnet34(width=4)", (28, 28, 1), 32),
        ("resnet18(width=4)", (64, 64, 3), 2 * 2 * 32),
        ("shufflenet(width=40)", (8, 8, 3), 160),
        ("shufflenet(width=32)", (28, 28, 1), 128),
        ("vgg16(width=4)", (32, 32, 1), 32),
        ("vgg19(width=4)", (64, 64, 3), 2 * 2 * 32),
    ],
)
def test_widths_and_pictures(spec, picture, pooled):
    model = teachers.build(spec, picture, 7)
    assert model.input_shape == (None, *picture)
    assert model.output_shape == (None, 7)
    assert model.get_layer("flatten").output.shape == (None, pooled)


def test_normalization_is_a_layer_of_the_teacher():
    model = teachers.build("resnet18(width=4)", (8, 8, 3), 3, ([0.1, 0.2, 0.3], [0.5, 0.6, 0.7]))
    layer = model.get_layer("normalize")
    pictures = np.random.default_rng(0).random((2, 8, 8, 3), np.float32)
    expected = (pictures - [0.1, 0.2, 0.3]) / [0.5, 0.6, 0.7]
    np.testing.assert_allclose(layer(pictures), expected, rtol=1e-5, atol=1e-6)
    plain = teachers.build("resnet18(width=4)", (8, 8, 3), 3)
    assert count_params(model) == count_params(plain)
    assert len(analyse(model).nodes) == len(analyse(plain).nodes) == 60
    assert isinstance(model, keras.Model)
