"""What a model costs: parameters and multiply-adds."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from esnac_tf.architecture import Architecture, LayerCall, LayerConfig
from esnac_tf.graph.channels import tensor_call
from esnac_tf.graph.parsing import is_functional, read
from esnac_tf.layers import handler_of
from esnac_tf.layers.channels import ChannelTensor, unlabelled


def count_params(model: keras.Model) -> int:
    """Parameters of a functional or Sequential model.

    Weights that are learned; the moving statistics of BatchNormalization and the statistics of
    preprocessing layers do not count. Frozen layers count.

    Example:
        >>> inputs = keras.Input((4,))
        >>> hidden = keras.layers.BatchNormalization()(keras.layers.Dense(3)(inputs))
        >>> count_params(keras.Model(inputs, hidden))
        21
    """
    weights = {id(weight): weight for weight in _model_parameters(model)}  # each once
    return sum(int(np.prod(weight.shape)) for weight in weights.values())


def layer_parameters(layer: Any, config: LayerConfig) -> list[Any]:
    """The weights of a layer or op that are parameters; of a nested model, those in it."""
    if isinstance(layer, keras.Model) and is_functional(layer):
        return _model_parameters(layer)
    handler = handler_of(config)
    return [
        weight for weight in getattr(layer, "weights", ()) if handler.is_parameter(config, weight)
    ]


def _model_parameters(model: keras.Model) -> list[Any]:
    architecture, layers = read(model)
    return [
        weight
        for name, layer in layers.items()
        for weight in layer_parameters(layer, architecture.layers[name])
    ]


def count_flops(model: keras.Model) -> int:
    """Multiply-adds of one example.

    Convolutions, dense and recurrent layers and attention count, nested functional models by
    what is in them; elementwise and unknown layers do not. An axis whose length is not known
    counts as 1.

    Example:
        >>> inputs = keras.Input((4,))
        >>> count_flops(keras.Model(inputs, keras.layers.Dense(3)(inputs)))
        12
    """
    architecture, layers = read(model)
    total = 0
    for call in architecture.calls:
        layer = layers[call.layer]
        if isinstance(layer, keras.Model):
            total += count_flops(layer) if is_functional(layer) else 0
        elif call.inputs:
            total += call_multiply_adds(architecture, call)
    return total


def call_multiply_adds(architecture: Architecture, call: LayerCall) -> int:
    """Multiply-adds of one call of a layer that is no model, for one example."""
    tensors = {}
    for reference in call.inputs:
        shape = architecture.shapes[reference][1:]
        tensors[reference] = ChannelTensor(shape, unlabelled(shape))
    with_tensors = tensor_call(architecture, call, tensors)
    return handler_of(with_tensors.layer).multiply_adds(with_tensors)
