"""One contract for all layer handlers, found as the package finds them."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import keras
import numpy as np
import pytest

import esnac_tf.layers
from esnac_tf.architecture import LayerConfig
from esnac_tf.graph.parsing import parse
from esnac_tf.graph.teacher import analyse
from esnac_tf.layers import LayerHandler, handler_of
from esnac_tf.layers.handler import KINDS, UnknownLayer, expand_axes, weight_name

layers = keras.layers
MODULES = [
    importlib.import_module(f"esnac_tf.layers.{module.name}")
    for module in pkgutil.iter_modules(esnac_tf.layers.__path__)
]
HANDLERS = [
    member
    for module in MODULES
    for _, member in inspect.getmembers(module, inspect.isclass)
    if issubclass(member, LayerHandler) and member.__module__ == module.__name__
]
LAYERS = [(name, handler) for handler in HANDLERS for name in handler.class_names]
OPERATIONS = [(name, handler) for handler in HANDLERS for name in handler.operation_names]

# What a layer can't be made without; every other layer is made with no argument.
ARGUMENTS = {
    "Activation": {"activation": "relu"},
    "CenterCrop": {"height": 4, "width": 4},
    "Dense": {"units": 6},
    "Normalization": {"mean": 0.0, "variance": 1.0},
    "Permute": {"dims": (2, 1, 3)},
    "RandomBrightness": {"factor": 0.2},
    "RandomContrast": {"factor": 0.2},
    "RandomCrop": {"height": 4, "width": 4},
    "RandomRotation": {"factor": 0.2},
    "RandomTranslation": {"height_factor": 0.2, "width_factor": 0.2},
    "RandomZoom": {"height_factor": 0.2},
    "Rescaling": {"scale": 0.5},
    "Reshape": {"target_shape": (4, 16, 4)},
    "Resizing": {"height": 4, "width": 4},
}
RATED = ("AlphaDropout", "Dropout", "GaussianDropout", "GaussianNoise", "SpatialDropout")


def small_layer(name):
    """A layer of a class, and the shape of an input for it."""
    cls = getattr(layers, name)
    arguments = dict(ARGUMENTS.get(name, {}))
    if name.startswith(RATED):
        arguments = {"stddev": 0.1} if name == "GaussianNoise" else {"rate": 0.1}
    if "Conv" in name:
        arguments = {"kernel_size": 3, "depth_multiplier": 2} if "Depthwise" in name else {
            "filters": 6,
            "kernel_size": 3,
        }  # fmt: skip
        if "Separable" in name:
            arguments["depth_multiplier"] = 2
    if name.startswith(("MaxPooling", "AveragePooling")):
        arguments = {"pool_size": 2}
    rank = next((int(digit) for digit in name if digit in "123"), 2)
    return cls(**arguments), (*[8] * rank, 4)


def small_model(name):
    layer, shape = small_layer(name)
    several = "Merge" in {base.__name__ for base in type(layer).__mro__} or name in (
        "Add", "Average", "Concatenate", "Maximum", "Minimum", "Multiply", "Subtract",
    )  # fmt: skip
    inputs = [keras.Input(shape), keras.Input(shape)] if several else keras.Input(shape)
    return keras.Model(inputs, layer(inputs)), layer


@pytest.mark.parametrize(("name", "handler"), LAYERS)
def test_layer_classes_exist(name, handler):
    assert issubclass(getattr(layers, name), layers.Layer)
    found = handler_of(LayerConfig("x", name, "keras.layers", {}))
    assert type(found) is handler
    assert found.is_known


@pytest.mark.parametrize(("name", "handler"), OPERATIONS)
def test_operations_are_found_in_keras_only(name, handler):
    for module in ("keras.ops", "keras.src.ops.numpy"):
        assert type(handler_of(LayerConfig("x", name, module, {}))) is handler
    for module in ("my_package.ops", "keras_hub.ops", "keras.operations"):
        assert not handler_of(LayerConfig("x", name, module, {})).is_known


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda x: x + 1.0, "Add"),
        (lambda x: x - 1.0, "Subtract"),
        (lambda x: x * 2.0, "Multiply"),
        (lambda x: x / 2.0, "TrueDivide"),
        (lambda x: keras.ops.divide(x, 2.0), "Divide"),
        (lambda x: keras.ops.maximum(x, 0.0), "Maximum"),
        (lambda x: keras.ops.minimum(x, 0.0), "Minimum"),
        (keras.ops.celu, "Celu"),
        (keras.ops.elu, "Elu"),
        (keras.ops.gelu, "Gelu"),
        (keras.ops.hard_sigmoid, "HardSigmoid"),
        (keras.ops.hard_silu, "HardSilu"),
        (keras.ops.hard_tanh, "HardTanh"),
        (keras.ops.leaky_relu, "LeakyRelu"),
        (keras.ops.relu, "Relu"),
        (keras.ops.relu6, "Relu6"),
        (keras.ops.selu, "Selu"),
        (keras.ops.sigmoid, "Sigmoid"),
        (keras.ops.silu, "Silu"),
        (keras.ops.softplus, "Softplus"),
        (keras.ops.softsign, "Softsign"),
        (keras.ops.tanh, "Tanh"),
    ],
)
def test_operations_let_channels_pass(function, name):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2)(function(layers.Dense(6)(inputs))))
    assert name in {layer.class_name for layer in parse(model).layers.values()}
    assert [group.width for group in analyse(model).width_groups] == [6]


def test_every_operation_is_tried():
    tried = test_operations_let_channels_pass.pytestmark[0].args[1]
    assert {name for _, name in tried} == {name for name, _ in OPERATIONS}


def test_no_class_is_handled_twice():
    for names in ([name for name, _ in LAYERS], [name for name, _ in OPERATIONS]):
        assert len(names) == len(set(names))


@pytest.mark.parametrize("handler", HANDLERS)
def test_kinds_and_names_are_well_formed(handler):
    assert handler.kind in KINDS
    assert handler.__doc__
    assert set(handler.statistics) <= set(handler.weight_axes) or handler.is_preprocessing


@pytest.mark.parametrize(("name", "handler"), LAYERS)
def test_weights_are_named_and_their_axes_are_as_told(name, handler):
    model, layer = small_model(name)
    given = model.inputs[0].shape[-1]
    made = model.outputs[0].shape[-1] if handler.weight_axes else None
    lengths = {"in": given, "out": made, "in_repeated": given * 2}
    for weight in layer.weights:
        weight_axes = handler.weight_axes.get(weight_name(weight))
        if handler.is_preprocessing:
            assert weight_axes is None
            continue
        axes = expand_axes(weight_axes, len(weight.shape))
        for role, length in zip(axes, weight.shape, strict=True):
            assert role is None or length == lengths[role]
    if layer.weights and not handler.is_preprocessing:
        assert {weight_name(weight) for weight in layer.weights} == set(handler.weight_axes)
        assert set(handler.statistics) == {
            weight_name(weight) for weight in layer.weights if not weight.trainable
        }


@pytest.mark.parametrize(("name", "handler"), LAYERS)
def test_handlers_bear_their_layer(name, handler):
    """Every layer is analysed; its attributes and multiply-adds are numbers."""
    model, layer = small_model(name)
    graph = analyse(model, "dependency")
    config = graph.architecture.layers[layer.name]
    attributes = handler().attributes(config)
    assert len(attributes) == 4
    assert np.isfinite(attributes).all()
    call = graph.architecture.calls[-1]
    shapes = [graph.architecture.shapes[reference] for reference in call.inputs]
    output_shape = graph.architecture.shapes[graph.architecture.outputs_of(call)[0]]
    assert handler().multiply_adds(config, shapes, output_shape) >= 0
    labels = graph.channels.labels[graph.architecture.outputs_of(call)[0]]
    assert len(labels.shape) == len(output_shape) - 1
    for length, axis in zip(labels.shape, output_shape[1:], strict=True):
        assert length in (1, axis)


def test_the_bases_handle_no_class_by_name():
    for handler in (LayerHandler, UnknownLayer):
        assert handler in HANDLERS  # the folder scan sees them, too
        assert not (*handler.class_names, *handler.operation_names)


@pytest.mark.parametrize("name", ["PReLU", "LayerNormalization", "LSTM", "EinsumDense"])
def test_layers_without_a_handler_are_unknown(name):
    handler = handler_of(LayerConfig("x", name, "keras.layers", {}))
    assert type(handler) is UnknownLayer
    assert not handler.is_known
    assert handler.kind == "other"


def test_a_custom_layer_with_the_name_of_a_keras_layer_is_unknown():
    class Dense(layers.Layer):
        def call(self, inputs):
            return inputs[..., ::-1]

    inputs = keras.Input((4,))
    hidden = Dense(name="custom")(layers.Dense(6)(inputs))
    graph = analyse(keras.Model(inputs, layers.Dense(2)(hidden)))
    assert not graph.width_groups
    assert not graph.removals
