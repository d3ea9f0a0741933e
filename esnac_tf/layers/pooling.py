"""Pooling: each channel is pooled alone."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from esnac_tf.architecture import LayerConfig
from esnac_tf.layers.calls import OutputLabels, TensorCall, pinned
from esnac_tf.layers.channels import ChannelTrace
from esnac_tf.layers.core import PassThrough
from esnac_tf.layers.handler import channel_axis


class MaxPooling(PassThrough):
    """Maximum over a window."""

    class_names: ClassVar[tuple[str, ...]] = ("MaxPooling1D", "MaxPooling2D", "MaxPooling3D")
    keeps_zero: ClassVar[tuple[str, ...]] = class_names
    kind = "max_pooling"

    def propagate(self, call: TensorCall, trace: ChannelTrace) -> OutputLabels:
        """The input's labels; pinned where the channels are not where the layer has them."""
        tensor = call.inputs[0]
        if tensor.along(channel_axis(call.layer, len(call.output_shape))) is None:
            trace.pin(tensor.labels)
        return tensor.labels

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
    keeps_zero = class_names
    kind = "average_pooling"


class AdaptiveMaxPooling(MaxPooling):
    """Maximum over windows of the size that gives an output of a given size."""

    class_names = ("AdaptiveMaxPooling1D", "AdaptiveMaxPooling2D", "AdaptiveMaxPooling3D")
    keeps_zero = class_names

    def attributes(self, layer: LayerConfig) -> tuple[float, float, float, float]:
        """The windows differ in size from place to place: none is told."""
        return (0.0, 0.0, 0.0, 1.0)


class AdaptiveAveragePooling(AdaptiveMaxPooling):
    """Mean over windows of the size that gives an output of a given size."""

    class_names = (
        "AdaptiveAveragePooling1D",
        "AdaptiveAveragePooling2D",
        "AdaptiveAveragePooling3D",
    )
    keeps_zero = class_names
    kind = "average_pooling"


class GlobalMaxPooling(PassThrough):
    """Maximum over all positions."""

    class_names = ("GlobalMaxPooling1D", "GlobalMaxPooling2D", "GlobalMaxPooling3D")
    keeps_zero = class_names
    kind = "max_pooling"

    def propagate(self, call: TensorCall, trace: ChannelTrace) -> OutputLabels:
        """The input's channels, along the only axis that is left."""
        tensor = call.inputs[0]
        channels = tensor.along(channel_axis(call.layer, len(tensor.shape)))
        if channels is None:
            return pinned(call, trace)
        return tensor.labels if call.layer.config["keepdims"] else channels


class GlobalAveragePooling(GlobalMaxPooling):
    """Mean over all positions."""

    class_names = ("GlobalAveragePooling1D", "GlobalAveragePooling2D", "GlobalAveragePooling3D")
    keeps_zero = class_names
    kind = "average_pooling"
