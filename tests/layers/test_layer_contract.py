"""One contract for all layer handlers, and one for all layers of Keras."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_models import examples_for, run

import esnac_tf.layers
from esnac_tf.architecture import ActionSet, LayerConfig
from esnac_tf.graph.cost import call_multiply_adds, count_params
from esnac_tf.graph.teacher import analyse
from esnac_tf.graph.widths import ParameterTable
from esnac_tf.layers import LayerHandler, handler_of
from esnac_tf.layers.handler import KINDS, UnknownLayer
from esnac_tf.layers.pinned import OPERATION_REASONS, REASONS, Pinned
from esnac_tf.layers.weights import axes_of, weight_key
from esnac_tf.search_space.space import SearchSpace
from esnac_tf.student import StudentBuilder
from layers.layer_examples import WITHOUT_A_MODEL, is_preprocessing, model

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

# All that keras.layers exports, each once: some classes have several names.
EXPORTED: dict[type, list[str]] = {}
for _name, _value in inspect.getmembers(layers, inspect.isclass):
    EXPORTED.setdefault(_value, []).append(_name)
BASES = ("InputSpec", "Layer", "Wrapper")

EXAMPLES = sorted(
    names[0] for names in EXPORTED.values() if not {*names} & {*BASES, *WITHOUT_A_MODEL}
)


def handler_by_name(name):
    """The handler of a layer class of Keras, by any of its names."""
    names = next(names for names in EXPORTED.values() if name in names)
    found = [handler_of(LayerConfig("x", other, "keras.layers", {})) for other in names]
    return next((handler for handler in found if type(handler) is not UnknownLayer), found[0])


# Every layer of Keras.


@pytest.mark.parametrize("names", EXPORTED.values(), ids=lambda names: names[0])
def test_every_layer_of_keras_is_handled_or_pinned_on_purpose(names):
    """A layer that is new in Keras fails here until somebody has thought about it."""
    handled = [handler for name, handler in LAYERS if name in names and handler is not Pinned]
    kept = [name for name in names if name in REASONS]
    base = [name for name in names if name in BASES]
    assert len(handled) + len(kept) + len(base) == 1


def test_reasons_are_lines():
    for reason in (*REASONS.values(), *OPERATION_REASONS.values()):
        assert reason
        assert "\n" not in reason


@pytest.mark.parametrize("name", EXAMPLES)
def test_nothing_done_gives_the_same_outputs(name):
    teacher = model(name)
    student = StudentBuilder(teacher, analyse(teacher)).build(ActionSet())
    examples = examples_for(teacher)
    for expected, received in zip(run(teacher, examples), run(student, examples), strict=True):
        np.testing.assert_array_equal(received, expected)


@pytest.mark.parametrize("name", EXAMPLES)
def test_students_build_run_train_and_reload(name, tmp_path):
    """The narrowest student and a random one."""
    teacher = model(name)
    graph = analyse(teacher, "dependency")
    space, table = SearchSpace(graph), ParameterTable(graph, teacher)
    builder = StudentBuilder(teacher, graph)
    candidate = space.sample(1, np.random.default_rng(len(name)))
    narrowest = space.teacher()
    narrowest.widths[:] = 1
    examples = examples_for(teacher)
    for each in (candidate, narrowest) if graph.width_groups else (candidate,):
        student = builder.build(*space.to_actions(each))
        assert table.count(each.removed, each.widths)[0] == count_params(student)
        before = run(student, examples)
        assert all(np.isfinite(output).all() for output in before)
    student.save(tmp_path / "student.keras")
    loaded = keras.saving.load_model(
        tmp_path / "student.keras", compile=False, safe_mode=name != "Lambda"
    )
    for expected, received in zip(before, run(loaded, examples), strict=True):
        np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-6)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(student(examples, training=True) - 1))
    assert np.isfinite(loss)
    for gradient in tape.gradient(loss, [weight.value for weight in student.trainable_variables]):
        assert gradient is None or np.isfinite(tf.convert_to_tensor(gradient)).all()


@pytest.mark.parametrize("name", [name for name in EXAMPLES if not is_preprocessing(name)])
def test_weights_are_named_and_their_axes_are_as_told(name):
    teacher = model(name)
    graph = analyse(teacher, "dependency")
    handler, config = handler_by_name(name), graph.architecture.layers["tested"]
    known, roles = handler.weight_axes(config), graph.channels.roles.get("tested", {})
    layer = teacher.get_layer("tested")
    for weight in layer.weights:
        for axis, length in zip(axes_of(known, weight), weight.shape, strict=True):
            if axis is not None and length > 1:
                channels = len(roles[axis.role])
                assert length == channels * axis.repeat * axis.blocks // axis.groups
    if handler.is_known:
        names = [weight_key(known, weight) for weight in layer.weights]
        assert set(names) <= set(known) or not roles
        assert len(set(names)) == len(names)
        measured = {weight.path for weight in layer.weights if not weight.trainable}
        assert measured == {
            weight.path for weight in layer.weights if not handler.is_parameter(config, weight)
        }


@pytest.mark.parametrize("name", EXAMPLES)
def test_handlers_bear_their_layer(name):
    """Every layer is analysed; its attributes and multiply-adds are numbers."""
    graph = analyse(model(name), "dependency")
    # Equalization forgets the name that it was given.
    tested = "tested" if name != "Equalization" else model(name).layers[1].name
    config, handler = graph.architecture.layers[tested], handler_by_name(name)
    attributes = handler.attributes(config)
    assert len(attributes) == 4
    assert np.isfinite(attributes).all()
    (call,) = (call for call in graph.architecture.calls if call.layer == tested)
    assert call_multiply_adds(graph.architecture, call) >= 0
    for reference in graph.architecture.outputs_of(call):
        labels = graph.channels.labels[reference]
        shape = graph.architecture.shapes[reference][1:]
        assert labels.ndim == len(shape)
        for length, axis in zip(labels.shape, shape, strict=True):
            assert length in (1, axis)


# Every handler.


@pytest.mark.parametrize(("name", "handler"), LAYERS)
def test_layer_classes_exist(name, handler):
    assert issubclass(getattr(layers, name), layers.Layer)
    found = handler_of(LayerConfig("x", name, "keras.layers", {}))
    assert type(found) is handler
    assert found.is_known == (handler is not Pinned)


@pytest.mark.parametrize(("name", "handler"), OPERATIONS)
def test_operations_are_found_in_keras_only(name, handler):
    for module in ("keras.ops", "keras.src.ops.numpy"):
        assert type(handler_of(LayerConfig("x", name, module, {}))) is handler
    for module in ("my_package.ops", "keras_hub.ops", "keras.operations"):
        assert not handler_of(LayerConfig("x", name, module, {})).is_known


def test_no_class_is_handled_twice():
    for names in ([name for name, _ in LAYERS], [name for name, _ in OPERATIONS]):
        assert len(names) == len(set(names))


@pytest.mark.parametrize("handler", HANDLERS)
def test_kinds_and_names_are_well_formed(handler):
    assert handler.kind in KINDS
    assert handler.__doc__


def test_the_bases_handle_no_class_by_name():
    for handler in (LayerHandler, UnknownLayer):
        assert handler in HANDLERS  # the folder scan sees them, too
        names = (handler.class_names, handler.operation_names, handler.application_names)
        assert not any(names)


def test_a_custom_layer_with_the_name_of_a_keras_layer_is_unknown():
    class Dense(layers.Layer):
        def call(self, inputs):
            return inputs[..., ::-1]

    inputs = keras.Input((4,))
    hidden = Dense(name="custom")(layers.Dense(6)(inputs))
    graph = analyse(keras.Model(inputs, layers.Dense(2)(hidden)))
    assert not graph.width_groups  # it may be removed as a whole, and its channels stay
    assert [graph.nodes[index].name for index in graph.removals] == ["custom"]
