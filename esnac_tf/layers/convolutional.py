"""Convolutions: they make new channels of all channels of their input, or of each alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from esnac_tf.architecture import LayerConfig, Shape
from esnac_tf.layers.channels import (
    ChannelTensor,
    ChannelTrace,
    Labels,
    place,
    unlabelled,
)
from esnac_tf.layers.handler import (
    LayerHandler,
    channel_axis,
    compares_channels,
    consume,
    create,
    elements,
)


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
    weight_axes = {"kernel": (..., "in", "out"), "bias": ("out",)}

    def propagate(
        self,
        layer: LayerConfig,
        inputs: Sequence[ChannelTensor],
        output_shape: tuple[int | None, ...],
        trace: ChannelTrace,
    ) -> Labels:
        """Consumes the input's channels and creates `filters` new ones."""
        axis = channel_axis(layer, len(output_shape))
        filters, groups = layer.config["filters"], layer.config.get("groups", 1)
        channels = consume(layer, inputs[0], axis, trace)
        created = create(layer, filters, trace)
        if groups > 1:
            if channels is None:
                trace.pin(created)
            elif groups == filters and len(channels) == len(created):
                trace.tie(channels, created)
            else:
                trace.balance(channels.reshape(groups, -1))
                trace.balance(created.reshape(groups, -1))
        return place(created, len(output_shape), axis)

    def resize(
        self, layer: LayerConfig, inputs: Sequence[ChannelTensor], output: ChannelTensor
    ) -> LayerConfig:
        """Sets `filters`, and `groups` where there is one for each channel."""
        axis = channel_axis(layer, len(output.shape))
        width, groups = output.labels.size, layer.config["groups"]
        if groups == layer.config["filters"] and inputs[0].shape[axis] == width:
            groups = width
        return layer.replace(filters=width, groups=groups)

    def multiply_adds(
        self, layer: LayerConfig, input_shapes: Sequence[Shape], output_shape: Shape
    ) -> int:
        """Kernel size * input channels / groups, for each element of the output."""
        axis = 1 + channel_axis(layer, len(output_shape) - 1)
        channels = input_shapes[0][axis] or 1
        window = math.prod(layer.config["kernel_size"])
        return elements(output_shape) * window * channels // layer.config["groups"]

    def attributes(self, layer: LayerConfig) -> tuple[float, float, float, float]:
        """(kernel size, stride, padding, groups)."""
        return _attributes(layer)


class TransposedConvolution(LayerHandler):
    """Transposed convolution."""

    class_names = ("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
    kind = "convolution"
    weight_axes = {"kernel": (..., "out", "in"), "bias": ("out",)}

    def propagate(
        self,
        layer: LayerConfig,
        inputs: Sequence[ChannelTensor],
        output_shape: tuple[int | None, ...],
        trace: ChannelTrace,
    ) -> Labels:
        """Consumes the input's channels and creates `filters` new ones."""
        axis = channel_axis(layer, len(output_shape))
        consume(layer, inputs[0], axis, trace)
        return place(create(layer, layer.config["filters"], trace), len(output_shape), axis)

    def resize(
        self, layer: LayerConfig, inputs: Sequence[ChannelTensor], output: ChannelTensor
    ) -> LayerConfig:
        """Sets `filters`."""
        return layer.replace(filters=output.labels.size)

    def multiply_adds(
        self, layer: LayerConfig, input_shapes: Sequence[Shape], output_shape: Shape
    ) -> int:
        """Kernel size * filters, for each element of the input."""
        window = math.prod(layer.config["kernel_size"])
        return elements(input_shapes[0]) * window * int(layer.config["filters"])

    def attributes(self, layer: LayerConfig) -> tuple[float, float, float, float]:
        """(kernel size, stride, padding, groups)."""
        return _attributes(layer)


class DepthwiseConvolution(LayerHandler):
    """Depthwise convolution: each channel gives `depth_multiplier` channels of its own."""

    class_names = ("DepthwiseConv1D", "DepthwiseConv2D")
    kind = "depthwise_convolution"
    weight_axes = {"kernel": (..., "in", None), "bias": ("out",)}

    def propagate(
        self,
        layer: LayerConfig,
        inputs: Sequence[ChannelTensor],
        output_shape: tuple[int | None, ...],
        trace: ChannelTrace,
    ) -> Labels:
        """Repeats each channel of the input `depth_multiplier` times."""
        axis = channel_axis(layer, len(output_shape))
        channels = consume(layer, inputs[0], axis, trace)
        if channels is None:
            return unlabelled(output_shape)
        if compares_channels(layer.config["activation"]):
            trace.pin(channels)
        given = np.repeat(channels, layer.config["depth_multiplier"])
        return place(given, len(output_shape), axis)

    def multiply_adds(
        self, layer: LayerConfig, input_shapes: Sequence[Shape], output_shape: Shape
    ) -> int:
        """Kernel size, for each element of the output."""
        return elements(output_shape) * math.prod(layer.config["kernel_size"])

    def attributes(self, layer: LayerConfig) -> tuple[float, float, float, float]:
        """(kernel size, stride, padding, groups)."""
        return _attributes(layer)


class SeparableConvolution(Convolution):
    """Depthwise convolution followed by a 1x1 convolution, in one layer."""

    class_names = ("SeparableConv1D", "SeparableConv2D")
    weight_axes = {
        "depthwise_kernel": (..., "in", None),
        "pointwise_kernel": (..., "in_repeated", "out"),
        "bias": ("out",),
    }

    def resize(
        self, layer: LayerConfig, inputs: Sequence[ChannelTensor], output: ChannelTensor
    ) -> LayerConfig:
        """Sets `filters`."""
        return layer.replace(filters=output.labels.size)

    def multiply_adds(
        self, layer: LayerConfig, input_shapes: Sequence[Shape], output_shape: Shape
    ) -> int:
        """depth_multiplier * input channels * (kernel size + filters), for each position."""
        axis = 1 + channel_axis(layer, len(output_shape) - 1)
        filters = output_shape[axis] or 1
        positions = elements(output_shape) // filters
        channels = (input_shapes[0][axis] or 1) * int(layer.config["depth_multiplier"])
        return positions * channels * (math.prod(layer.config["kernel_size"]) + filters)
