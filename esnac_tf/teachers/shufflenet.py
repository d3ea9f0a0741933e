"""ShuffleNet for small pictures (Zhang et al. 2018, arXiv 1707.01083)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras

from esnac_tf.errors import UserError
from esnac_tf.teachers.blocks import (
    batch_norm,
    convolution,
    picture_input,
    pooled_classifier,
    relu,
)

if TYPE_CHECKING:
    from esnac_tf.teachers import Normalization

_GROUPS = 2
_NUM_BLOCKS = (4, 8, 4)


def shufflenet(
    input_shape: tuple[int, ...],
    num_classes: int,
    width: int = 200,
    normalization: Normalization | None = None,
) -> keras.Model:
    """ShuffleNet with 2 groups: a 1x1 stem and stages of 4, 8 and 4 blocks.

    Args:
        input_shape: (height, width, channels) of a picture.
        num_classes: C, the number of logits.
        width: Channels of the first stage, a multiple of 8 from 32; the later stages have 2
            and 4 times as many, the stem 24.
        normalization: Mean and standard deviation of each channel, or None.

    Returns:
        A model from [B, height, width, channels] to logits [B, C].

    Raises:
        UserError: The width is not a multiple of 8 or below 32.

    Example:
        >>> shufflenet((32, 32, 3), 10, width=40).output_shape
        (None, 10)
    """
    if width % 8 or width < 32:
        raise UserError(
            f"Teacher 'shufflenet' needs a width that is a multiple of 8 and at least 32, "
            f"received {width}.\nGive for instance shufflenet(width=40)."
        )
    inputs, tensor = picture_input(input_shape, normalization)
    tensor = convolution(tensor, 24, 1, "stem_conv")
    tensor = relu(batch_norm(tensor, "stem_bn"), "stem_relu")
    for stage, blocks in enumerate(_NUM_BLOCKS):
        filters = width * 2**stage
        for block in range(blocks):
            prefix = f"stage{stage + 1}_block{block + 1}"
            first_groups = 1 if stage == block == 0 else _GROUPS
            tensor = _block(tensor, filters, first_groups, block == 0, prefix)
    return keras.Model(inputs, pooled_classifier(tensor, num_classes), name="shufflenet")


def _block(tensor: Any, filters: int, first_groups: int, downsample: bool, prefix: str) -> Any:
    """1x1 grouped convolution, shuffle, 3x3 depthwise convolution, 1x1 grouped convolution."""
    shortcut = tensor
    channels = tensor.shape[-1]
    given = filters - channels if downsample else filters
    tensor = convolution(tensor, given // 4, 1, f"{prefix}_conv1", groups=first_groups)
    tensor = relu(batch_norm(tensor, f"{prefix}_bn1"), f"{prefix}_relu1")
    tensor = _channel_shuffle(tensor, f"{prefix}_shuffle")
    tensor = keras.layers.DepthwiseConv2D(
        3,
        strides=2 if downsample else 1,
        padding="same",
        use_bias=False,
        depthwise_initializer="he_normal",
        name=f"{prefix}_conv2",
    )(tensor)
    tensor = batch_norm(tensor, f"{prefix}_bn2")
    tensor = convolution(tensor, given, 1, f"{prefix}_conv3", groups=_GROUPS)
    tensor = batch_norm(tensor, f"{prefix}_bn3")
    if downsample:
        shortcut = convolution(shortcut, channels, 1, f"{prefix}_shortcut_conv", groups=_GROUPS)
        shortcut = keras.layers.AveragePooling2D(
            3, strides=2, padding="same", name=f"{prefix}_shortcut_pool"
        )(shortcut)
        tensor = keras.layers.Concatenate(name=f"{prefix}_concat")([tensor, shortcut])
    else:
        tensor = keras.layers.Add(name=f"{prefix}_add")([tensor, shortcut])
    return relu(tensor, f"{prefix}_relu3")


def _channel_shuffle(tensor: Any, prefix: str) -> Any:
    """Channels of the groups one after the other, so that the next groups mix them."""
    height, width, channels = tensor.shape[1:]
    split = (height, width, _GROUPS, channels // _GROUPS)
    tensor = keras.layers.Reshape(split, name=f"{prefix}_split")(tensor)
    tensor = keras.layers.Permute((1, 2, 4, 3), name=f"{prefix}_permute")(tensor)
    return keras.layers.Reshape((height, width, channels), name=f"{prefix}_join")(tensor)
