"""keras.Model -> Architecture, through the model's public configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras

from esnac_tf.architecture import (
    Architecture,
    LayerCall,
    LayerConfig,
    Shape,
    TensorReference,
    map_references,
    references,
)
from esnac_tf.errors import UserError


def functional_model(model: keras.Model) -> keras.Model:
    """The model as a functional one: a built Sequential becomes its functional equal.

    Raises:
        UserError: The model is subclassed, a Sequential that was not built, or has a layer
            without `get_config`.
    """
    if isinstance(model, keras.Sequential):
        if not model.built:
            raise UserError(
                f"The Sequential model {model.name!r} is not built, so its shapes are unknown.\n"
                "Give it a keras.Input as its first layer, or call model.build(input_shape)."
            )
        model = keras.Model(_single(model.inputs), _single(model.outputs), name=model.name)
    if not isinstance(model, keras.Model):
        raise UserError(
            f"Expected a keras.Model as the teacher, received {type(model).__name__}.\n"
            "Load it first, for instance with keras.models.load_model(path)."
        )
    try:
        config = model.get_config()
    except NotImplementedError as error:
        layer = _layer_without_config(model)
        if layer is not None:
            raise UserError(
                f"The layer {layer.name!r} ({type(layer).__name__}) of the model {model.name!r} "
                "can't tell its configuration.\n"
                "Give its class a method get_config that returns the arguments of __init__."
            ) from error
        config = {}
    if not isinstance(config, Mapping) or "output_layers" not in config:
        raise UserError(
            f"The model {model.name!r} ({type(model).__name__}) is not functional, so it has no "
            "graph to search.\n"
            "Give a functional or Sequential model, for instance keras.Model(inputs, outputs)."
        )
    return model


def _layer_without_config(model: keras.Model) -> Any:
    """The first layer of a functional model whose class lacks `get_config`; None if none does."""
    for operation in getattr(model, "operations", ()):
        try:
            operation.get_config()
        except NotImplementedError:
            return _layer_without_config(operation) or operation
    return None


def is_functional(model: keras.Model) -> bool:
    """Whether a model has a graph that can be read."""
    try:
        functional_model(model)
    except UserError:
        return False
    return True


def parse(model: keras.Model) -> Architecture:
    """Reads a functional or Sequential Keras model into an architecture.

    Args:
        model: The model; a Sequential must be built.

    Returns:
        Its graph as plain data: every layer and op, every call, every shape.

    Raises:
        UserError: The model has no functional graph.

    Example:
        >>> inputs = keras.Input((4,))
        >>> architecture = parse(keras.Model(inputs, keras.layers.Dense(3, name="top")(inputs)))
        >>> [call.layer for call in architecture.calls if call.inputs]
        ['top']
    """
    model = functional_model(model)
    config = model.get_config()
    layers: dict[str, LayerConfig] = {}
    shapes: dict[TensorReference, Shape] = {}
    calls: list[LayerCall] = []
    for entry in config["layers"]:
        name = entry["name"]
        layers[name] = LayerConfig(name, entry["class_name"], entry["module"], entry["config"])
        if not entry["inbound_nodes"]:
            shapes[TensorReference(name)] = tuple(entry["config"]["batch_shape"])
            calls.append(LayerCall(name, 0, (), {}))
        for index, node in enumerate(entry["inbound_nodes"]):
            calls.append(
                LayerCall(
                    name,
                    index,
                    tuple(_read(value, shapes) for value in node["args"]),
                    {key: _read(value, shapes) for key, value in node["kwargs"].items()},
                )
            )
    inputs = _read_structure(config["input_layers"])
    operations = {operation.name: operation for operation in model.operations}
    outputs = map_references(
        lambda reference: _output_reference(operations[reference.layer], reference),
        _read_structure(config["output_layers"]),
    )
    if isinstance(inputs, list) and len(inputs) == 1:
        inputs = inputs[0]  # keras.Model([x], y) and keras.Model(x, y) take the same tensor
    # Flattened as Keras does it, which sorts the keys of a dict.
    for reference, tensor in zip(keras.tree.flatten(outputs), model.outputs, strict=True):
        shapes[reference] = tuple(tensor.shape)
    ordered = _topological(calls, list(references(outputs)))
    return Architecture(model.name, layers, ordered, inputs, outputs, shapes)


def _output_reference(operation: Any, reference: TensorReference) -> TensorReference:
    """An output of the model, and of this operation in it, as call arguments name it.

    Keras numbers the calls of a nested functional model from 1 where it is an output of the
    outer model, from 0 where it is an argument.
    """
    if isinstance(operation, keras.Sequential) or not isinstance(operation, keras.Model):
        return reference
    return dataclasses.replace(reference, call=reference.call - is_functional(operation))


def _single(tensors: list[Any]) -> Any:
    return tensors[0] if len(tensors) == 1 else tensors


def _read(value: Any, shapes: dict[TensorReference, Shape]) -> Any:
    """A call argument with every tensor marker replaced by a reference."""
    if isinstance(value, Mapping):
        if value.get("class_name") == "__keras_tensor__":
            reference = TensorReference(*value["config"]["keras_history"])
            shapes[reference] = tuple(value["config"]["shape"])
            return reference
        return {key: _read(item, shapes) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_read(item, shapes) for item in value]
    return value


def _read_structure(structure: Any) -> Any:
    """The nested structure of a model's inputs or outputs, with references for its leaves."""
    if isinstance(structure, Mapping):
        return {key: _read_structure(value) for key, value in structure.items()}
    if len(structure) == 3 and isinstance(structure[0], str) and isinstance(structure[1], int):
        return TensorReference(*structure)
    return [_read_structure(value) for value in structure]


def _topological(calls: list[LayerCall], outputs: list[TensorReference]) -> tuple[LayerCall, ...]:
    """Calls in topological order, depth first from the outputs.

    A call's inputs are followed in the order in which it takes them, so all of a residual
    branch comes before the shortcut where the sum names it first.
    """
    by_key = {(call.layer, call.call): call for call in calls}
    placed: set[tuple[str, int]] = set()
    ordered: list[LayerCall] = []
    # Inputs that no output depends on keep their place in the model's signature.
    for root in [*((output.layer, output.call) for output in outputs), *by_key]:
        stack = [(root, False)]
        while stack:
            key, inputs_placed = stack.pop()
            if key in placed:
                continue
            if inputs_placed:
                placed.add(key)
                ordered.append(by_key[key])
                continue
            stack.append((key, True))
            for reference in reversed(by_key[key].inputs):
                stack.append(((reference.layer, reference.call), False))
    return tuple(ordered)
