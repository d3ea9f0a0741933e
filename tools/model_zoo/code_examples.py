"""Models of the code examples of keras.io, written anew from what the examples tell of them.

Layers, sizes and activations are those of the examples; pictures are smaller where that makes
no difference to the layers. With `divisor=8` widths are an eighth, and few blocks are left.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers

from model_zoo.case import Case
from model_zoo.example_layers import (
    MixerBlock,
    OrthogonalRegularizer,
    PatchEncoder,
    PixelShuffle,
    ReadingLoss,
    euclidean_distance,
)

TITLE = "Keras code examples"
DESCRIPTION = """Models of the [code examples](https://keras.io/examples/) of Keras, written anew
for this table, with the examples' layers and widths on smaller pictures."""
PACKAGE = None

ADDRESS = "https://keras.io/examples"
SOIL_TYPES = tuple(f"soil_{number}" for number in range(40))
WILDERNESS_AREAS = tuple(f"area_{number}" for number in range(4))
CHARACTERS = 19


def cases(divisor: int = 1) -> list[Case]:
    """Every model once.

    Args:
        divisor: What widths and numbers of blocks are divided by.
    """
    return [
        Case(TITLE, title, functools.partial(build, divisor), values, f"{ADDRESS}/{page}/")
        for title, page, build, values in EXAMPLES
    ]


# Pictures.


def u_net(divisor: int) -> Any:
    """Separable convolutions down, transposed ones up, with residual connections."""
    inputs = keras.Input((64, 64, 3))
    hidden = layers.Conv2D(32 // divisor, 3, strides=2, padding="same")(inputs)
    hidden = layers.Activation("relu")(layers.BatchNormalization()(hidden))
    before = hidden
    for filters in (64 // divisor, 128 // divisor, 256 // divisor):
        for _ in range(2):
            hidden = layers.Activation("relu")(hidden)
            hidden = layers.SeparableConv2D(filters, 3, padding="same")(hidden)
            hidden = layers.BatchNormalization()(hidden)
        hidden = layers.MaxPooling2D(3, strides=2, padding="same")(hidden)
        before = layers.Conv2D(filters, 1, strides=2, padding="same")(before)
        before = hidden = layers.add([hidden, before])
    for filters in (256 // divisor, 128 // divisor, 64 // divisor, 32 // divisor):
        for _ in range(2):
            hidden = layers.Activation("relu")(hidden)
            hidden = layers.Conv2DTranspose(filters, 3, padding="same")(hidden)
            hidden = layers.BatchNormalization()(hidden)
        hidden = layers.UpSampling2D(2)(hidden)
        before = layers.Conv2D(filters, 1, padding="same")(layers.UpSampling2D(2)(before))
        before = hidden = layers.add([hidden, before])
    outputs = layers.Conv2D(3, 3, activation="softmax", padding="same")(hidden)
    return keras.Model(inputs, outputs)


def vision_transformer(divisor: int) -> Any:
    """Patches as custom layers, attention blocks, and a wide head on all of them."""
    width = 64 // divisor
    inputs = keras.Input((32, 32, 3))
    hidden = PatchEncoder(6, width)(augmentation(72)(inputs))
    for _ in range(max(8 // divisor, 2)):
        normal = layers.LayerNormalization(epsilon=1e-6)(hidden)
        attention = layers.MultiHeadAttention(num_heads=4, key_dim=width, dropout=0.1)
        hidden = layers.Add()([attention(normal, normal), hidden])
        dense = layers.LayerNormalization(epsilon=1e-6)(hidden)
        for units in (2 * width, width):
            dense = layers.Dropout(0.1)(layers.Dense(units, activation="gelu")(dense))
        hidden = layers.Add()([dense, hidden])
    hidden = layers.Flatten()(layers.LayerNormalization(epsilon=1e-6)(hidden))
    hidden = layers.Dropout(0.5)(hidden)
    for units in (2048 // divisor, 1024 // divisor):
        hidden = layers.Dropout(0.5)(layers.Dense(units, activation="gelu")(hidden))
    return keras.Model(inputs, layers.Dense(100)(hidden))


def mlp_mixer(divisor: int) -> Any:
    """Blocks that are one custom layer each."""
    inputs = keras.Input((32, 32, 3))
    hidden = PatchEncoder(8, 256 // divisor)(augmentation(64)(inputs))
    for _ in range(max(4 // divisor, 2)):
        hidden = MixerBlock(dropout=0.2)(hidden)
    hidden = layers.Dropout(0.2)(layers.GlobalAveragePooling1D()(hidden))
    return keras.Model(inputs, layers.Dense(100)(hidden))


def conv_mixer(divisor: int) -> Any:
    """Residual depthwise convolutions and pointwise ones."""
    filters = 256 // divisor

    def activated(hidden: Any) -> Any:
        return layers.BatchNormalization()(layers.Activation("gelu")(hidden))

    inputs = keras.Input((32, 32, 3))
    hidden = layers.Rescaling(1 / 255)(inputs)
    hidden = activated(layers.Conv2D(filters, 2, strides=2)(hidden))
    for _ in range(max(8 // divisor, 2)):
        depthwise = activated(layers.DepthwiseConv2D(5, padding="same")(hidden))
        hidden = activated(layers.Conv2D(filters, 1)(layers.Add()([depthwise, hidden])))
    hidden = layers.GlobalAveragePooling2D()(hidden)
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(hidden))


def siamese_network(divisor: int) -> Any:
    """One network on two pictures, and a function of the two results."""
    picture = keras.Input((28, 28, 1))
    hidden = layers.BatchNormalization()(picture)
    for filters in (4, 16):
        hidden = layers.Conv2D(filters, 5, activation="tanh")(hidden)
        hidden = layers.AveragePooling2D(2)(hidden)
    hidden = layers.BatchNormalization()(layers.Flatten()(hidden))
    tower = keras.Model(picture, layers.Dense(10, activation="tanh")(hidden))
    pair = [keras.Input((28, 28, 1)), keras.Input((28, 28, 1))]
    distance = layers.Lambda(euclidean_distance, output_shape=(1,))([tower(one) for one in pair])
    output = layers.Dense(1, activation="sigmoid")(layers.BatchNormalization()(distance))
    return keras.Model(pair, output)


def captcha_reader(divisor: int) -> Any:
    """Columns of features to a recurrent network; the last layer adds the loss."""
    picture = keras.Input((200, 50, 1), name="image")
    label = keras.Input((None,), name="label")
    hidden = picture
    for filters in (32 // divisor, 64 // divisor):
        hidden = layers.Conv2D(filters, 3, activation="relu", padding="same")(hidden)
        hidden = layers.MaxPooling2D(2)(hidden)
    hidden = layers.Reshape((50, 12 * (64 // divisor)))(hidden)
    hidden = layers.Dropout(0.2)(layers.Dense(64 // divisor, activation="relu")(hidden))
    for units in (128 // divisor, 64 // divisor):
        recurrent = layers.LSTM(units, return_sequences=True, dropout=0.25)
        hidden = layers.Bidirectional(recurrent)(hidden)
    characters = layers.Dense(CHARACTERS + 2, activation="softmax")(hidden)
    return keras.Model([picture, label], ReadingLoss()(label, characters))


def sub_pixel_network(divisor: int) -> Any:
    """Convolutions whose channels become pixels."""
    factor = 3
    inputs = keras.Input((None, None, 1))
    hidden = inputs
    for filters, size in ((64 // divisor, 5), (64 // divisor, 3), (32 // divisor, 3)):
        hidden = layers.Conv2D(
            filters, size, padding="same", activation="relu", kernel_initializer="orthogonal"
        )(hidden)
    hidden = layers.Conv2D(factor**2, 3, padding="same", activation="relu")(hidden)
    return keras.Model(inputs, PixelShuffle(factor)(hidden))


def scan_classifier(divisor: int) -> Any:
    """Convolutions in three dimensions."""
    inputs = keras.Input((64, 64, 64, 1))
    hidden = inputs
    for filters in (64 // divisor, 64 // divisor, 128 // divisor, 256 // divisor):
        hidden = layers.Conv3D(filters, 3, activation="relu")(hidden)
        hidden = layers.BatchNormalization()(layers.MaxPooling3D(2)(hidden))
    hidden = layers.GlobalAveragePooling3D()(hidden)
    hidden = layers.Dropout(0.3)(layers.Dense(512 // divisor, activation="relu")(hidden))
    return keras.Model(inputs, layers.Dense(1, activation="sigmoid")(hidden))


def next_frame_network(divisor: int) -> Any:
    """Convolutional LSTMs over films of any length."""
    filters = 64 // divisor
    inputs = keras.Input((None, 16, 16, 1))
    hidden = inputs
    for number, size in enumerate((5, 3, 1)):
        if number:
            hidden = layers.BatchNormalization()(hidden)
        hidden = layers.ConvLSTM2D(
            filters, size, padding="same", return_sequences=True, activation="relu"
        )(hidden)
    outputs = layers.Conv3D(1, 3, activation="sigmoid", padding="same")(hidden)
    return keras.Model(inputs, outputs)


def point_net(divisor: int) -> Any:
    """Points that small networks turn; a matrix product in the middle of the graph."""

    def normalized(layer: Any, hidden: Any) -> Any:
        return layers.Activation("relu")(layers.BatchNormalization(momentum=0.0)(layer(hidden)))

    def pooled(hidden: Any) -> Any:
        for filters in (32, 64, 512):
            hidden = normalized(layers.Conv1D(filters // divisor, 1), hidden)
        return layers.GlobalMaxPooling1D()(hidden)

    def turned(points: Any) -> Any:
        size = points.shape[-1]
        hidden = pooled(points)
        for units in (256, 128):
            hidden = normalized(layers.Dense(units // divisor), hidden)
        identity = keras.initializers.Constant(np.eye(size).reshape(-1).tolist())
        matrix = layers.Dense(
            size**2,
            bias_initializer=identity,
            activity_regularizer=OrthogonalRegularizer(size),
        )(hidden)
        return layers.Dot(axes=(2, 1))([points, layers.Reshape((size, size))(matrix)])

    inputs = keras.Input((128, 3))
    hidden = turned(inputs)
    for _ in range(2):
        hidden = normalized(layers.Conv1D(32 // divisor, 1), hidden)
    hidden = pooled(turned(hidden))
    for units in (256, 128):
        hidden = layers.Dropout(0.3)(normalized(layers.Dense(units // divisor), hidden))
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(hidden))


def augmentation(side: int) -> Any:
    """Pictures normalized, resized, and changed at random in training."""
    normalization = layers.Normalization()
    normalization.adapt(np.random.default_rng(0).uniform(0, 255, (8, 32, 32, 3)))
    changes = [
        layers.RandomFlip("horizontal"),
        layers.RandomRotation(0.02),
        layers.RandomZoom(0.2, 0.2),
    ]
    return keras.Sequential([normalization, layers.Resizing(side, side), *changes])


# Sequences and tables.


def time_series_transformer(divisor: int) -> Any:
    """Attention over one channel, with large heads."""
    inputs = keras.Input((100, 1))
    hidden = inputs
    for _ in range(max(4 // divisor, 2)):
        attention = layers.MultiHeadAttention(num_heads=4, key_dim=256 // divisor, dropout=0.25)
        attended = layers.Dropout(0.25)(attention(hidden, hidden))
        hidden = layers.LayerNormalization(epsilon=1e-6)(attended) + hidden
        wide = layers.Conv1D(4, 1, activation="relu")(hidden)
        narrow = layers.Conv1D(inputs.shape[-1], 1)(layers.Dropout(0.25)(wide))
        hidden = layers.LayerNormalization(epsilon=1e-6)(narrow) + hidden
    hidden = layers.GlobalAveragePooling1D(data_format="channels_last")(hidden)
    hidden = layers.Dropout(0.4)(layers.Dense(128 // divisor, activation="relu")(hidden))
    return keras.Model(inputs, layers.Dense(2, activation="softmax")(hidden))


def text_classifier(divisor: int) -> Any:
    """Two bidirectional LSTMs over words."""
    words = keras.Input((None,), dtype="int32")
    hidden = layers.Embedding(20000 // divisor, 128 // divisor)(words)
    hidden = layers.Bidirectional(layers.LSTM(64 // divisor, return_sequences=True))(hidden)
    hidden = layers.Bidirectional(layers.LSTM(64 // divisor))(hidden)
    return keras.Model(words, layers.Dense(1, activation="sigmoid")(hidden))


def sequence_to_sequence(divisor: int) -> Any:
    """An LSTM whose states another begins with."""
    units = 256 // divisor
    source, target = keras.Input((None, 71)), keras.Input((None, 93))
    _, *states = layers.LSTM(units, return_state=True)(source)
    decoder = layers.LSTM(units, return_sequences=True, return_state=True)
    decoded, *_ = decoder(target, initial_state=states)
    return keras.Model([source, target], layers.Dense(93, activation="softmax")(decoded))


def wide_and_deep_network(divisor: int) -> Any:
    """Ten numbers and two words, once in many columns, once as embeddings."""
    numbers = [f"number_{number}" for number in range(10)]
    words = {"soil_type": SOIL_TYPES, "wilderness_area": WILDERNESS_AREAS}
    inputs = {name: keras.Input((), name=name) for name in numbers}
    inputs |= {name: keras.Input((), name=name, dtype="string") for name in words}
    columns = [keras.ops.expand_dims(inputs[name], -1) for name in numbers]
    wide, deep = list(columns), list(columns)
    for name, vocabulary in words.items():
        settings = {"vocabulary": list(vocabulary), "mask_token": None, "num_oov_indices": 0}
        encoded = layers.StringLookup(**settings, output_mode="multi_hot")
        wide.append(encoded(keras.ops.expand_dims(inputs[name], -1)))
        embedding = layers.Embedding(len(vocabulary), int(len(vocabulary) ** 0.5))
        deep.append(embedding(layers.StringLookup(**settings)(inputs[name])))
    hidden = layers.concatenate(deep)
    for _ in range(2):
        hidden = layers.BatchNormalization()(layers.Dense(32)(hidden))
        hidden = layers.Dropout(0.1)(layers.ReLU()(hidden))
    joined = layers.concatenate([layers.BatchNormalization()(layers.concatenate(wide)), hidden])
    return keras.Model(inputs, layers.Dense(7, activation="softmax")(joined))


# Title, page, function, what inputs are drawn from.
EXAMPLES: tuple[tuple[str, str, Callable[[int], Any], Mapping[str, Sequence[Any]]], ...] = (
    (
        "Image segmentation with a U-Net-like architecture",
        "vision/oxford_pets_image_segmentation",
        u_net,
        {},
    ),
    (
        "Image classification with Vision Transformer",
        "vision/image_classification_with_vision_transformer",
        vision_transformer,
        {},
    ),
    (
        "Image classification with modern MLP models",
        "vision/mlp_image_classification",
        mlp_mixer,
        {},
    ),
    ("Image classification with ConvMixer", "vision/convmixer", conv_mixer, {}),
    (
        "Image similarity estimation using a Siamese Network with a contrastive loss",
        "vision/siamese_contrastive",
        siamese_network,
        {},
    ),
    (
        "OCR model for reading Captchas",
        "vision/captcha_ocr",
        captcha_reader,
        {"label": range(1, CHARACTERS + 1)},
    ),
    (
        "Image Super-Resolution using an Efficient Sub-Pixel CNN",
        "vision/super_resolution_sub_pixel",
        sub_pixel_network,
        {},
    ),
    (
        "3D image classification from CT scans",
        "vision/3D_image_classification",
        scan_classifier,
        {},
    ),
    (
        "Next-Frame Video Prediction with Convolutional LSTMs",
        "vision/conv_lstm",
        next_frame_network,
        {},
    ),
    ("Point cloud classification with PointNet", "vision/pointnet", point_net, {}),
    (
        "Timeseries classification with a Transformer model",
        "timeseries/timeseries_classification_transformer",
        time_series_transformer,
        {},
    ),
    ("Bidirectional LSTM on IMDB", "nlp/bidirectional_lstm_imdb", text_classifier, {}),
    (
        "Character-level recurrent sequence-to-sequence model",
        "nlp/lstm_seq2seq",
        sequence_to_sequence,
        {},
    ),
    (
        "Structured data learning with Wide, Deep, and Cross networks",
        "structured_data/wide_deep_cross_networks",
        wide_and_deep_network,
        {"soil_type": SOIL_TYPES, "wilderness_area": WILDERNESS_AREAS},
    ),
)
