"""Protected layers: whatever is drawn, they stay as they are."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest
import small_models

from esnac_tf.architecture import ActionSet
from esnac_tf.errors import InfeasibleStudentError, UserError
from esnac_tf.graph.parsing import parse
from esnac_tf.graph.teacher import analyse
from esnac_tf.search_space.space import SearchSpace
from esnac_tf.student import StudentBuilder

layers = keras.layers


def residual(width=8):
    """a -> [b -> c] + a -> d -> logits"""
    inputs = keras.Input((6,), name="x")
    a = layers.Dense(width, name="a")(inputs)
    c = layers.Dense(width, name="c")(layers.Dense(width, name="b")(a))
    total = layers.Add(name="total")([a, c])
    d = layers.Dense(width, name="d")(total)
    return keras.Model(inputs, layers.Dense(3, name="logits")(d), name="residual")


def students(model, protect, mode, count=12):
    """Students of what is drawn and of what is changed in it."""
    graph = analyse(model, mode, protect)
    space, builder = SearchSpace(graph), StudentBuilder(model, graph)
    generator = np.random.default_rng(0)
    drawn = space.sample(count, generator)
    for actions in space.to_actions(drawn) + space.to_actions(space.mutate(drawn, generator)):
        try:
            yield builder.build(actions)
        except InfeasibleStudentError:
            continue


def shapes(layer):
    return [tuple(weight.shape) for weight in layer.weights]


@pytest.mark.parametrize("mode", small_models.MODES)
@pytest.mark.parametrize("protect", ["^b$", "a|d", "total", "logits"])
def test_protected_layers_stay_as_they_are(mode, protect):
    model = residual()
    names = {"^b$": ["b"], "a|d": ["a", "d", "total"], "total": ["total"]}.get(protect, [protect])
    built = list(students(model, protect, mode))
    assert len(built) == 24
    for student in built:
        for name in names:
            kept, teacher = student.get_layer(name), model.get_layer(name)
            assert kept.get_config() == teacher.get_config()
            assert shapes(kept) == shapes(teacher)
    assert min(student.count_params() for student in built) < model.count_params()


@pytest.mark.parametrize("name", ["resnet18", "shufflenet"])
@pytest.mark.parametrize("protect", ["stage2_block1_", "conv1$"])
def test_of_networks_too(name, protect):
    model = small_models.teacher(name)
    wanted = [layer for layer in model.layers if re.search(protect, layer.name)]
    assert wanted
    for student in students(model, protect, "width", count=3):
        for layer in wanted:
            assert shapes(student.get_layer(layer.name)) == shapes(layer)
            assert student.get_layer(layer.name).get_config() == layer.get_config()


def test_what_is_fixed_and_what_is_not():
    graph = analyse(residual(), "dependency", "^b$")
    assert [group.name for group in graph.width_groups] == ["d"]
    assert all("b" not in pair for pair in graph.skip_pair_of)
    assert graph.position["b"] not in graph.removals
    # c would go only if its input were as wide as its output: both are fixed now.
    assert graph.position["c"] in graph.removals
    everything = analyse(residual(), "dependency")
    assert {group.name for group in everything.width_groups} == {"a", "b", "d"}


def test_a_protected_sum_keeps_its_terms():
    graph = analyse(residual(), "dependency", "total")
    assert graph.position["b"] in analyse(residual(), "dependency").removals
    assert graph.position["c"] not in graph.removals
    inputs = keras.Input((4,))
    a, b, c = (layers.Dense(4, name=name)(inputs) for name in "abc")
    inner = layers.Add(name="inner")([layers.Dense(4, name="before")(a), b])
    outer = layers.Add(name="outer")([inner, c])
    graph = analyse(keras.Model(inputs, layers.Dense(2)(outer)), "dependency", "outer")
    assert {graph.nodes[index].name for index in graph.removals} <= {"a"}


def test_an_empty_expression_protects_nothing():
    graphs = [analyse(residual(), "width"), analyse(residual(), "width", "")]
    assert graphs[0].removals == graphs[1].removals
    assert graphs[0].skip_pairs == graphs[1].skip_pairs
    assert graphs[0].width_groups == graphs[1].width_groups


def test_the_name_of_a_nested_model_stands_for_all_that_is_in_it():
    model = small_models.transfer_learning()
    graph = analyse(model, "dependency", "^backbone$")
    in_backbone = {
        name for name, layer in graph.architecture.layers.items() if layer.models == ("backbone",)
    }
    assert {"backbone_conv1", "bn1", "backbone_conv2", "bn2"} <= in_backbone
    assert not {"conv1", "conv2"} & in_backbone
    removable = {graph.nodes[index].name for index in graph.removals}
    assert not removable & in_backbone
    assert [group.width for group in graph.width_groups] == [8]


def test_models_in_models_are_told_from_the_outermost():
    architecture = parse(small_models.nested_deeply())
    paths = {layer.models for layer in architecture.layers.values()}
    assert {(), ("middle",), ("middle", "cell")} == paths


def test_an_expression_without_a_layer_is_told():
    with pytest.raises(UserError) as caught:
        analyse(residual(), protect="conv")
    assert str(caught.value) == (
        "protect='conv' matches no layer of 'residual'.\n"
        "Its layers are x, a, b, c, total, d, logits."
    )


def test_nothing_that_is_left_is_told():
    with pytest.raises(UserError, match=r"^protect='\.' leaves nothing of 'residual'.*\n"):
        analyse(residual(), protect=".")


def test_actions_on_protected_layers_are_refused():
    model = residual()
    builder = StudentBuilder(model, analyse(model, "dependency", "d"))
    for actions in (
        ActionSet.of(["d"]),
        ActionSet.of(widths={"d": 4}),
        ActionSet.of(skips=[("a", "d")]),
    ):
        with pytest.raises(UserError):
            builder.build(actions)
