# ruff: noqa: D102  Keras tells what the methods that it asks for are to do.
"""Layers and functions of their own that code examples of keras.io define, written anew."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers


@keras.saving.register_keras_serializable("model_zoo")
class PatchEncoder(layers.Layer):
    """Square patches of a picture, projected, with a learned position added to each."""

    def __init__(self, side: int, width: int, **options: Any) -> None:
        super().__init__(**options)
        self.side, self.width = side, width
        self.projection = layers.Dense(width)

    def build(self, input_shape: Any) -> None:
        self.num_patches = (input_shape[1] // self.side) * (input_shape[2] // self.side)
        self.projection.build((None, self.num_patches, self.side**2 * input_shape[-1]))
        self.position = self.add_weight((self.num_patches, self.width), name="position")

    def call(self, pictures: Any) -> Any:
        patches = keras.ops.image.extract_patches(pictures, self.side)
        patches = keras.ops.reshape(patches, (-1, self.num_patches, patches.shape[-1]))
        return self.projection(patches) + self.position

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "side": self.side, "width": self.width}


@keras.saving.register_keras_serializable("model_zoo")
class MixerBlock(layers.Layer):
    """Two dense layers across the patches, then two across the channels, each with a sum."""

    def __init__(self, dropout: float, **options: Any) -> None:
        super().__init__(**options)
        self.dropout = dropout

    def build(self, input_shape: Any) -> None:
        _, patches, width = input_shape
        self.normalization = layers.LayerNormalization(epsilon=1e-6)
        self.normalization.build(input_shape)
        self.across_patches, self.across_channels = (
            keras.Sequential(
                [
                    keras.Input((None, length)),
                    layers.Dense(patches, activation="gelu"),
                    layers.Dense(length),
                    layers.Dropout(self.dropout),
                ]
            )
            for length in (patches, width)
        )

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        turned = keras.ops.transpose(self.normalization(inputs), (0, 2, 1))
        mixed = self.across_patches(turned, training=training)
        hidden = inputs + keras.ops.transpose(mixed, (0, 2, 1))
        return hidden + self.across_channels(self.normalization(hidden), training=training)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "dropout": self.dropout}


@keras.saving.register_keras_serializable("model_zoo")
class ReadingLoss(layers.Layer):
    """Passes on the probabilities of characters, and adds the loss that is called CTC."""

    def call(self, labels: Any, characters: Any) -> Any:
        examples, length = keras.ops.shape(labels)
        steps = keras.ops.shape(characters)[1]
        losses = keras.ops.ctc_loss(
            keras.ops.cast(labels, "int32"),
            keras.ops.log(characters + keras.config.epsilon()),
            keras.ops.full((examples,), length, "int32"),
            keras.ops.full((examples,), steps, "int32"),
            mask_index=0,
        )
        self.add_loss(keras.ops.mean(losses))
        return characters

    def compute_output_shape(self, labels_shape: Any, characters_shape: Any) -> Any:
        return characters_shape


@keras.saving.register_keras_serializable("model_zoo")
class PixelShuffle(layers.Layer):
    """Channels in squares of pixels: [height, width, n * n] to [n * height, n * width, 1]."""

    def __init__(self, factor: int, **options: Any) -> None:
        super().__init__(**options)
        self.factor = factor

    def call(self, inputs: Any) -> Any:
        factor = self.factor
        batch, height, width, _ = keras.ops.shape(inputs)
        squares = keras.ops.reshape(inputs, (batch, height, width, factor, factor, 1))
        rows = keras.ops.transpose(squares, (0, 1, 3, 2, 4, 5))
        return keras.ops.reshape(rows, (batch, height * factor, width * factor, 1))

    def compute_output_shape(self, input_shape: Any) -> Any:
        sides = [side and side * self.factor for side in input_shape[1:3]]
        return (input_shape[0], *sides, 1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "factor": self.factor}


@keras.saving.register_keras_serializable("model_zoo")
class OrthogonalRegularizer(keras.regularizers.Regularizer):
    """How far matrices [batch, size * size] are from orthogonal ones."""

    def __init__(self, size: int, strength: float = 0.001) -> None:
        self.size, self.strength = size, strength

    def __call__(self, x: Any) -> Any:
        matrices = keras.ops.reshape(x, (-1, self.size, self.size))
        products = keras.ops.matmul(matrices, keras.ops.transpose(matrices, (0, 2, 1)))
        return self.strength * keras.ops.sum((products - keras.ops.eye(self.size)) ** 2)

    def get_config(self) -> dict[str, Any]:
        return {"size": self.size, "strength": self.strength}


@keras.saving.register_keras_serializable("model_zoo")
def euclidean_distance(pair: Any) -> Any:
    """The distance of two vectors [batch, length]: [batch, 1]."""
    squares = keras.ops.sum((pair[0] - pair[1]) ** 2, axis=1, keepdims=True)
    return keras.ops.sqrt(keras.ops.maximum(squares, keras.config.epsilon()))
