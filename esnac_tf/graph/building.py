"""Architecture -> keras.Model: fresh layers, called again in topological order."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from types import FunctionType
from typing import Any

import keras

from esnac_tf.architecture import Architecture, LayerConfig, TensorReference, map_references
from esnac_tf.errors import InfeasibleStudentError


def build(
    architecture: Architecture, templates: Mapping[str, Any], name: str | None = None
) -> keras.Model:
    """Builds a model from an architecture.

    Args:
        architecture: What to build.
        templates: The teacher's layers and ops by name: they give the classes, so that custom
            layers need no registration.
        name: The new model's name; the architecture's by default.

    Returns:
        A functional model with fresh weights.

    Raises:
        InfeasibleStudentError: Keras refuses a layer or a call.

    Example:
        >>> from esnac_tf.graph.parsing import parse
        >>> inputs = keras.Input((4,))
        >>> model = keras.Model(inputs, keras.layers.Dense(3)(inputs))
        >>> build(parse(model), {layer.name: layer for layer in model.layers}).output_shape
        (None, 3)
    """
    layers: dict[str, Any] = {}
    tensors: dict[TensorReference, Any] = {}
    for call in architecture.calls:
        config = architecture.layer_of(call)
        try:
            if call.layer not in layers:
                layers[call.layer] = fresh_layer(config, templates.get(call.layer))
            layer = layers[call.layer]
            if not call.inputs:
                outputs = layer.output
            else:
                args = [_revive(value, tensors) for value in call.args]
                kwargs = {key: _revive(value, tensors) for key, value in call.kwargs.items()}
                outputs = layer(*args, **kwargs)
        except (ValueError, TypeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InfeasibleStudentError(f"layer {call.layer!r}: {reason}") from error
        for index, tensor in enumerate(keras.tree.flatten(outputs)):
            tensors[TensorReference(call.layer, call.call, index)] = tensor
    return keras.Model(
        map_references(tensors.__getitem__, architecture.inputs),
        map_references(tensors.__getitem__, architecture.outputs),
        name=name or architecture.name,
    )


def fresh_layer(layer: LayerConfig, template: Any) -> Any:
    """A new layer or op of the template's class, or of Keras's own where there is none.

    Custom classes and functions inside the template are known to the new layer, too.
    """
    cls = getattr(keras.layers, layer.class_name) if template is None else type(template)
    config = copy.deepcopy(dict(layer.config))
    if isinstance(template, keras.layers.Lambda):  # from_config revives no Python code
        return cls(**{**config, "function": template.function})
    with keras.saving.CustomObjectScope(dict(_custom_objects(template, set()))):
        return cls.from_config(config)


def _custom_objects(value: Any, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Names and objects of the classes and functions that are inside a layer."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, FunctionType):
        yield value.__name__, value
    elif isinstance(value, keras.layers.Layer):
        yield type(value).__name__, type(value)
        for part in vars(value).values():
            yield from _custom_objects(part, seen)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _custom_objects(part, seen)


def _revive(value: Any, tensors: Mapping[TensorReference, Any]) -> Any:
    """A call argument with references replaced by tensors and constants as objects."""
    if isinstance(value, TensorReference):
        return tensors[value]
    if isinstance(value, Mapping):
        if "class_name" in value:
            return keras.saving.deserialize_keras_object(dict(value))
        return {key: _revive(item, tensors) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_revive(item, tensors) for item in value]
    return value
