"""The graph of one Keras model by itself: a model nested in it is one layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from esnac_tf.architecture import Constant, LayerCall, LayerConfig, TensorReference
from esnac_tf.graph.functional import functional_model


@dataclasses.dataclass(frozen=True)
class OwnGraph:
    """What a functional model's public configuration tells.

    Attributes:
        model: The functional model.
        layers: Every layer and op by its name, nested models among them.
        operations: The same as the objects that they are.
        calls: Every call, in topological order.
        inputs: The model's inputs, flat, in Keras's order.
        outputs: The model's outputs, flat, in Keras's order.
        tensors: Shape and dtype of every tensor that is used.
    """

    model: keras.Model
    layers: Mapping[str, LayerConfig]
    operations: Mapping[str, Any]
    calls: tuple[LayerCall, ...]
    inputs: tuple[TensorReference, ...]
    outputs: tuple[TensorReference, ...]
    tensors: Mapping[TensorReference, keras.KerasTensor]


def read_own_graph(model: keras.Model) -> OwnGraph:
    """Reads a model, but not what is in the models nested in it.

    Raises:
        UserError: The model has no functional graph.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="top")])
        >>> [tensor.shape for tensor in read_own_graph(model).tensors.values()]
        [(None, 4), (None, 3)]
    """
    model = functional_model(model)
    config = model.get_config()
    operations = {operation.name: operation for operation in model.operations}
    layers: dict[str, LayerConfig] = {}
    tensors: dict[TensorReference, keras.KerasTensor] = {}
    calls: list[LayerCall] = []
    inputs = _flat_references(config["input_layers"])
    tensors.update(zip(inputs, model.inputs, strict=True))
    for entry in config["layers"]:
        name = entry["name"]
        layers[name] = LayerConfig(name, entry["class_name"], entry["module"], entry["config"])
        if not entry["inbound_nodes"]:
            calls.append(LayerCall(name, 0, (), {}))
        for index, node in enumerate(entry["inbound_nodes"]):
            args = tuple(_read(value, tensors) for value in node["args"])
            calls.append(LayerCall(name, index, args, _read(node["kwargs"], tensors)))
    outputs = tuple(
        _as_argument(operations[reference.layer], reference)
        for reference in _flat_references(config["output_layers"])
    )
    tensors.update(zip(outputs, model.outputs, strict=True))
    return OwnGraph(
        model, layers, operations, topological(calls, outputs), inputs, outputs, tensors
    )


def topological(
    calls: Sequence[LayerCall], outputs: Sequence[TensorReference]
) -> tuple[LayerCall, ...]:
    """Calls in topological order, depth first from the outputs.

    A call's inputs are followed in the order in which it takes them, so all of a residual
    branch comes before the shortcut where the sum names it first. Input layers that no output
    depends on come last; other calls that none depends on are left out.
    """
    by_key = {(call.layer, call.call): call for call in calls}
    roots = [(output.layer, output.call) for output in outputs]
    roots += [key for key, call in by_key.items() if not call.inputs]
    placed: set[tuple[str, int]] = set()
    ordered: list[LayerCall] = []
    for root in roots:
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


def _read(
    value: Any, tensors: dict[TensorReference, keras.KerasTensor], is_inside: bool = False
) -> Any:
    """A call argument with references for tensors of the graph, and arrays as constants.

    Arrays inside of another object (`is_inside`), as the bounds of a slice, stay as they are.
    """
    if isinstance(value, Mapping):
        if value.get("class_name") in ("__numpy__", "__tensor__") and not is_inside:
            config = value["config"]
            if config["dtype"] != "string":
                array = np.array(config["value"], config["dtype"])
                return Constant(array, is_tensor=value["class_name"] == "__tensor__")
        if value.get("class_name") == "__keras_tensor__":
            config = value["config"]
            reference = TensorReference(*config["keras_history"])
            tensors.setdefault(reference, keras.KerasTensor(config["shape"], config["dtype"]))
            return reference
        is_inside = is_inside or "class_name" in value
        return {key: _read(item, tensors, is_inside) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_read(item, tensors, is_inside) for item in value)
    return value


def _flat_references(structure: Any) -> tuple[TensorReference, ...]:
    """References for a nested structure of [layer, call, output], flat, in Keras's order."""
    flat = keras.tree.flatten(structure)
    return tuple(TensorReference(*flat[start : start + 3]) for start in range(0, len(flat), 3))


def _as_argument(operation: Any, reference: TensorReference) -> TensorReference:
    """An output of the model, and of this operation in it, as call arguments name it.

    Keras numbers the calls of a nested functional model from 1 where it is an output of the
    outer model, from 0 where it is an argument.
    """
    if isinstance(operation, keras.Model) and hasattr(operation, "operations"):
        return dataclasses.replace(reference, call=reference.call - 1)
    return reference
