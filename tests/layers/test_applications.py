"""Layers that keras.applications keeps for its own networks."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import keras
import numpy as np
import pytest
from small_models import examples_for, randomize, run

from esnac_tf.architecture import ActionSet, LayerConfig
from esnac_tf.graph.parsing import parse
from esnac_tf.graph.teacher import analyse
from esnac_tf.layers import handler_of
from esnac_tf.student import StudentBuilder
from layers.test_layer_contract import HANDLERS
from layers.test_removed_channels import assert_not_missed, draw_widths, few

layers = keras.layers


def is_application_layer(cls):
    parts = cls.__module__.split(".")
    return parts[0] == "keras" and "applications" in parts


# None of them is public, so they are found as what they are: layers, in a package of Keras.
CLASSES = {cls.__name__: cls for cls in layers.Layer.__subclasses__() if is_application_layer(cls)}
NAMES = [(name, handler) for handler in HANDLERS for name in handler.application_names]


def scaled(hidden):
    """Two of them: Keras numbers weights that were given no name."""
    hidden = layers.ReLU()(CLASSES["LayerScale"](0.1, 8, name="first")(hidden))
    return CLASSES["LayerScale"](0.1, 8, name="second")(layers.Dense(8)(hidden))


NETWORKS = {
    "CustomScaleLayer": lambda x: CLASSES["CustomScaleLayer"](0.2)([x, layers.Dense(8)(x)]),
    "LayerScale": scaled,
    "StochasticDepth": lambda x: CLASSES["StochasticDepth"](0.1)(x),
}


def network(name):
    inputs = keras.Input((6, 6, 3))
    hidden = NETWORKS[name](layers.Conv2D(8, 3, name="before")(inputs))
    return randomize(keras.Model(inputs, layers.Dense(3, name="after")(hidden)))


def test_every_layer_of_the_applications_is_handled():
    """One that is new in Keras fails here until somebody has thought about it."""
    assert set(CLASSES) == {name for name, _ in NAMES} == set(NETWORKS)
    assert len(NAMES) == len(CLASSES)


@pytest.mark.parametrize(("name", "handler"), NAMES)
def test_they_are_found_in_keras_applications_only(name, handler):
    module = CLASSES[name].__module__
    assert type(handler_of(LayerConfig("x", name, module, {}))) is handler
    for other in ("keras.layers", "keras.ops", "my.applications.convnext", "kerasapplications"):
        assert not handler_of(LayerConfig("x", name, other, {})).is_known


@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_done_gives_the_same_outputs(name):
    teacher = network(name)
    student = StudentBuilder(teacher, analyse(teacher)).build(ActionSet())
    examples = examples_for(teacher)
    np.testing.assert_array_equal(run(student, examples), run(teacher, examples))


@pytest.mark.parametrize("name", NETWORKS)
@few
@hypothesis.given(data=st.data())
def test_removed_channels_are_not_missed(name, data):
    teacher = network(name)
    graph = analyse(teacher, "dependency")
    assert graph.width_groups
    assert_not_missed(teacher, graph, draw_widths(data, graph))


@pytest.mark.parametrize("name", NETWORKS)
def test_students_load_where_nothing_is_registered(name, tmp_path):
    teacher = network(name)
    student = StudentBuilder(teacher, analyse(teacher)).build(ActionSet.of(widths={"8": 3}))
    student.save(tmp_path / "student.keras")
    loaded = keras.saving.load_model(tmp_path / "student.keras")
    examples = examples_for(teacher)
    np.testing.assert_array_equal(run(loaded, examples), run(student, examples))


def test_a_layer_scale_has_the_width_of_what_it_scales():
    teacher = network("LayerScale")
    graph = analyse(teacher, "dependency")
    teacher.get_layer("first").weights[0].assign([1, 2, 3, 9, 5, 6, 7, 8])
    student = StudentBuilder(teacher, graph, "first").build(ActionSet.of(widths={"before": 3}))
    layer = student.get_layer("first")
    assert layer.get_config()["projection_dim"] == 3
    np.testing.assert_array_equal(layer.weights[0], [1, 2, 3])
    assert student.get_layer("second").get_config()["projection_dim"] == 8


def test_large_scales_make_channels_important():
    teacher = network("LayerScale")
    teacher.get_layer("first").weights[0].assign([0, 0, 9, 0, 0, 9, 0, 9])
    kept = StudentBuilder(teacher, analyse(teacher, "dependency")).kept_slots(
        ActionSet.of(widths={"before": 3})
    )
    assert np.flatnonzero(kept[:8]).tolist() == [2, 5, 7]


def test_somebody_elses_layer_scale_is_unknown():
    class LayerScale(layers.Layer):
        """Its scale goes with the order of the channels."""

        def __init__(self, init_values=1.0, projection_dim=8, **options):
            super().__init__(**options)
            self.init_values, self.projection_dim = init_values, projection_dim

        def build(self, shape):
            self.gamma = self.add_weight(shape=(self.projection_dim,))

        def call(self, inputs):
            return inputs[..., ::-1] * self.gamma

        def get_config(self):
            own = {"init_values": self.init_values, "projection_dim": self.projection_dim}
            return {**super().get_config(), **own}

    inputs = keras.Input((4,))
    hidden = LayerScale(name="custom")(layers.Dense(8)(inputs))
    model = keras.Model(inputs, layers.Dense(2)(hidden))
    assert not handler_of(parse(model).layers["custom"]).is_known
    assert not analyse(model).width_groups


def test_all_of_a_convnext_can_shrink_but_its_classes():
    graph = analyse(keras.applications.ConvNeXtTiny(weights=None, classes=2), "dependency")
    fixed = [group.name for group in graph.channels.groups if not group.is_shrinkable]
    assert fixed == ["convnext_tiny_head_dense"]
