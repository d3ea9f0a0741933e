"""ResNets for small pictures (He et al. 2016, arXiv 1512.03385, basic blocks)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras

from esnac_tf.teachers.blocks import (
    batch_norm,
    convolution,
    picture_input,
    pooled_classifier,
    relu,
)

if TYPE_CHECKING:
    from esnac_tf.teachers import Normalization


def resnet18(
    input_shape: tuple[int, ...],
    num_classes: int,
    width: int = 64,
    normalization: Normalization | None = None,
) -> keras.Model:
    """ResNet-18: a 3x3 stem and four stages of two basic blocks.

    Args:
        input_shape: (height, width, channels) of a picture.
        num_classes: C, the number of logits.
        width: Channels of the first stage; each later stage has twice as many.
        normalization: Mean and standard deviation of each channel, or None.

    Returns:
        A model from [B, height, width, channels] to logits [B, C].

    Example:
        >>> resnet18((32, 32, 3), 10).count_params()
        11183562
    """
    return _resnet("resnet18", input_shape, num_classes, width, normalization, [2, 2, 2, 2])


def resnet34(
    input_shape: tuple[int, ...],
    num_classes: int,
    width: int = 64,
    normalization: Normalization | None = None,
) -> keras.Model:
    """ResNet-34: a 3x3 stem and four stages of 3, 4, 6 and 3 basic blocks.

    Arguments and result are those of `resnet18`.

    Example:
        >>> resnet34((32, 32, 3), 10, width=4).output_shape
        (None, 10)
    """
    return _resnet("resnet34", input_shape, num_classes, width, normalization, [3, 4, 6, 3])


def _resnet(
    name: str,
    input_shape: tuple[int, ...],
    num_classes: int,
    width: int,
    normalization: Normalization | None,
    num_blocks: Sequence[int],
) -> keras.Model:
    inputs, tensor = picture_input(input_shape, normalization)
    tensor = convolution(tensor, width, 3, "stem_conv")
    tensor = relu(batch_norm(tensor, "stem_bn"), "stem_relu")
    for stage, blocks in enumerate(num_blocks):
        for block in range(blocks):
            strides = 2 if stage > 0 and block == 0 else 1
            prefix = f"stage{stage + 1}_block{block + 1}"
            tensor = _basic_block(tensor, width * 2**stage, strides, prefix)
    return keras.Model(inputs, pooled_classifier(tensor, num_classes), name=name)


def _basic_block(tensor: Any, filters: int, strides: int, prefix: str) -> Any:
    shortcut = tensor
    if strides != 1 or tensor.shape[-1] != filters:
        shortcut = convolution(tensor, filters, 1, f"{prefix}_shortcut_conv", strides=strides)
        shortcut = batch_norm(shortcut, f"{prefix}_shortcut_bn")
    tensor = convolution(tensor, filters, 3, f"{prefix}_conv1", strides=strides)
    tensor = relu(batch_norm(tensor, f"{prefix}_bn1"), f"{prefix}_relu1")
    tensor = convolution(tensor, filters, 3, f"{prefix}_conv2")
    tensor = batch_norm(tensor, f"{prefix}_bn2")
    tensor = keras.layers.Add(name=f"{prefix}_add")([tensor, shortcut])
    return relu(tensor, f"{prefix}_relu2")
