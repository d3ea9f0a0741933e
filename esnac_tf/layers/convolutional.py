"""Convolutions: they make new channels of all channels of their input, or of each alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from esnac_tf.architecture import LayerConfig
from esnac_tf.layers.calls import OutputLabels, TensorCall, pinned
from esnac_tf.layers.channels import ChannelTrace, place
from esnac_tf.layers.handler import (
    LayerHandler,
    channel_axis,
    compares_channels,
    consume,
    create,
    elements,
    keeps_zero,
)
from esnac_tf.layers.weights import Axis, WeightAxes


def _attributes(layer: LayerConfig) -> tuple[float, float, float, float]:
    config = layer.config
    return (
        float(np.mean(config["kernel_size"])),
        float(np.mean(config["strides"])),
        float(config["padding"] != "valid"),
        float(config.get("groups", 1)),
    )


class Convolution(LayerHandler):
    """Convolution with any number of groups.

    A grouped convolution splits its input and its output into blocks of equal size, so of each
    block equally many channels must be kept. With one group a channel (a depthwise
    convolution written as a grouped one) the groups shrink with the channels.
    """

    class_names: ClassVar[tuple[str, ...]] = ("Conv1D", "Conv2D", "Conv3D")
    kind = "convolution"

    def weight_axes(self, layer: LayerConfig) -> Mapping[str, WeightAxes]:
        """The kernel of a group has the channels of its own block only."""
        groups = layer.config.get("groups", 1)
        return {"kernel": (..., Axis("in", groups=groups), "out"), "bias": ("out",)}

    def propagate(self, call: TensorCall, trace: ChannelTrace) -> OutputLabels:
        """Consumes the input's channels and creates `filters` new ones."""
        layer, rank = call.layer, len(call.output_shape)
        axis = channel_axis(layer, rank)
        filters, groups = layer.config["filters"], layer.config.get("groups", 1)
        channels = consume(layer, call.inputs[0], axis, trace)
        created = create(layer, filters, trace)
        if groups > 1:
            if channels is None:
                trace.pin(created)
            elif groups == filters and len(channels) == len(created):
                trace.tie(channels, created)
            else:
                trace.balance(channels.reshape(groups, -1))
                trace.balance(created.reshape(groups, -1))
        return place(created, rank, axis)

    def vanishes(self, call: TensorCall) -> bool:
        """Where the activation keeps zero."""
        return keeps_zero(call.layer.config["activation"])

    def resize(self, call: TensorCall, widths: Mapping[str, int]) -> LayerConfig:
        """Sets `filters`, and `groups` where there is one for each channel."""
        axis = channel_axis(call.layer, len(call.output_shape))
        width, groups = widths["out"], call.layer.config["groups"]
        if groups == call.layer.config["filters"] and call.inputs[0].shape[axis] == width:
            groups = width
        return call.layer.replace(filters=width, groups=groups)

    def multiply_adds(self, call: TensorCall) -> int:
        """Kernel size * input channels / groups, for each element of the output."""
        config = call.layer.config
        channels = call.inputs[0].shape[channel_axis(call.layer, len(call.output_shape))] or 1
        window = math.prod(config["kernel_size"])
        return elements(call.output_shape) * window * channels // int(config["groups"])

    def attributes(self, layer: LayerConfig) -> tuple[float, float, float, float]:
        """(kernel size, stride, padding, groups)."""
        return _attributes(layer)


class TransposedConvolution(LayerHandler):
    """Transposed convolution."""

    class_names = ("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
    kind = "convolution"

    def weight_axes(self, layer: LayerConfig) -> Mapping[str, WeightAxes]:
        """The kernel has its axes the other way round."""
        return {"kernel": (..., "out", "in"), "bias": ("out",)}

    def propagate(self, call: TensorCall, trace: ChannelTrace) -> OutputLabels:
        """Consumes the input's channels and creates `filters` new ones."""
        layer, rank = call.layer, len(call.output_shape)
        axis = channel_axis(layer, rank)
        consume(layer, call.inputs[0], axis, trace)
        return place(create(layer, layer.config["filters"], trace), rank, axis)

    def vanishes(self, call: TensorCall) -> bool:
        """Where the activation keeps zero."""
        return keeps_zero(call.layer.config["activation"])

    def resize(self, call: TensorCall, widths: Mapping[str, int]) -> LayerConfig:
        """Sets `filters`."""
        return call.layer.replace(filters=widths["out"])

    def multiply_adds(self, call: TensorCall) -> int:
        """Kernel size * filters, for each element of the input."""
        config = call.layer.config
        window = math.prod(config["kernel_size"])
        return elements(call.inputs[0].shape) * window * int(config["filters"])

    def attributes(self, layer: LayerConfig) -> tuple[float, float, float, float]:
        """(kernel size, stride, padding, groups)."""
        return _attributes(layer)


class DepthwiseConvolution(LayerHandler):
    """Depthwise convolution: each channel gives `depth_multiplier` channels of its own."""

    class_names = ("DepthwiseConv1D", "DepthwiseConv2D")
    keeps_zero = class_names
    kind = "depthwise_convolution"

    def weight_axes(self, layer: LayerConfig) -> Mapping[str, WeightAxes]:
        """The bias has `depth_multiplier` entries for each channel."""
        repeated = Axis("in", repeat=layer.config["depth_multiplier"])
        return {"kernel": (..., "in", None), "bias": (repeated,)}

    def propagate(self, call: TensorCall, trace: ChannelTrace) -> OutputLabels:
        """Repeats each channel of the input `depth_multiplier` times."""
        layer, rank = call.layer, len(call.output_shape)
        axis = channel_axis(layer, rank)
        channels = consume(layer, call.inputs[0], axis, trace)
        if channels is None:
            return pinned(call, trace)
        if compares_channels(layer.config["activation"]):
            trace.pin(channels)
        given = np.repeat(channels, layer.config["depth_multiplier"])
        return place(given, rank, axis)

    def multiply_adds(self, call: TensorCall) -> int:
        """Kernel size, for each element of the output."""
        return elements(call.output_shape) * math.prod(call.layer.config["kernel_size"])

    def attributes(self, layer: LayerConfig) -> tuple[float, float, float, float]:
        """(kernel size, stride, padding, groups)."""
        return _attributes(layer)


class SeparableConvolution(Convolution):
    """Depthwise convolution followed by a 1x1 convolution, in one layer."""

    class_names = ("SeparableConv1D", "SeparableConv2D")

    def weight_axes(self, layer: LayerConfig) -> Mapping[str, WeightAxes]:
        """Between its two kernels each channel lies `depth_multiplier` times."""
        repeated = Axis("in", repeat=layer.config["depth_multiplier"])
        return {
            "depthwise_kernel": (..., "in", None),
            "pointwise_kernel": (..., repeated, "out"),
            "bias": ("out",),
        }

    def resize(self, call: TensorCall, widths: Mapping[str, int]) -> LayerConfig:
        """Sets `filters`."""
        return call.layer.replace(filters=widths["out"])

    def multiply_adds(self, call: TensorCall) -> int:
        """depth_multiplier * input channels * (kernel size + filters), for each position."""
        config = call.layer.config
        axis = channel_axis(call.layer, len(call.output_shape))
        filters = call.output_shape[axis] or 1
        positions = elements(call.output_shape) // filters
        channels = (call.inputs[0].shape[axis] or 1) * int(config["depth_multiplier"])
        return positions * channels * (math.prod(config["kernel_size"]) + filters)
