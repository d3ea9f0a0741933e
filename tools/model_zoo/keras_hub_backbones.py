"""Backbones of keras-hub in small configurations.

Their constructors are the only things of keras-hub that are used: no weights are downloaded.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from model_zoo.case import Case

TITLE = "keras-hub"
DESCRIPTION = """Backbones of [keras-hub](https://keras.io/keras_hub/) in small configurations: two
layers of transformers, few blocks of convolutional networks, widths of tens of channels; texts of
fixed length. The blocks of transformers, and of some others, are layers of its own: they are
removed as a whole, and not narrowed. Some of these can't be made from what they tell of their
configuration, or can't be loaded: `keras.Model(backbone.input, backbone.output)`, too, can't be
saved and loaded then."""
PACKAGE = "keras-hub"

LENGTH = 12
PICTURE = (64, 64, 3)
TRANSFORMER = {"num_layers": 2, "num_heads": 4, "hidden_dim": 32, "intermediate_dim": 64}
TEXT_TRANSFORMER = {"vocabulary_size": 100, **TRANSFORMER}
# Several heads of queries share the keys and values of one.
GROUPED_QUERIES = {
    "vocabulary_size": 100,
    "num_layers": 2,
    "num_query_heads": 4,
    "num_key_value_heads": 2,
    "hidden_dim": 32,
    "intermediate_dim": 64,
}
RESNET = {
    "input_conv_filters": [64],
    "input_conv_kernel_sizes": [7],
    "stackwise_num_filters": [64, 64, 96],
    "stackwise_num_blocks": [2, 2, 2],
    "stackwise_num_strides": [1, 2, 2],
    "image_shape": PICTURE,
}
MIX_TRANSFORMER = {
    "layerwise_depths": [1, 2],
    "num_layers": 2,
    "layerwise_num_heads": [1, 2],
    "layerwise_sr_ratios": [4, 2],
    "max_drop_path_rate": 0.1,
    "layerwise_patch_sizes": [7, 3],
    "layerwise_strides": [4, 2],
    "hidden_dims": [16, 32],
    "image_shape": PICTURE,
}

# Name of a row: class, settings. A dictionary {class: settings} as a setting is a backbone, too.
BACKBONES: dict[str, tuple[str, dict[str, Any]]] = {
    "CSPNetBackbone, CSPDarkNet": (
        "CSPNetBackbone",
        {
            "stem_filters": 16,
            "stem_kernel_size": 3,
            "stem_strides": 1,
            "stackwise_depth": [1, 2, 2],
            "stackwise_strides": [2, 2, 2],
            "stackwise_num_filters": [16, 32, 64],
            "block_type": "dark_block",
            "stage_type": "csp",
            "bottle_ratio": [0.5, 1.0],
            "block_ratio": [1.0, 0.5],
            "expand_ratio": [2.0, 1.0],
            "stem_padding": "same",
            "down_growth": True,
            "image_shape": PICTURE,
        },
    ),
    "DeepLabV3Backbone": (
        "DeepLabV3Backbone",
        {
            "image_encoder": {"ResNetBackbone": {**RESNET, "block_type": "basic_block"}},
            "spatial_pyramid_pooling_key": "P4",
            "low_level_feature_key": "P2",
            "upsampling_size": 4,
            "dilation_rates": [2, 4],
            "image_shape": PICTURE,
        },
    ),
    "DenseNetBackbone": (
        "DenseNetBackbone",
        {"stackwise_num_repeats": [2, 3, 2], "growth_rate": 16, "image_shape": PICTURE},
    ),
    "EfficientNetBackbone": (
        "EfficientNetBackbone",
        {
            "stackwise_kernel_sizes": [3, 3, 5],
            "stackwise_num_repeats": [1, 2, 2],
            "stackwise_input_filters": [16, 16, 24],
            "stackwise_output_filters": [16, 24, 40],
            "stackwise_expansion_ratios": [1, 4, 4],
            "stackwise_squeeze_and_excite_ratios": [0.0, 0.25, 0.25],
            "stackwise_strides": [1, 2, 2],
            "stackwise_block_types": ["fused", "unfused", "v1"],
            "stackwise_width_coefficients": [1.0] * 3,
            "stackwise_depth_coefficients": [1.0] * 3,
            "num_features": 64,
            "input_shape": PICTURE,
        },
    ),
    "HGNetV2Backbone": (
        "HGNetV2Backbone",
        {
            "depths": [1, 2],
            "embedding_size": 16,
            "hidden_sizes": [32, 64],
            "stem_channels": [3, 8, 16],
            "hidden_act": "relu",
            "use_learnable_affine_block": True,
            "stackwise_stage_filters": [(16, 8, 32, 1, 2, 3), (32, 16, 64, 2, 2, 3)],
            "apply_downsample": [False, True],
            "use_lightweight_conv_block": [False, True],
            "image_shape": PICTURE,
        },
    ),
    "MiTBackbone": ("MiTBackbone", MIX_TRANSFORMER),
    "MobileNetBackbone, V3": (
        "MobileNetBackbone",
        {
            "stackwise_expansion": [[16, 24], [48, 72]],
            "stackwise_num_blocks": [2, 2],
            "stackwise_num_filters": [[16, 16], [24, 24]],
            "stackwise_kernel_size": [[3, 3], [5, 5]],
            "stackwise_num_strides": [[2, 1], [2, 1]],
            "stackwise_se_ratio": [[None, None], [0.25, 0.25]],
            "stackwise_activation": [["relu", "relu"], ["hard_swish", "hard_swish"]],
            "stackwise_padding": [[1, 1], [2, 2]],
            "output_num_filters": 64,
            "depthwise_filters": 16,
            "depthwise_stride": 2,
            "depthwise_residual": False,
            "last_layer_filter": 64,
            "squeeze_and_excite": 0.5,
            "image_shape": PICTURE,
        },
    ),
    "ResNetBackbone": ("ResNetBackbone", {**RESNET, "block_type": "basic_block"}),
    "ResNetBackbone, V2": (
        "ResNetBackbone",
        {**RESNET, "block_type": "bottleneck_block", "use_pre_activation": True},
    ),
    "RetinaNetBackbone": (
        "RetinaNetBackbone",
        {
            "image_encoder": {"ResNetBackbone": {**RESNET, "block_type": "basic_block"}},
            "min_level": 2,
            "max_level": 4,
            "use_p5": False,
            "image_shape": PICTURE,
        },
    ),
    "SegFormerBackbone": (
        "SegFormerBackbone",
        {"image_encoder": {"MiTBackbone": MIX_TRANSFORMER}, "projection_filters": 16},
    ),
    "SwinTransformerBackbone": (
        "SwinTransformerBackbone",
        {
            "image_shape": PICTURE,
            "embed_dim": 16,
            "depths": (2, 2),
            "num_heads": (2, 4),
            "window_size": 4,
        },
    ),
    "VGGBackbone": (
        "VGGBackbone",
        {
            "stackwise_num_repeats": [2, 2, 2],
            "stackwise_num_filters": [16, 32, 64],
            "image_shape": PICTURE,
        },
    ),
    "ViTBackbone": (
        "ViTBackbone",
        {
            "image_shape": PICTURE,
            "patch_size": 16,
            "num_layers": 2,
            "num_heads": 4,
            "hidden_dim": 32,
            "mlp_dim": 64,
        },
    ),
    "XceptionBackbone": (
        "XceptionBackbone",
        {
            "stackwise_conv_filters": [[16, 32], [32, 64], [64, 64]],
            "stackwise_pooling": [True, True, False],
            "image_shape": PICTURE,
        },
    ),
    "AlbertBackbone": ("AlbertBackbone", {**TEXT_TRANSFORMER, "embedding_dim": 16}),
    "BertBackbone": ("BertBackbone", TEXT_TRANSFORMER),
    "DebertaV3Backbone": ("DebertaV3Backbone", {**TEXT_TRANSFORMER, "bucket_size": 8}),
    "DistilBertBackbone": ("DistilBertBackbone", TEXT_TRANSFORMER),
    "FNetBackbone": (
        "FNetBackbone",
        {"vocabulary_size": 100, "num_layers": 2, "hidden_dim": 32, "intermediate_dim": 64},
    ),
    "GemmaBackbone": ("GemmaBackbone", {**GROUPED_QUERIES, "head_dim": 8}),
    "GPT2Backbone": ("GPT2Backbone", TEXT_TRANSFORMER),
    "LlamaBackbone": ("LlamaBackbone", GROUPED_QUERIES),
    "T5Backbone": ("T5Backbone", TEXT_TRANSFORMER),
    "WhisperBackbone": ("WhisperBackbone", {**TEXT_TRANSFORMER, "num_mels": 20}),
}


# Masks that leave nothing out, and the first and second of two texts.
VALUES = {
    "padding_mask": (1,),
    "encoder_padding_mask": (1,),
    "decoder_padding_mask": (1,),
    "segment_ids": (0, 1),
}


def cases() -> list[Case]:
    """Every backbone of `BACKBONES`."""
    return [
        Case(TITLE, name, functools.partial(of_fixed_length, *given), VALUES)
        for name, given in BACKBONES.items()
    ]


def of_fixed_length(class_name: str, settings: dict[str, Any]) -> Any:
    """A backbone; one that takes texts of any length is called on texts of `LENGTH`.

    Only then is it known which of its layers keep the shape that they take.
    """
    import keras

    model = backbone(class_name, settings)
    if all(None not in tensor.shape[1:] for tensor in model.inputs):
        return model

    def fixed(tensor: Any) -> Any:
        shape = [length or LENGTH for length in tensor.shape[1:]]
        return keras.Input(shape, dtype=tensor.dtype, name=tensor.name)

    inputs = keras.tree.map_structure(fixed, model.input)
    return keras.Model(inputs, model(inputs), name=model.name)


def backbone(class_name: str, settings: dict[str, Any]) -> Any:
    """A backbone with random weights."""
    import keras_hub

    constructor: Callable[..., Any] = getattr(keras_hub.models, class_name)
    return constructor(
        **{
            key: backbone(*next(iter(value.items()))) if isinstance(value, dict) else value
            for key, value in settings.items()
        }
    )
