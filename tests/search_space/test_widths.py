"""Widths rounded to a multiple: drawn, changed and settled so, and so in the students built."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import small_models

from esnac_tf.errors import InfeasibleStudentError
from esnac_tf.graph.cost import count_params
from esnac_tf.graph.teacher import analyse
from esnac_tf.graph.widths import ParameterTable
from esnac_tf.search_space.space import SearchSpace
from esnac_tf.search_space.widths import AllowedWidths
from esnac_tf.student import StudentBuilder

layers = keras.layers


def widths_made(model):
    """How many channels each layer with weights of its own makes."""
    return {
        layer.name: getattr(layer, "filters", None) or layer.units
        for layer in model.layers
        if isinstance(layer, (layers.Conv2D, layers.Dense))
        and not isinstance(layer, layers.DepthwiseConv2D)
    }


def bottlenecks():
    """Residual blocks whose inside is half as wide, channels that are no multiple, a narrow one."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(20, 3, padding="same", name="stem")(inputs)
    x = layers.Conv2D(32, 1, name="widen")(x)
    for block in ("one", "two"):
        inside = layers.Conv2D(16, 1, name=f"{block}_a")(x)
        inside = layers.DepthwiseConv2D(3, padding="same", name=f"{block}_b")(inside)
        x = layers.Add()([x, layers.Conv2D(32, 1, name=f"{block}_c")(inside)])
    x = layers.Conv2D(6, 1, name="narrow")(x)
    return keras.Model(inputs, layers.Dense(3, name="top")(layers.Flatten()(x)))


MAKERS = {
    "bottlenecks": bottlenecks,
    "resnet18": lambda: small_models.teachers.build("resnet18(width=16)", (8, 8, 3), 5),
    "vgg16": lambda: small_models.teachers.build("vgg16(width=12)", (32, 32, 3), 5),
    "shufflenet": lambda: small_models.teachers.build("shufflenet(width=80)", (8, 8, 3), 5),
}


@pytest.mark.parametrize("mode", small_models.MODES)
@pytest.mark.parametrize("name", MAKERS)
def test_every_layer_of_every_student_has_a_round_width_or_its_own(name, mode):
    model = MAKERS[name]()
    full = widths_made(model)
    graph = analyse(model, mode)
    space, builder = SearchSpace(graph, round_channels_to=8), StudentBuilder(model, graph)
    table = ParameterTable(graph, model)
    generator = np.random.default_rng(0)
    drawn = space.sample(6, generator)
    candidates = [drawn, space.mutate(space.mutate(drawn, generator), generator)]
    seen = set()
    for group in candidates:
        counted = table.count(group.removed, group.widths)
        for actions, expected in zip(space.to_actions(group), counted, strict=True):
            try:
                student = builder.build(actions)
            except InfeasibleStudentError:
                continue
            assert count_params(student) == expected
            for layer, width in widths_made(student).items():
                if full[layer] >= 8:
                    assert width % 8 == 0 or width == full[layer], (layer, width)
                seen.add(width)
    assert len(seen) > 3


@pytest.mark.parametrize("mode", small_models.MODES)
def test_settling_keeps_round_widths(mode):
    model = bottlenecks()
    space = SearchSpace(analyse(model, mode), round_channels_to=8)
    candidates = space.sample(300, np.random.default_rng(1))
    for _ in range(3):
        candidates = space.mutate(candidates, np.random.default_rng(2))
        np.testing.assert_array_equal(space._widths.nearest(candidates.widths), candidates.widths)
        settled = space.settle(candidates)
        np.testing.assert_array_equal(settled.widths, candidates.widths)


def test_the_inside_of_a_block_is_round_too():
    allowed = AllowedWidths(analyse(bottlenecks()), np.ones(3, np.int64), 8)
    assert allowed.full.tolist() == [6, 20, 32]
    found = [
        {
            int(allowed.nearest(np.array([[w, w, w]]).clip(max=allowed.full))[0, group])
            for w in range(33)
        }
        for group in range(3)
    ]
    # 6 is below 8; 20 has 8, 16 and itself; of 32 a half must be round, too.
    assert found == [{1, 2, 3, 4, 5, 6}, {8, 16, 20}, {16, 32}]
    assert allowed.counts.tolist() == [6, 3, 2]


def test_a_multiple_of_one_allows_all():
    graph = analyse(bottlenecks())
    one, none = SearchSpace(graph, round_channels_to=1), SearchSpace(graph)
    first, second = (space.sample(50, np.random.default_rng(3)) for space in (one, none))
    np.testing.assert_array_equal(first.widths, second.widths)
    assert one.log10_size == none.log10_size
    assert SearchSpace(graph, round_channels_to=8).log10_size < none.log10_size


def test_a_group_without_a_round_width_keeps_its_own():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2)(layers.Dense(8)(inputs)))
    space = SearchSpace(analyse(model), round_channels_to=8)
    generator = np.random.default_rng(0)
    drawn = space.sample(20, generator)
    assert (space.mutate(drawn, generator).widths == 8).all()
    assert (drawn.widths == 8).all()


def test_joined_groups_are_allowed_the_same():
    inputs = keras.Input((4,))
    hidden = inputs
    for name in "abc":
        hidden = layers.Dense(32, name=name)(hidden)
    graph = analyse(keras.Model(inputs, layers.Dense(2)(hidden)), "dependency")
    # a and b are allowed what both are; c what it is by itself.
    allowed = AllowedWidths(graph, np.array([1, 10, 1]), 8, [(0, 1)])
    assert allowed.counts.tolist() == [3, 3, 4]
    assert allowed.nearest(np.array([[1, 1, 1]])).tolist() == [[16, 16, 8]]


def test_heads_of_attention_are_not_rounded():
    inputs = keras.Input((5, 16))
    hidden = keras.layers.MultiHeadAttention(4, 8, name="attention")(inputs, inputs)
    graph = analyse(keras.Model(inputs, keras.layers.Dense(2)(hidden)), "dependency")
    space = SearchSpace(graph, round_channels_to=8)
    widths = space.sample(200, np.random.default_rng(0)).widths
    heads = [group.name for group in graph.width_groups].index("attention/heads")
    assert set(widths[:, heads].tolist()) == {1, 2, 3}  # (1 - r) 4, rounded down
