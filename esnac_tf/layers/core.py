"""Dense layers and those that do nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from esnac_tf.architecture import LayerConfig, Shape
from esnac_tf.layers.channels import ChannelTensor, ChannelTrace, Labels, place
from esnac_tf.layers.handler import LayerHandler, consume, create, elements


class Dense(LayerHandler):
    """Fully connected layer, on the last axis."""

    class_names = ("Dense",)
    kind = "dense"
    weight_axes = {"kernel": ("in", "out"), "bias": ("out",)}

    def propagate(
        self,
        layer: LayerConfig,
        inputs: Sequence[ChannelTensor],
        output_shape: tuple[int | None, ...],
        trace: ChannelTrace,
    ) -> Labels:
        """Consumes the input's channels and creates `units` new ones."""
        axis = len(output_shape) - 1
        consume(layer, inputs[0], len(inputs[0].shape) - 1, trace)
        return place(create(layer, layer.config["units"], trace), len(output_shape), axis)

    def resize(
        self, layer: LayerConfig, inputs: Sequence[ChannelTensor], output: ChannelTensor
    ) -> LayerConfig:
        """Sets `units`."""
        return layer.replace(units=output.labels.size)

    def multiply_adds(
        self, layer: LayerConfig, input_shapes: Sequence[Shape], output_shape: Shape
    ) -> int:
        """Input channels, for each element of the output."""
        return elements(output_shape) * (input_shapes[0][-1] or 1)


class PassThrough(LayerHandler):
    """Layers that treat each element alone and have no weights."""

    class_names: ClassVar[tuple[str, ...]] = ("Identity",)

    def propagate(
        self,
        layer: LayerConfig,
        inputs: Sequence[ChannelTensor],
        output_shape: tuple[int | None, ...],
        trace: ChannelTrace,
    ) -> Labels:
        """The input's labels."""
        return inputs[0].labels
