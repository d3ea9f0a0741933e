"""Layers that merge several tensors: elementwise, or one after the other."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from esnac_tf.layers.calls import OutputLabels, TensorCall, pinned
from esnac_tf.layers.channels import PINNED, ChannelTensor, ChannelTrace, combine
from esnac_tf.layers.handler import LayerHandler


class Elementwise(LayerHandler):
    """Product, mean, maximum, ... of tensors: channels that meet stay together."""

    class_names: ClassVar[tuple[str, ...]] = (
        "Average",
        "Maximum",
        "Minimum",
        "Multiply",
        "Subtract",
    )
    operation_names: ClassVar[tuple[str, ...]] = (
        "Arctan2",
        "Divide",
        "DivideNoNan",
        "FloorDivide",
        "Hypot",
        "Logaddexp",
        "Maximum",
        "Minimum",
        "Mod",
        "Multiply",
        "Power",
        "Subtract",
        "TrueDivide",
    )
    kind = "merging"

    def propagate(self, call: TensorCall, trace: ChannelTrace) -> OutputLabels:
        """Ties the channels of all inputs element by element.

        A constant that is no plain number may differ from channel to channel: it pins them.
        """
        tensors = call.inputs
        constants = [*call.args, *call.kwargs.values()] if not call.layer.is_keras_layer else []
        plain = all(isinstance(value, (ChannelTensor, int, float)) for value in constants)
        if not plain or any(len(tensor.shape) > len(call.output_shape) for tensor in tensors):
            return pinned(call, trace)
        return combine(list(tensors), trace)


class Sum(Elementwise):
    """Sum of tensors: what a residual connection ends in."""

    class_names = ("Add",)
    operation_names = ("Add",)
    is_sum = True


class Concatenate(LayerHandler):
    """Tensors one after the other along an axis."""

    class_names = ("Concatenate",)
    operation_names = ("Concatenate",)
    kind = "merging"

    def propagate(self, call: TensorCall, trace: ChannelTrace) -> OutputLabels:
        """The inputs' labels one after the other; along another axis, their channels tied."""
        rank, inputs = len(call.output_shape), call.inputs
        axis = call.layer.config["axis"]
        axis = axis - 1 if axis >= 0 else axis + rank
        if axis < 0 or any(tensor.shape[axis] is None for tensor in inputs):
            return pinned(call, trace)
        along = [tensor.along(axis) for tensor in inputs]
        if any(channels is not None for channels in along):
            parts = []
            for tensor, channels in zip(inputs, along, strict=True):
                if channels is None:
                    trace.pin(tensor.labels)
                    channels = np.full(tensor.shape[axis] or 0, PINNED)
                parts.append(channels)
            shape = [1] * rank
            shape[axis] = -1
            return np.concatenate(parts).reshape(shape)
        if any(axis in tensor.channel_axes for tensor in inputs):
            return pinned(call, trace)
        for tensor in inputs[1:]:
            if tensor.labels.shape != inputs[0].labels.shape:
                return pinned(call, trace)
            trace.tie(inputs[0].labels, tensor.labels)
        return inputs[0].labels
