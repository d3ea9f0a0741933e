"""VGG networks for small pictures (Simonyan and Zisserman 2015, arXiv 1409.1556).

With batch normalization, and one Dense layer in place of three.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import keras

from esnac_tf.teachers.blocks import (
    batch_norm,
    classifier,
    convolution,
    picture_input,
    relu,
    require_size,
)

if TYPE_CHECKING:
    from esnac_tf.teachers import Normalization


def vgg16(
    input_shape: tuple[int, ...],
    num_classes: int,
    width: int = 64,
    normalization: Normalization | None = None,
) -> keras.Model:
    """VGG-16: five stages of 2, 2, 3, 3 and 3 convolutions, each ended by 2x2 max pooling.

    Args:
        input_shape: (height, width, channels) of a picture, 32x32 or more.
        num_classes: C, the number of logits.
        width: Channels of the first stage; the others have 2, 4, 8 and 8 times as many.
        normalization: Mean and standard deviation of each channel, or None.

    Returns:
        A model from [B, height, width, channels] to logits [B, C].

    Raises:
        UserError: The pictures are smaller than 32x32.

    Example:
        >>> vgg16((32, 32, 3), 10, width=4).output_shape
        (None, 10)
    """
    return _vgg("vgg16", input_shape, num_classes, width, normalization, [2, 2, 3, 3, 3])


def vgg19(
    input_shape: tuple[int, ...],
    num_classes: int,
    width: int = 64,
    normalization: Normalization | None = None,
) -> keras.Model:
    """VGG-19: five stages of 2, 2, 4, 4 and 4 convolutions, each ended by 2x2 max pooling.

    Arguments, result and errors are those of `vgg16`.

    Example:
        >>> vgg19((32, 32, 3), 10, width=4).output_shape
        (None, 10)
    """
    return _vgg("vgg19", input_shape, num_classes, width, normalization, [2, 2, 4, 4, 4])


def _vgg(
    name: str,
    input_shape: tuple[int, ...],
    num_classes: int,
    width: int,
    normalization: Normalization | None,
    num_convolutions: Sequence[int],
) -> keras.Model:
    require_size(name, input_shape, 32)
    inputs, tensor = picture_input(input_shape, normalization)
    for stage, convolutions in enumerate(num_convolutions):
        filters = width * min(2**stage, 8)
        for index in range(convolutions):
            prefix = f"stage{stage + 1}"
            tensor = convolution(tensor, filters, 3, f"{prefix}_conv{index + 1}", use_bias=True)
            tensor = batch_norm(tensor, f"{prefix}_bn{index + 1}")
            tensor = relu(tensor, f"{prefix}_relu{index + 1}")
        tensor = keras.layers.MaxPooling2D(name=f"stage{stage + 1}_pool")(tensor)
    return keras.Model(inputs, classifier(tensor, num_classes), name=name)
