"""Pooling: each channel is pooled alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from esnac_tf.architecture import LayerConfig
from esnac_tf.layers.channels import ChannelTensor, ChannelTrace, Labels
from esnac_tf.layers.core import PassThrough
from esnac_tf.layers.handler import channel_axis


class MaxPooling(PassThrough):
    """Maximum over a window."""

    class_names = ("MaxPooling1D", "MaxPooling2D", "MaxPooling3D")
    kind = "max_pooling"

    def propagate(
        self,
        layer: LayerConfig,
        inputs: Sequence[ChannelTensor],
        output_shape: tuple[int | None, ...],
        trace: ChannelTrace,
    ) -> Labels:
        """The input's labels."""
        if inputs[0].along(channel_axis(layer, len(output_shape))) is None:
            trace.pin(inputs[0].labels)
        return inputs[0].labels

    def attributes(self, layer: LayerConfig) -> tuple[float, float, float, float]:
        """(window, stride, padding, 1)."""
        config = layer.config
        return (
            float(np.mean(config["pool_size"])),
            float(np.mean(config["strides"])),
            float(config["padding"] != "valid"),
            1.0,
        )


class AveragePooling(MaxPooling):
    """Mean over a window."""

    class_names = ("AveragePooling1D", "AveragePooling2D", "AveragePooling3D")
    kind = "average_pooling"


class GlobalMaxPooling(PassThrough):
    """Maximum over all positions."""

    class_names = ("GlobalMaxPooling1D", "GlobalMaxPooling2D", "GlobalMaxPooling3D")
    kind = "max_pooling"

    def propagate(
        self,
        layer: LayerConfig,
        inputs: Sequence[ChannelTensor],
        output_shape: tuple[int | None, ...],
        trace: ChannelTrace,
    ) -> Labels:
        """The input's channels, along the only axis that is left."""
        channels = inputs[0].along(channel_axis(layer, len(inputs[0].shape)))
        if channels is None:
            return super(PassThrough, self).propagate(layer, inputs, output_shape, trace)
        if layer.config["keepdims"]:
            return inputs[0].labels
        return channels


class GlobalAveragePooling(GlobalMaxPooling):
    """Mean over all positions."""

    class_names = ("GlobalAveragePooling1D", "GlobalAveragePooling2D", "GlobalAveragePooling3D")
    kind = "average_pooling"
