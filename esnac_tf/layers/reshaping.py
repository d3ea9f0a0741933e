"""Layers that only move elements: a channel shuffle is two Reshapes and a Permute."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from esnac_tf.architecture import LayerConfig
from esnac_tf.layers.calls import OutputLabels, TensorCall, pinned
from esnac_tf.layers.channels import ChannelTensor, ChannelTrace, Labels, compress
from esnac_tf.layers.core import PassThrough
from esnac_tf.layers.handler import LayerHandler, elements


class Flatten(LayerHandler):
    """All axes in one."""

    class_names = ("Flatten",)
    keeps_zero = class_names
    kind = "reshaping"
    moves_elements = True

    def propagate(self, call: TensorCall, trace: ChannelTrace) -> OutputLabels:
        """Each channel once for every position."""
        full = call.inputs[0].full()
        if full is None:
            return pinned(call, trace)
        if call.layer.config.get("data_format") == "channels_first" and full.ndim > 1:
            full = np.moveaxis(full, 0, -1)
        return full.reshape(-1)


class Reshape(LayerHandler):
    """The same elements in another shape.

    Where it splits the channels over several axes, what is kept must be the same number in
    every part, so that the student's shape can be written down.
    """

    class_names = ("Reshape",)
    keeps_zero = class_names
    kind = "reshaping"
    moves_elements = True

    def propagate(self, call: TensorCall, trace: ChannelTrace) -> OutputLabels:
        """The input's labels, reshaped as the tensor is."""
        labels = reshaped(call.inputs[0], call.output_shape, trace)
        return pinned(call, trace) if labels is None else labels

    def resize(self, call: TensorCall, widths: Mapping[str, int]) -> LayerConfig:
        """Sets the target shape."""
        if None in call.output_shape:  # nothing that can be removed passes such a layer
            return call.layer
        return call.layer.replace(target_shape=list(call.output_shape))


class Permute(PassThrough):
    """The same axes in another order."""

    class_names = ("Permute",)
    keeps_zero = class_names
    kind = "reshaping"
    moves_elements = True

    def propagate(self, call: TensorCall, trace: ChannelTrace) -> OutputLabels:
        """The input's labels, permuted as the tensor is."""
        dims = call.layer.config["dims"]
        return call.inputs[0].labels.transpose([axis - 1 for axis in dims])


class RepeatVector(LayerHandler):
    """A vector `n` times, one below the other."""

    class_names = ("RepeatVector",)
    keeps_zero = class_names
    kind = "reshaping"

    def propagate(self, call: TensorCall, trace: ChannelTrace) -> OutputLabels:
        """The input's channels along the last axis."""
        return call.inputs[0].labels[None]


class Spatial(PassThrough):
    """Padding, cropping and resizing of positions; channels stay where they are."""

    class_names = (
        "Cropping1D",
        "Cropping2D",
        "Cropping3D",
        "UpSampling1D",
        "UpSampling2D",
        "UpSampling3D",
        "ZeroPadding1D",
        "ZeroPadding2D",
        "ZeroPadding3D",
    )
    operation_names = ("Pad", "Repeat", "Tile")
    keeps_zero = (*class_names, "Repeat", "Tile")
    kind = "reshaping"

    def propagate(self, call: TensorCall, trace: ChannelTrace) -> OutputLabels:
        """The input's labels; pinned where channels lie along an axis that changes."""
        tensor = call.inputs[0]
        if len(tensor.shape) != len(call.output_shape):
            return pinned(call, trace)
        for axis, length in enumerate(tensor.labels.shape):
            if length > 1 and tensor.shape[axis] != call.output_shape[axis]:
                return pinned(call, trace)
        return tensor.labels


def reshaped(
    tensor: ChannelTensor, shape: tuple[int | None, ...], trace: ChannelTrace
) -> Labels | None:
    """The labels of a tensor in another shape.

    None where an axis is not known, or where positions become examples of the batch.
    """
    full = tensor.full()
    if full is None or None in shape or full.size != elements(shape):
        return None
    labels = compress(full.reshape([length or 0 for length in shape]))
    if labels.size > labels.shape[-1] > 1:
        trace.balance(labels.reshape(-1, labels.shape[-1]))
    return labels
