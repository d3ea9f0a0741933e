"""What a model costs: parameters and multiply-adds."""

from __future__ import annotations

import keras
import numpy as np

from esnac_tf.graph.parsing import functional_model, parse
from esnac_tf.layers import handler_of
from esnac_tf.layers.handler import is_parameter


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
    configs = parse(model).layers
    return sum(
        int(np.prod(weight.shape))
        for layer in functional_model(model).operations
        for weight in getattr(layer, "weights", ())
        if is_parameter(configs[layer.name], weight)
    )


def count_flops(model: keras.Model) -> int:
    """Multiply-adds of one example.

    Convolutions and dense layers count, nested models by what is in them; elementwise layers
    do not. An axis whose length is not known counts as 1.

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
            total += count_flops(layer)
        elif call.inputs:
            config = architecture.layer_of(call)
            shapes = [architecture.shapes[reference] for reference in call.inputs]
            output_shape = architecture.shapes[call.output]
            total += handler_of(config).multiply_adds(config, shapes, output_shape)
    return total
