"""What the teacher families have in common: their input, their layers, their classifier."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from esnac_tf.errors import UserError

if TYPE_CHECKING:
    from esnac_tf.teachers import Normalization


def picture_input(
    input_shape: tuple[int, ...], normalization: Normalization | None
) -> tuple[Any, Any]:
    """The input, and the input normalized (the same where nothing is to be normalized)."""
    inputs = keras.Input(input_shape, name="picture")
    return inputs, inputs if normalization is None else normalized(inputs, normalization)


def normalized(inputs: Any, normalization: Normalization) -> Any:
    """Pictures with mean 0 and standard deviation 1 in each channel of the data."""
    mean, deviation = (np.asarray(values, np.float64) for values in normalization)
    normalize = keras.layers.Normalization(
        mean=mean.tolist(), variance=np.square(deviation).tolist(), name="normalize"
    )
    return normalize(inputs)


def convolution(tensor: Any, filters: int, kernel_size: int, name: str, **options: Any) -> Any:
    """A convolution with He initialization and "same" padding; without bias unless asked."""
    layer = keras.layers.Conv2D(
        filters,
        kernel_size,
        padding="same",
        kernel_initializer="he_normal",
        name=name,
        **{"use_bias": False, **options},
    )
    return layer(tensor)


def batch_norm(tensor: Any, name: str) -> Any:
    """Batch normalization with the momentum and epsilon of the published networks."""
    return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(tensor)


def relu(tensor: Any, name: str) -> Any:
    """Rectifier."""
    return keras.layers.ReLU(name=name)(tensor)


def pooled_classifier(tensor: Any, num_classes: int) -> Any:
    """4x4 average pooling (less where the map is smaller), Flatten and one Dense layer."""
    size = (min(4, tensor.shape[1]), min(4, tensor.shape[2]))
    tensor = keras.layers.AveragePooling2D(size, name="pool")(tensor)
    return classifier(tensor, num_classes)


def classifier(tensor: Any, num_classes: int) -> Any:
    """Flatten and one Dense layer that gives logits."""
    tensor = keras.layers.Flatten(name="flatten")(tensor)
    return keras.layers.Dense(num_classes, name="logits")(tensor)


def require_size(name: str, input_shape: tuple[int, ...], smallest: int) -> None:
    """Refuses pictures that a network's strides would shrink to nothing.

    Raises:
        UserError: Height or width is below `smallest`.
    """
    if min(input_shape[:2]) < smallest:
        raise UserError(
            f"Teacher {name!r} needs pictures of at least {smallest}x{smallest}, received "
            f"{input_shape[0]}x{input_shape[1]}.\n"
            "Choose another teacher, such as resnet18, or larger pictures."
        )
