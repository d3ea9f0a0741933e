"""Masks that Keras makes by itself, and so makes again when a graph is built again.

Where a tensor has a mask, Keras writes the mask into the calls that take the tensor. Most come
from an Embedding with `mask_zero` (`NotEqual` of its input) or from a Masking layer (`Any` of
the `NotEqual` of its input).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from esnac_tf.architecture import LayerCall, LayerConfig, TensorReference


def automatic_masks(
    layers: Mapping[str, LayerConfig], calls: Sequence[LayerCall]
) -> frozenset[TensorReference]:
    """The masks in a graph that Keras made of the inputs of Embedding and Masking layers.

    Args:
        layers: The graph's layers by name.
        calls: Its calls in topological order.

    Example:
        >>> import keras
        >>> from esnac_tf.graph.own_graph import read_own_graph
        >>> words = keras.Input((5,), dtype="int32")
        >>> hidden = keras.layers.Embedding(9, 4, mask_zero=True)(words)
        >>> graph = read_own_graph(keras.Model(words, keras.layers.LSTM(3)(hidden)))
        >>> len(automatic_masks(graph.layers, graph.calls))
        1
    """
    sources = {call.inputs[0] for call in calls if _makes_mask(layers[call.layer])}
    masks: set[TensorReference] = set()
    unequal: set[TensorReference] = set()
    for call in calls:
        class_name = layers[call.layer].class_name
        output = TensorReference(call.layer, call.call)
        if class_name == "NotEqual" and sources.issuperset(call.inputs):
            unequal.add(output)
        elif class_name == "Any" and unequal.issuperset(call.inputs):
            masks.add(output)
    return frozenset(masks | unequal)


def _makes_mask(layer: LayerConfig) -> bool:
    return layer.class_name == "Masking" or bool(layer.config.get("mask_zero"))
