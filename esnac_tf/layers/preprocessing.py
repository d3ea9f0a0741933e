"""Preprocessing of a model's input: always kept, and not part of what is searched."""

from __future__ import annotations

from typing import Any

from esnac_tf.architecture import LayerConfig
from esnac_tf.layers.handler import LayerHandler


class Preprocessing(LayerHandler):
    """Scaling, encoding and augmenting pictures, sounds, numbers and texts."""

    class_names = (
        "AugMix",
        "AutoContrast",
        "CategoryEncoding",
        "CenterCrop",
        "ContrastLimitedAdaptiveHistogramEqualization",
        "CutMix",
        "Discretization",
        "Equalization",
        "HashedCrossing",
        "Hashing",
        "IntegerLookup",
        "MaxNumBoundingBoxes",
        "MelSpectrogram",
        "MixUp",
        "Normalization",
        "Pipeline",
        "RandAugment",
        "RandomBrightness",
        "RandomColorDegeneration",
        "RandomColorJitter",
        "RandomContrast",
        "RandomCrop",
        "RandomElasticTransform",
        "RandomErasing",
        "RandomFlip",
        "RandomGaussianBlur",
        "RandomGrayscale",
        "RandomHue",
        "RandomInvert",
        "RandomPerspective",
        "RandomPosterization",
        "RandomRotation",
        "RandomSaturation",
        "RandomSharpness",
        "RandomShear",
        "RandomTranslation",
        "RandomZoom",
        "Rescaling",
        "Resizing",
        "STFTSpectrogram",
        "Solarization",
        "StringLookup",
        "TextVectorization",
    )
    is_preprocessing = True

    def is_parameter(self, layer: LayerConfig, weight: Any) -> bool:
        """What is trained: statistics and fixed filters are not."""
        return bool(weight.trainable)
