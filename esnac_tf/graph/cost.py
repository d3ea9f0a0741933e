"""What a model costs: parameters and multiply-adds."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from esnac_tf.architecture import LayerConfig
from esnac_tf.graph.parsing import functional_model, is_functional, parse
from esnac_tf.layers import handler_of


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
    configs = parse(model).layers
    return [
        weight
        for layer in functional_model(model).operations
        for weight in layer_parameters(layer, configs[layer.name])
    ]


def count_flops(model: keras.Model) -> int:
    """Multiply-adds of one example.

    Convolutions and dense layers count, nested functional models by what is in them;
    elementwise and unknown layers do not. An axis whose length is not known counts as 1.

    Example:
        >>> inputs = keras.Input((4,))
        >>> count_flops(keras.Model(inputs, keras.layers.Dense(3)(inputs)))
        12
    """
    architecture = parse(model)
    layers = {layer.name: layer for layer in functional_model(model).operations}
    total = 0
    for call in architecture.calls:
        layer = layers[call.layer]
        if isinstance(layer, keras.Model):
            total += count_flops(layer) if is_functional(layer) else 0
        elif call.inputs:
            config = architecture.layer_of(call)
            shapes = [architecture.shapes[reference] for reference in call.inputs]
            output_shape = architecture.shapes[architecture.outputs_of(call)[0]]
            total += handler_of(config).multiply_adds(config, shapes, output_shape)
    return total
