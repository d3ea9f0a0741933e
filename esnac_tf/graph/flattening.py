"""Nested models: the layers of all of them in one flat graph.

A call of a nested model becomes the calls of its layers. A model that is called several times
gives shared layers.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from esnac_tf.architecture import LayerCall, LayerConfig, TensorReference, map_references
from esnac_tf.graph.functional import is_functional
from esnac_tf.graph.masks import automatic_masks
from esnac_tf.graph.own_graph import OwnGraph, read_own_graph, topological
from esnac_tf.graph.reviving import revive


@dataclasses.dataclass(frozen=True)
class _Context:
    """What the calls of the models around a call say.

    Attributes:
        training: The argument of that name; it wins over that of the calls inside.
        is_same_shape: Whether the innermost model is called on the shapes of its own inputs.
    """

    training: bool | None = None
    is_same_shape: bool = True


class FlatGraph:
    """A model's graph with the calls of nested models replaced by those of their layers.

    A nested model stays one layer if it is no functional or built Sequential model, if it is
    called with more than its inputs and `training` (a mask that is not Keras's own, say), or on
    a tensor of another rank than its input's.

    Attributes:
        layers: Every layer and op by its name.
        operations: The same as the objects that they are.
        calls: Every call, in topological order; the calls of a layer are numbered in it.
        inputs: The model's inputs, flat, in Keras's order.
        outputs: The model's outputs, flat, in Keras's order.
        tensors: Shape and dtype of every tensor that is used.

    Args:
        graph: The outer model's own graph.

    Example:
        >>> inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, name="dense")])
        >>> inputs = keras.Input((4,), name="x")
        >>> graph = read_own_graph(keras.Model(inputs, inner(inner(inputs))))
        >>> [(call.layer, call.call) for call in FlatGraph(graph).calls]
        [('x', 0), ('dense', 0), ('dense', 1)]
    """

    def __init__(self, graph: OwnGraph) -> None:
        self.layers: dict[str, LayerConfig] = {}
        self.operations: dict[str, Any] = {}
        self.tensors: dict[TensorReference, keras.KerasTensor] = {}
        self._nested = _nested_graphs(graph)
        self._names, self._models = _flat_names(graph, self._nested)
        self._calls: list[LayerCall] = []
        self._num_calls: Counter[str] = Counter()
        outputs = self._inline(graph, {}, _Context())
        inputs = [TensorReference(reference.layer) for reference in graph.inputs]
        self._number(inputs, outputs)

    def _inline(
        self, graph: OwnGraph, given: Mapping[TensorReference, TensorReference], context: _Context
    ) -> list[TensorReference]:
        """Adds the calls of one model.

        Args:
            graph: The model's own graph.
            given: Of a nested model, the tensors of the flat graph that are its inputs.
            context: What the calls of the models around it say.

        Returns:
            The model's outputs.
        """
        tensors = dict(given)
        used: dict[tuple[str, int], list[TensorReference]] = {}
        for reference in graph.tensors:
            used.setdefault((reference.layer, reference.call), []).append(reference)
        for call in graph.calls:
            if not call.inputs and given:
                continue
            operation = graph.operations[call.layer]
            inlined = call.map_references(tensors.__getitem__)
            outputs: Mapping[int, TensorReference]
            if id(operation) in self._nested:
                outputs = dict(enumerate(self._enter(operation, inlined, context)))
            else:
                specs = {own.output: graph.tensors[own] for own in used[call.layer, call.call]}
                if not context.is_same_shape and call.inputs:
                    specs = self._inferred(operation, inlined, specs)
                layer = graph.layers[call.layer]
                if context.training is not None and _takes_training(operation, layer):
                    kwargs = {**inlined.kwargs, "training": context.training}
                    inlined = dataclasses.replace(inlined, kwargs=kwargs)
                outputs = self._call(operation, layer, inlined, specs)
            tensors.update((own, outputs[own.output]) for own in used[call.layer, call.call])
        return [tensors[output] for output in graph.outputs]

    def _enter(
        self, operation: keras.Model, call: LayerCall, context: _Context
    ) -> list[TensorReference]:
        """Adds the calls of a model that is nested in another, and gives its outputs."""
        graph = self._nested[id(operation)]
        given = dict(zip(graph.inputs, given_tensors(graph, call), strict=True))
        training = context.training
        inner_context = _Context(
            training=call.kwargs.get("training") if training is None else training,
            is_same_shape=all(
                graph.tensors[own].shape == self.tensors[tensor].shape
                for own, tensor in given.items()
            ),
        )
        inputs = {
            own: self._cast(graph, tensor, graph.tensors[own].dtype)
            for own, tensor in given.items()
        }
        return self._inline(graph, inputs, inner_context)

    def _call(
        self,
        operation: Any,
        config: LayerConfig,
        call: LayerCall,
        specs: Mapping[int, keras.KerasTensor],
    ) -> dict[int, TensorReference]:
        """Adds one call of a layer or op, and gives its outputs by their numbers."""
        name = self._names[id(operation)]
        number = self._num_calls[name]
        self._num_calls[name] += 1
        self.operations[name] = operation
        models = self._models.get(id(operation), ())
        layer = dataclasses.replace(config, name=name, models=models)
        self.layers[name] = layer.replace(name=name)
        self._calls.append(dataclasses.replace(call, layer=name, call=number))
        outputs = {output: TensorReference(name, number, output) for output in specs}
        self.tensors.update((outputs[output], tensor) for output, tensor in specs.items())
        return outputs

    def _cast(self, graph: OwnGraph, tensor: TensorReference, dtype: str) -> TensorReference:
        """A tensor in the dtype of a nested model's input, as Keras converts it."""
        given = self.tensors[tensor]
        if given.dtype == dtype:
            return tensor
        name = _unused(f"{graph.model.name}_cast", set(self._names.values()))
        are_floats = all(keras.backend.is_float_dtype(kind) for kind in (given.dtype, dtype))
        if are_floats:
            layer = keras.layers.Identity(dtype=dtype, name=name)
        else:  # integers are cast by the layers that do arithmetic only
            layer = keras.layers.Rescaling(1.0, dtype=dtype, name=name)
        self._names[id(layer)] = name
        config = LayerConfig(name, type(layer).__name__, "keras.layers", layer.get_config())
        spec = keras.KerasTensor(given.shape, dtype)
        return self._call(layer, config, LayerCall(name, 0, (tensor,), {}), {0: spec})[0]

    def _inferred(
        self, operation: Any, call: LayerCall, specs: Mapping[int, keras.KerasTensor]
    ) -> dict[int, keras.KerasTensor]:
        """The outputs of a call on tensors of other shapes than the nested model's own."""
        args, kwargs = (revive(value, self.tensors) for value in (call.args, dict(call.kwargs)))
        outputs = keras.tree.flatten(operation.compute_output_spec(*args, **kwargs))
        return {output: outputs[output] for output in specs}

    def _number(
        self, inputs: Sequence[TensorReference], outputs: Sequence[TensorReference]
    ) -> None:
        """Orders the calls, leaves out what no output needs, and numbers each layer's calls."""
        ordered = topological(self._calls, outputs)
        numbers: dict[tuple[str, int], int] = {}
        num_calls: Counter[str] = Counter()
        for call in ordered:
            numbers[call.layer, call.call] = num_calls[call.layer]
            num_calls[call.layer] += 1

        def renumber(reference: TensorReference) -> TensorReference:
            number = numbers[reference.layer, reference.call]
            return dataclasses.replace(reference, call=number)

        self.calls = tuple(
            dataclasses.replace(call.map_references(renumber), call=numbers[call.layer, call.call])
            for call in ordered
        )
        self.inputs = tuple(map_references(renumber, inputs))
        self.outputs = tuple(map_references(renumber, outputs))
        self.tensors = {
            renumber(reference): tensor
            for reference, tensor in self.tensors.items()
            if (reference.layer, reference.call) in numbers
        }
        kept = {layer for layer, _ in numbers}
        self.layers = {name: layer for name, layer in self.layers.items() if name in kept}
        self.operations = {name: self.operations[name] for name in self.layers}


def given_tensors(graph: OwnGraph, call: LayerCall) -> list[Any]:
    """What a call of a nested model gives for each of its inputs, as Keras assigns them."""
    value = call.args[0] if call.args else call.kwargs.get("inputs")
    if isinstance(value, Mapping) and not isinstance(graph.model.input, Mapping):
        return [value.get(reference.layer) for reference in graph.inputs]
    return list(keras.tree.flatten(value))


def _nested_graphs(graph: OwnGraph) -> dict[int, OwnGraph]:
    """The own graphs of all models that are nested and can be replaced, by identity."""
    nested: dict[int, OwnGraph] = {}
    opaque: set[int] = set()
    waiting = [graph]
    while waiting:
        outer = waiting.pop(0)
        masks = automatic_masks(outer.layers, outer.calls)
        for call in outer.calls:
            operation = outer.operations[call.layer]
            if not isinstance(operation, keras.Model) or not is_functional(operation):
                continue
            if id(operation) not in nested:
                nested[id(operation)] = read_own_graph(operation)
                waiting.append(nested[id(operation)])
            if not _is_plain_call(outer, call, nested[id(operation)], masks):
                opaque.add(id(operation))
    return {key: value for key, value in nested.items() if key not in opaque}


def _is_plain_call(
    outer: OwnGraph, call: LayerCall, graph: OwnGraph, masks: frozenset[TensorReference]
) -> bool:
    """Whether a nested model is called on its inputs, and with nothing else but `training`.

    Masks that Keras makes by itself need no argument: they follow the tensors.
    """
    given = given_tensors(graph, call)
    mask = keras.tree.flatten(call.kwargs.get("mask"))
    return (
        len(call.args) <= 1
        and call.kwargs.keys() <= {"inputs", "mask", "training"}
        and all(part is None or part in masks for part in mask)
        and len(given) == len(graph.inputs)
        and all(
            isinstance(tensor, TensorReference)
            and len(outer.tensors[tensor].shape) == len(graph.tensors[own].shape)
            for tensor, own in zip(given, graph.inputs, strict=True)
        )
    )


def _flat_names(
    graph: OwnGraph, nested: Mapping[int, OwnGraph]
) -> tuple[dict[int, str], dict[int, tuple[str, ...]]]:
    """For every layer, by its identity, its name in the flat graph and its models' names.

    A layer keeps its name; where an outer or an earlier layer has it already, the name of its
    model is put before it. Its models are those that it is nested in, the outermost first.
    """
    names: dict[int, str] = {}
    models: dict[int, tuple[str, ...]] = {}
    taken: set[str] = set()
    waiting: list[tuple[OwnGraph, tuple[str, ...]]] = [(graph, ())]
    visited: set[int] = set()
    while waiting:
        part, path = waiting.pop(0)
        inputs = {reference.layer for reference in part.inputs if part is not graph}
        for name, operation in part.operations.items():
            if id(operation) in nested:
                if id(operation) not in visited:
                    visited.add(id(operation))
                    waiting.append((nested[id(operation)], (*path, name)))
            elif id(operation) not in names and name not in inputs:
                if name in taken:
                    name = _unused(f"{part.model.name}_{name}", taken)
                names[id(operation)] = name
                models[id(operation)] = path
                taken.add(name)
    return names, models


def _unused(name: str, taken: set[str]) -> str:
    """The name, or with a number behind it where it is taken.

    Example:
        >>> _unused("a", {"a", "a_1"})
        'a_2'
    """
    number, unused = 0, name
    while unused in taken:
        number += 1
        unused = f"{name}_{number}"
    return unused


def _takes_training(operation: Any, config: LayerConfig) -> bool:
    """Whether a call's `training` matters; a custom layer may pass it on without naming it."""
    if not isinstance(operation, keras.layers.Layer):
        return False
    return not config.is_keras_layer or "training" in inspect.signature(operation.call).parameters
