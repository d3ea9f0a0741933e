"""Layers that act in training only: at inference they do nothing."""

from __future__ import annotations

from collections.abc import Sequence

from esnac_tf.architecture import LayerConfig
from esnac_tf.layers.channels import ChannelTensor, ChannelTrace, Labels
from esnac_tf.layers.core import PassThrough


class Regularization(PassThrough):
    """Dropout, noise and activity penalties."""

    class_names = (
        "ActivityRegularization",
        "AlphaDropout",
        "Dropout",
        "GaussianDropout",
        "GaussianNoise",
        "SpatialDropout1D",
        "SpatialDropout2D",
        "SpatialDropout3D",
    )

    def propagate(
        self,
        layer: LayerConfig,
        inputs: Sequence[ChannelTensor],
        output_shape: tuple[int | None, ...],
        trace: ChannelTrace,
    ) -> Labels:
        """The input's labels; pinned where the shape of the noise is written down."""
        if layer.config.get("noise_shape") is not None:
            trace.pin(inputs[0].labels)
        return inputs[0].labels
