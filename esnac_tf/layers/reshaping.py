"""Layers that only move elements: a channel shuffle is two of them and a Permute."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from esnac_tf.architecture import LayerConfig
from esnac_tf.layers.channels import ChannelTensor, ChannelTrace, Labels, compress
from esnac_tf.layers.core import PassThrough
from esnac_tf.layers.handler import LayerHandler


class Flatten(LayerHandler):
    """All axes in one."""

    class_names = ("Flatten",)
    kind = "reshaping"
    moves_elements = True

    def propagate(
        self,
        layer: LayerConfig,
        inputs: Sequence[ChannelTensor],
        output_shape: tuple[int | None, ...],
        trace: ChannelTrace,
    ) -> Labels:
        """Each channel once for every position."""
        full = inputs[0].full()
        if full is None:
            return super().propagate(layer, inputs, output_shape, trace)
        if layer.config.get("data_format") == "channels_first" and full.ndim > 1:
            full = np.moveaxis(full, 0, -1)
        return full.reshape(-1)


class Reshape(LayerHandler):
    """The same elements in another shape.

    Where it splits the channels over several axes, what is kept must be the same number in
    every part, so that the student's shape can be written down.
    """

    class_names = ("Reshape",)
    kind = "reshaping"
    moves_elements = True

    def propagate(
        self,
        layer: LayerConfig,
        inputs: Sequence[ChannelTensor],
        output_shape: tuple[int | None, ...],
        trace: ChannelTrace,
    ) -> Labels:
        """The input's labels, reshaped as the tensor is."""
        full = inputs[0].full()
        if full is None or any(length is None for length in output_shape):
            return super().propagate(layer, inputs, output_shape, trace)
        labels = compress(full.reshape([length or 0 for length in output_shape]))
        if labels.size > labels.shape[-1] > 1:
            trace.balance(labels.reshape(-1, labels.shape[-1]))
        return labels

    def resize(
        self, layer: LayerConfig, inputs: Sequence[ChannelTensor], output: ChannelTensor
    ) -> LayerConfig:
        """Sets the target shape."""
        return layer.replace(target_shape=list(output.shape))


class Permute(PassThrough):
    """The same axes in another order."""

    class_names = ("Permute",)
    kind = "reshaping"
    moves_elements = True

    def propagate(
        self,
        layer: LayerConfig,
        inputs: Sequence[ChannelTensor],
        output_shape: tuple[int | None, ...],
        trace: ChannelTrace,
    ) -> Labels:
        """The input's labels, permuted as the tensor is."""
        return inputs[0].labels.transpose([axis - 1 for axis in layer.config["dims"]])


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
    kind = "reshaping"

    def propagate(
        self,
        layer: LayerConfig,
        inputs: Sequence[ChannelTensor],
        output_shape: tuple[int | None, ...],
        trace: ChannelTrace,
    ) -> Labels:
        """The input's labels; pinned where channels lie along an axis that changes."""
        for axis, length in enumerate(inputs[0].labels.shape):
            if length > 1 and inputs[0].shape[axis] != output_shape[axis]:
                return super(PassThrough, self).propagate(layer, inputs, output_shape, trace)
        return inputs[0].labels
