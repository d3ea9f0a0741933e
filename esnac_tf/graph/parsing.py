"""keras.Model -> Architecture, through the model's public configuration."""

from __future__ import annotations

from typing import Any

import keras

from esnac_tf.architecture import Architecture
from esnac_tf.graph.flattening import FlatGraph
from esnac_tf.graph.functional import functional_model, is_functional
from esnac_tf.graph.own_graph import read_own_graph

__all__ = ["functional_model", "is_functional", "named_layers", "parse", "read"]


def parse(model: keras.Model) -> Architecture:
    """Reads a functional or Sequential Keras model into an architecture.

    The layers of nested models are layers of the one architecture, see
    `esnac_tf.graph.flattening`.

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
    return read(model)[0]


def named_layers(model: keras.Model) -> dict[str, Any]:
    """Every layer and op of a model, those of nested models too, by its name in `parse(model)`.

    Raises:
        UserError: The model has no functional graph.

    Example:
        >>> inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, name="dense")])
        >>> inputs = keras.Input((4,), name="x")
        >>> list(named_layers(keras.Model(inputs, inner(inputs))))
        ['x', 'dense']
    """
    return read(model)[1]


def read(model: keras.Model) -> tuple[Architecture, dict[str, Any]]:
    """Both what `parse` and what `named_layers` give, for the work of one."""
    graph = read_own_graph(model)
    flat = FlatGraph(graph)
    functional = graph.model
    architecture = Architecture(
        name=model.name,
        layers=flat.layers,
        calls=flat.calls,
        inputs=keras.tree.pack_sequence_as(functional.input, flat.inputs),
        outputs=keras.tree.pack_sequence_as(functional.output, flat.outputs),
        shapes={reference: tuple(tensor.shape) for reference, tensor in flat.tensors.items()},
        output_names=tuple(functional.output_names),
        dtypes={reference: tensor.dtype for reference, tensor in flat.tensors.items()},
    )
    return architecture, flat.operations
