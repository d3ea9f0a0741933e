"""Normalizations: one scale and one shift for each channel."""

from __future__ import annotations

from collections.abc import Sequence

from esnac_tf.architecture import LayerConfig
from esnac_tf.layers.channels import ChannelTensor, ChannelTrace, Labels
from esnac_tf.layers.handler import LayerHandler, consume


class BatchNormalization(LayerHandler):
    """Batch normalization; its moving statistics follow their channels."""

    class_names = ("BatchNormalization",)
    kind = "normalization"
    weight_axes = {
        "gamma": ("in",),
        "beta": ("in",),
        "moving_mean": ("in",),
        "moving_variance": ("in",),
    }
    statistics = ("moving_mean", "moving_variance")

    def propagate(
        self,
        layer: LayerConfig,
        inputs: Sequence[ChannelTensor],
        output_shape: tuple[int | None, ...],
        trace: ChannelTrace,
    ) -> Labels:
        """The input's labels; consumes its channels along the normalized axis."""
        axis = layer.config["axis"]
        if isinstance(axis, (list, tuple)):
            axis = axis[0]
        consume(layer, inputs[0], axis - 1 if axis > 0 else axis + len(output_shape), trace)
        return inputs[0].labels
