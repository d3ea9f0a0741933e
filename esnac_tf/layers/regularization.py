"""Layers that act in training only: at inference they do nothing."""

from __future__ import annotations

from esnac_tf.layers.calls import OutputLabels, TensorCall
from esnac_tf.layers.channels import ChannelTrace
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

    def propagate(self, call: TensorCall, trace: ChannelTrace) -> OutputLabels:
        """The input's labels; pinned where the shape of the noise is written down."""
        if call.layer.config.get("noise_shape") is not None:
            trace.pin(call.inputs[0].labels)
        return call.inputs[0].labels
