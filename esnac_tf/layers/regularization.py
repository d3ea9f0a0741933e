"""Layers that act in training only: at inference they do nothing."""

from __future__ import annotations

from esnac_tf.layers.calls import OutputLabels, TensorCall
from esnac_tf.layers.channels import ChannelTrace, channel_axes
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
    application_names = ("StochasticDepth",)
    keeps_zero = (*class_names, *application_names)

    def propagate(self, call: TensorCall, trace: ChannelTrace) -> OutputLabels:
        """The input's labels; pinned where the noise's shape holds their number."""
        tensor = call.inputs[0]
        noise_shape = call.layer.config.get("noise_shape")
        # With the batch axis; None is the tensor's own length, 1 one noise for all.
        if noise_shape is not None and any(
            noise_shape[axis + 1] not in (None, 1) for axis in channel_axes(tensor.labels)
        ):
            trace.pin(tensor.labels)
        return tensor.labels
