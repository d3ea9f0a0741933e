"""Layers that act in training only: at inference they do nothing."""

from __future__ import annotations

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
