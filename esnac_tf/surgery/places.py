"""Where a model can be changed: layers by name, and why a change is not possible there."""

from __future__ import annotations

import difflib

import keras

from esnac_tf.errors import UserError
from esnac_tf.graph.parsing import named_layers
from esnac_tf.graph.teacher import (
    TeacherGraph,
    analyse,
    nodes_of,
    shape_text,
    why_no_node,
    why_not_removable,
)


def removable_layers(model: keras.Model) -> list[str]:
    """The layers that `remove_layer` can remove, in the order in which they run.

    Their input and output have one shape, and nothing depends on how wide the one is without
    the other. A channel shuffle, which several layers make, is named by the first of them.

    Args:
        model: A functional or built Sequential model.

    Returns:
        Names of layers.

    Raises:
        UserError: The model has no graph.

    Example:
        >>> inputs = keras.Input((4,))
        >>> hidden = keras.layers.Dense(4, name="first")(inputs)
        >>> hidden = keras.layers.ReLU(name="relu")(keras.layers.Dense(8, name="wide")(hidden))
        >>> removable_layers(keras.Model(inputs, keras.layers.Dense(2, name="top")(hidden)))
        ['relu']
    """
    graph = analyse(model, "dependency")
    return [graph.nodes[index].name for index in sorted(graph.removals)]


def skip_connections(model: keras.Model) -> list[tuple[str, str]]:
    """The skip connections that `add_skip_connection` can add.

    Each leads forward, from a layer's output to the input of a layer that takes the same shape.
    Connections that the model has already are left out.

    Args:
        model: A functional or built Sequential model.

    Returns:
        (source, target) names.

    Raises:
        UserError: The model has no graph.

    Example:
        >>> model = keras.Sequential([keras.Input((4,))])
        >>> for name in ("first", "second", "third"):
        ...     model.add(keras.layers.Dense(6, name=name))
        >>> skip_connections(model)
        [('first', 'third')]
    """
    return list(analyse(model, "dependency").skip_pair_of)


def layer_name(model: keras.Model, layer: str | keras.layers.Layer) -> str:
    """The name of a layer that is given by name or as an object.

    Raises:
        UserError: The model has no such layer.
    """
    layers = named_layers(model)
    if isinstance(layer, keras.layers.Layer):
        for name, candidate in layers.items():
            if candidate is layer:
                return name
        raise UserError(
            f"The layer {layer.name!r} is none of the model {model.name!r}.\n"
            "Give one of its layers, not a layer of a copy and no nested model, or its name."
        )
    if not isinstance(layer, str):
        raise UserError(
            f"Expected a layer or the name of one, received {type(layer).__name__}.\n"
            "Give one of model.layers, or its name."
        )
    if layer not in layers:
        nearest = difflib.get_close_matches(layer, layers, n=1)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
        raise UserError(
            f"The model {model.name!r} has no layer {layer!r}.{hint}\n"
            "esnac_tf.surgery.layer_costs(model) tells the names of its layers."
        )
    return layer


def removable_node(graph: TeacherGraph, name: str) -> str:
    """The name by which actions remove a layer.

    Raises:
        UserError: It can't be removed.
    """
    if graph.position.get(name) in graph.removals:
        return name
    raise UserError(
        f"The layer {name!r} can't be removed: {why_not_removable(graph, name)}.\n"
        "esnac_tf.surgery.removable_layers(model) lists the layers that can."
    )


def skip_pair(graph: TeacherGraph, source: str, target: str) -> tuple[str, str]:
    """The names by which actions connect two layers.

    Raises:
        UserError: They can't be connected.
    """
    giving, taking = nodes_of(graph, source), nodes_of(graph, target)
    names = (giving[0].name, taking[0].name) if giving and taking else (source, target)
    if (
        names in graph.skip_pair_of
        and len(giving) == len(taking) == 1
        and giving[0].calls[-1].layer == source
        and taking[0].calls[0].layer == target
    ):
        return names
    raise UserError(
        f"No skip connection can be added from {source!r} to {target!r}: "
        f"{_why_no_skip(graph, source, target)}.\n"
        "esnac_tf.surgery.skip_connections(model) lists those that can."
    )


def _why_no_skip(graph: TeacherGraph, source: str, target: str) -> str:
    for name in (source, target):
        no_node = why_no_node(graph, name)
        if no_node:
            return no_node
        if len(nodes_of(graph, name)) > 1:
            return f"{name!r} is called {len(nodes_of(graph, name))} times"
    (giving,), (taking,) = nodes_of(graph, source), nodes_of(graph, target)
    if giving.calls[-1].layer != source:
        return f"{source!r} is one with {giving.calls[-1].layer!r}, after it; connect that"
    if taking.calls[0].layer != target:
        return f"{target!r} is one with {taking.calls[0].layer!r}, before it; connect that"
    first, second = graph.position[giving.name], graph.position[taking.name]
    if first >= second:
        return f"{source!r} does not run before {target!r}"
    if first in taking.predecessors:
        return "they are connected already"
    if giving.output_shape != taking.input_shape:
        given, taken = shape_text(giving.output_shape), shape_text(taking.input_shape)
        return f"{source!r} gives {given} and {target!r} takes {taken}"
    if None in giving.output_shape[1:]:
        return f"the shape {shape_text(giving.output_shape)} is not wholly known"
    return "the one can get narrower, and the other not in the same way"
