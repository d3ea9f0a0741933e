"""Reading Keras graphs, and what is no graph."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import small_models
from small_models import MODELS, SubclassedPart

from esnac_tf.architecture import TensorReference, map_references
from esnac_tf.errors import InfeasibleStudentError, UserError
from esnac_tf.graph.building import build
from esnac_tf.graph.parsing import named_layers, parse


@pytest.mark.parametrize("name", list(MODELS))
def test_calls_are_in_topological_order_and_every_tensor_has_a_shape(name):
    architecture = parse(small_models.model(name))
    known = set()
    for call in architecture.calls:
        assert known.issuperset(call.inputs)
        known.update(architecture.outputs_of(call))
    assert set(architecture.shapes) == known
    assert known.issuperset(architecture.output_references)


@pytest.mark.parametrize("name", list(MODELS))
def test_a_built_architecture_reads_as_itself(name):
    model = small_models.model(name)
    architecture = parse(model)
    again = parse(build(architecture, named_layers(model)))
    # Identity layers have the names of nested models that are outputs.
    named = {
        call.layer: call.inputs[0] for call in again.calls if call.layer not in architecture.layers
    }
    assert named.keys() <= set(architecture.output_names)
    assert tuple(call for call in again.calls if call.layer not in named) == architecture.calls
    assert {key: shape for key, shape in again.shapes.items() if key.layer not in named} == (
        architecture.shapes
    )
    assert again.inputs == architecture.inputs
    outputs = map_references(lambda output: named.get(output.layer, output), again.outputs)
    assert outputs == architecture.outputs
    assert again.layers.keys() - named.keys() == architecture.layers.keys()
    assert set(architecture.output_names) <= set(again.output_names)


def test_shapes_of_outputs_in_a_dict_whose_keys_are_not_sorted():
    inputs = keras.Input((4,))
    outputs = {
        "z": keras.layers.Dense(3, name="three")(inputs),
        "a": keras.layers.Dense(5, name="five")(inputs),
    }
    architecture = parse(keras.Model(inputs, outputs))
    assert architecture.shapes[TensorReference("three")] == (None, 3)
    assert architecture.shapes[TensorReference("five")] == (None, 5)
    assert list(architecture.outputs) == ["z", "a"]


def test_calls_in_other_models_are_left_out():
    architecture = parse(small_models.model("shared_layer"))
    calls = [call.call for call in architecture.calls if call.layer == "shared"]
    assert calls == [0, 1]


def test_a_model_of_inner_layers():
    inputs = keras.Input((8, 8, 3))
    hidden = keras.layers.Conv2D(4, 3)(inputs)
    output = keras.layers.Flatten()(hidden)
    part = keras.Model(hidden, output)
    assert [call.layer for call in parse(part).calls][1:] == [part.layers[-1].name]


def test_an_input_that_no_output_depends_on_is_kept():
    used, spare = keras.Input((4,), name="used"), keras.Input((2,), name="spare")
    model = keras.Model([used, spare], keras.layers.Dense(3)(used))
    architecture = parse(model)
    assert [reference.layer for reference in architecture.input_references] == ["used", "spare"]
    again = build(architecture, {layer.name: layer for layer in model.operations})
    examples = [np.ones((1, 4), np.float32), np.ones((1, 2), np.float32)]
    assert again(examples).shape == (1, 3)


class Scale(keras.layers.Layer):
    """A layer whose arguments Keras can't guess."""

    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function

    def call(self, inputs):
        return self.function(inputs)


def without_config(nested=False):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, Scale(lambda x: 2 * x, name="scale")(inputs), name="inner")
    return keras.Model(inputs, model(inputs)) if nested else model


class Forgetful(keras.layers.Layer):
    """A layer whose `get_config` fails."""

    def call(self, inputs):
        return inputs

    def get_config(self):
        return {"factor": self.factor}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: keras.Sequential([keras.Input((4,)), Forgetful(name="forgetful")]),
            r"layer 'forgetful' \(Forgetful\) .* configuration: AttributeError: .*'factor'\.\n",
        ),
        (without_config, r"layer 'scale' \(Scale\) .*\nGive its class a method get_config"),
        (lambda: without_config(nested=True), r"layer 'scale' \(Scale\)"),
        (
            lambda: keras.Sequential([keras.Input((4,)), Scale(lambda x: 2 * x, name="scale")]),
            r"layer 'scale' \(Scale\)",
        ),
        (SubclassedPart, "is not functional"),
        (lambda: keras.Sequential([keras.layers.Dense(3)]), "is not built"),
        (lambda: keras.layers.Dense(3), "Expected a keras.Model as the teacher, received Dense"),
        (lambda: "resnet18", "received str"),
        (lambda: None, "received NoneType"),
    ],
)
def test_what_is_no_graph_is_told_in_two_lines(make, message):
    with pytest.raises(UserError, match=message) as error:
        parse(make())
    assert len(str(error.value).splitlines()) == 2


def test_a_subclass_that_is_functional_is_read():
    class Named(keras.Model):
        pass

    inputs = keras.Input((4,))
    model = Named(inputs, keras.layers.Dense(3)(inputs))
    assert len(parse(model).calls) == 2


def test_what_keras_refuses_is_infeasible_and_told_in_one_line():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Reshape((2, 2), name="fold")(inputs))
    architecture = parse(model)
    layers = dict(architecture.layers)
    layers["fold"] = layers["fold"].replace(target_shape=(3, 2))
    broken = type(architecture)(**{**vars(architecture), "layers": layers})
    with pytest.raises(InfeasibleStudentError, match="layer 'fold'") as error:
        build(broken, {layer.name: layer for layer in model.operations})
    assert len(str(error.value).splitlines()) == 1


def test_keras_layers_are_built_without_a_template():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    assert build(parse(model), {}).output_shape == (None, 3)
