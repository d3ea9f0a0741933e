"""Layers that merge several tensors: elementwise, or one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from esnac_tf.architecture import LayerConfig
from esnac_tf.layers.channels import (
    PINNED,
    ChannelTensor,
    ChannelTrace,
    Labels,
    combine,
    unlabelled,
)
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
        "Divide",
        "Maximum",
        "Minimum",
        "Multiply",
        "Subtract",
        "TrueDivide",
    )
    kind = "merging"

    def propagate(
        self,
        layer: LayerConfig,
        inputs: Sequence[ChannelTensor],
        output_shape: tuple[int | None, ...],
        trace: ChannelTrace,
    ) -> Labels:
        """Ties the channels of all inputs element by element."""
        if any(len(tensor.shape) > len(output_shape) for tensor in inputs):
            return super().propagate(layer, inputs, output_shape, trace)
        return combine(list(inputs), trace)


class Sum(Elementwise):
    """Sum of tensors: what a residual connection ends in."""

    class_names = ("Add",)
    operation_names = ("Add",)
    is_sum = True


class Concatenate(LayerHandler):
    """Tensors one after the other along an axis."""

    class_names = ("Concatenate",)
    kind = "merging"

    def propagate(
        self,
        layer: LayerConfig,
        inputs: Sequence[ChannelTensor],
        output_shape: tuple[int | None, ...],
        trace: ChannelTrace,
    ) -> Labels:
        """The inputs' labels one after the other; along another axis, their channels tied."""
        rank = len(output_shape)
        axis = layer.config["axis"]
        axis = axis - 1 if axis > 0 else axis + rank
        if axis < 0 or any(tensor.shape[axis] is None for tensor in inputs):
            return super().propagate(layer, inputs, output_shape, trace)
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
            return super().propagate(layer, inputs, output_shape, trace)
        for tensor in inputs[1:]:
            if tensor.labels.shape != inputs[0].labels.shape:
                for pinned in inputs:
                    trace.pin(pinned.labels)
                return unlabelled(output_shape)
            trace.tie(inputs[0].labels, tensor.labels)
        return inputs[0].labels
