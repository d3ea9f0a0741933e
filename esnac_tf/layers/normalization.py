"""Normalizations: most have one scale and one shift for each channel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from esnac_tf.architecture import LayerConfig
from esnac_tf.layers.calls import OutputLabels, TensorCall, pinned
from esnac_tf.layers.channels import ChannelTrace
from esnac_tf.layers.core import PassThrough
from esnac_tf.layers.handler import LayerHandler, consume
from esnac_tf.layers.weights import WeightAxes


class BatchNormalization(LayerHandler):
    """Batch normalization; its moving statistics follow their channels."""

    class_names: ClassVar[tuple[str, ...]] = ("BatchNormalization",)
    keeps_zero: ClassVar[tuple[str, ...]] = class_names
    kind = "normalization"
    statistics: ClassVar[tuple[str, ...]] = ("moving_mean", "moving_variance")

    def weight_axes(self, layer: LayerConfig) -> Mapping[str, WeightAxes]:
        """All weights have one entry for each channel."""
        names = ("gamma", "beta", "scale", "moving_mean", "moving_variance")
        return dict.fromkeys(names, ("in",))

    def propagate(self, call: TensorCall, trace: ChannelTrace) -> OutputLabels:
        """The input's labels; consumes its channels along the normalized axis."""
        axis = _only_axis(call)
        if axis is None:
            return pinned(call, trace)
        consume(call.layer, call.inputs[0], axis, trace)
        return call.inputs[0].labels


class LayerNormalization(BatchNormalization):
    """Normalization over the channels of each position.

    Its mean runs over the channels that are left, so even a channel that is always zero is
    missed: what a student gives without it is near what the teacher gives, not equal.
    """

    class_names = ("LayerNormalization", "RMSNormalization")
    statistics = ()


class GroupNormalization(BatchNormalization):
    """Normalization over blocks of channels, of which equally many must be kept.

    Where each channel is a block of its own (instance normalization), the blocks shrink with
    the channels.
    """

    class_names = ("GroupNormalization",)
    statistics = ()

    def propagate(self, call: TensorCall, trace: ChannelTrace) -> OutputLabels:
        """The input's labels; its channels are balanced over the blocks."""
        labels = super().propagate(call, trace)
        axis, groups = _only_axis(call), call.layer.config["groups"]
        channels = None if axis is None else call.inputs[0].along(axis)
        if channels is not None and 1 < groups < len(channels):
            trace.balance(channels.reshape(groups, -1))
        return labels

    def resize(self, call: TensorCall, widths: Mapping[str, int]) -> LayerConfig:
        """Sets `groups` where there is one for each channel."""
        if "in" not in widths:
            return call.layer
        return call.layer.replace(groups=min(call.layer.config["groups"], widths["in"]))


class LayerScale(LayerHandler):
    """The scale of each channel at the end of a ConvNeXt block."""

    application_names = ("LayerScale",)
    keeps_zero = application_names
    kind = "normalization"

    def weight_axes(self, layer: LayerConfig) -> Mapping[str, WeightAxes]:
        """One scale for each channel."""
        return {"gamma": ("in",)}

    def propagate(self, call: TensorCall, trace: ChannelTrace) -> OutputLabels:
        """The input's labels; consumes its channels, which lie along the last axis."""
        consume(call.layer, call.inputs[0], len(call.output_shape) - 1, trace)
        return call.inputs[0].labels

    def resize(self, call: TensorCall, widths: Mapping[str, int]) -> LayerConfig:
        """Sets `projection_dim`."""
        return call.layer.replace(projection_dim=widths["in"])


class UnitNormalization(PassThrough):
    """Division by the norm, which a channel that is zero does not change."""

    class_names = ("UnitNormalization",)
    operation_names = ("Normalize",)
    keeps_zero = (*class_names, *operation_names)
    kind = "normalization"

    def propagate(self, call: TensorCall, trace: ChannelTrace) -> OutputLabels:
        """The input's labels; pinned where channels that are not zero are in the norm."""
        tensor, axis = call.inputs[0], _only_axis(call)
        if not tensor.vanishes and (axis is None or axis in tensor.channel_axes):
            trace.pin(tensor.labels)
        return tensor.labels


def _only_axis(call: TensorCall) -> int | None:
    """The axis that is normalized, batch left out; None where there are several."""
    axis = call.layer.config["axis"]
    if isinstance(axis, (list, tuple)):
        if len(axis) != 1:
            return None
        axis = axis[0]
    return int(axis - 1 if axis > 0 else axis + len(call.output_shape))
