"""Preprocessing of a model's input: always kept, and not part of what is searched."""

from __future__ import annotations

from esnac_tf.layers.handler import LayerHandler


class Preprocessing(LayerHandler):
    """Scaling, normalizing, resizing and augmenting pictures."""

    class_names = (
        "CenterCrop",
        "Normalization",
        "RandomBrightness",
        "RandomContrast",
        "RandomCrop",
        "RandomFlip",
        "RandomRotation",
        "RandomTranslation",
        "RandomZoom",
        "Rescaling",
        "Resizing",
    )
    is_preprocessing = True
    statistics = ("mean", "variance", "count")
