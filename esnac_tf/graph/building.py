"""Architecture -> keras.Model: fresh layers, called again in topological order."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import keras

from esnac_tf.architecture import Architecture, LayerConfig, TensorReference, map_references
from esnac_tf.errors import InfeasibleStudentError, error_reason
from esnac_tf.graph.custom_objects import custom_objects
from esnac_tf.graph.reviving import revive


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
                args = [revive(value, tensors) for value in call.args]
                kwargs = {key: revive(value, tensors) for key, value in call.kwargs.items()}
                outputs = layer(*args, **kwargs)
        except (ValueError, TypeError) as error:
            raise InfeasibleStudentError(f"layer {call.layer!r}: {error_reason(error)}") from error
        for index, tensor in enumerate(keras.tree.flatten(outputs)):
            tensors[TensorReference(call.layer, call.call, index)] = tensor
    return keras.Model(
        map_references(tensors.__getitem__, architecture.inputs),
        keras.tree.pack_sequence_as(architecture.outputs, _named_outputs(architecture, tensors)),
        name=name or architecture.name,
    )


def _named_outputs(architecture: Architecture, tensors: Mapping[TensorReference, Any]) -> list[Any]:
    """The outputs, flat, under the architecture's names for them.

    Keras names an output for the layer that gives it. Where that was a nested model, or a sum
    that surgery left out, an Identity layer has the name.
    """
    references = keras.tree.flatten(architecture.outputs)
    names = architecture.output_names or [reference.layer for reference in references]
    taken = {call.layer for call in architecture.calls}
    outputs = []
    for reference, name in zip(references, names, strict=True):
        tensor = tensors[reference]
        if name not in taken:
            taken.add(name)
            tensor = keras.layers.Identity(dtype=tensor.dtype, name=name)(tensor)
        outputs.append(tensor)
    return outputs


def fresh_layer(layer: LayerConfig, template: Any) -> Any:
    """A new layer or op of the template's class, or of Keras's own where there is none.

    Custom classes and functions inside the template are known to the new layer, too. It has
    the template's vocabulary, if there is one, and is frozen if the template is.
    """
    cls = getattr(keras.layers, layer.class_name) if template is None else type(template)
    config = copy.deepcopy(dict(layer.config))
    if isinstance(template, keras.layers.Lambda):  # from_config revives no Python code
        return cls(**{**config, "function": template.function})
    with keras.saving.CustomObjectScope(custom_objects(template)):
        fresh = cls.from_config(config)
    if fresh.name != layer.name:  # its class keeps its name out of its configuration
        fresh.name = layer.name
    if isinstance(template, keras.layers.Layer) and not template.trainable:
        fresh.trainable = False
    if hasattr(template, "set_vocabulary"):
        _copy_vocabulary(template, fresh)
    return fresh


def _copy_vocabulary(template: Any, layer: Any) -> None:
    """Gives a lookup layer what another one learned from data; it has to be before any call."""
    weights: dict[str, Any] = {}  # only with the output mode "tf_idf"
    template.save_own_variables(weights)
    vocabulary = template.get_vocabulary()
    if vocabulary != layer.get_vocabulary():
        layer.set_vocabulary(vocabulary, weights.get("idf_weights"))
