"""A small model around every layer class that Keras exports."""

from __future__ import annotations

import functools

import keras

layers = keras.layers

# What a layer can't be made without; every other layer is made with no argument.
ARGUMENTS = {
    "Activation": {"activation": "relu"},
    "AdaptiveAveragePooling": {"output_size": 2},
    "AdaptiveMaxPooling": {"output_size": 2},
    "AveragePooling": {"pool_size": 2},
    "CategoryEncoding": {"num_tokens": 8},
    "CenterCrop": {"height": 4, "width": 4},
    "Conv": {"filters": 6, "kernel_size": 3, "padding": "same"},
    "ConvLSTM": {"filters": 6, "kernel_size": 3},
    "Cropping": {"cropping": 1},
    "Dense": {"units": 6},
    "DepthwiseConv": {"kernel_size": 3, "depth_multiplier": 2},
    "Discretization": {"bin_boundaries": [0.0, 1.0]},
    "Dot": {"axes": -1},
    "EinsumDense": {"equation": "...x,xy->...y", "output_shape": 8, "bias_axes": "y"},
    "Embedding": {"input_dim": 8, "output_dim": 6, "mask_zero": True},
    "GRU": {"units": 5, "return_sequences": True},
    "GroupNormalization": {"groups": 3},
    "GroupQueryAttention": {"head_dim": 4, "num_query_heads": 6, "num_key_value_heads": 3},
    "HashedCrossing": {"num_bins": 5},
    "Hashing": {"num_bins": 3},
    "IntegerLookup": {"vocabulary": [1, 2, 3]},
    "LSTM": {"units": 5, "return_sequences": True},
    "MaxNumBoundingBoxes": {"max_number": 2},
    "MaxPooling": {"pool_size": 2},
    "MelSpectrogram": {"fft_length": 64, "num_mel_bins": 8, "sampling_rate": 1000},
    "MultiHeadAttention": {"num_heads": 3, "key_dim": 4, "value_dim": 5},
    "Normalization": {"mean": 0.0, "variance": 1.0},
    "RandomBrightness": {"factor": 0.2},
    "RandomColorDegeneration": {"factor": 0.2},
    "RandomColorJitter": {"value_range": (0, 1)},
    "RandomContrast": {"factor": 0.2},
    "RandomCrop": {"height": 4, "width": 4},
    "RandomHue": {"factor": 0.2},
    "RandomPosterization": {"factor": 4},
    "RandomRotation": {"factor": 0.2},
    "RandomSaturation": {"factor": 0.2},
    "RandomSharpness": {"factor": 0.2},
    "RandomTranslation": {"height_factor": 0.2, "width_factor": 0.2},
    "RandomZoom": {"height_factor": 0.2},
    "RepeatVector": {"n": 3},
    "Rescaling": {"scale": 0.5},
    "Resizing": {"height": 4, "width": 4},
    "ReversibleEmbedding": {"input_dim": 8, "output_dim": 6},
    "STFTSpectrogram": {"frame_length": 32, "frame_step": 16, "fft_length": 64},
    "SeparableConv": {"filters": 6, "kernel_size": 3, "depth_multiplier": 2},
    "SimpleRNN": {"units": 5, "return_sequences": True},
    "StringLookup": {"vocabulary": ["red", "green"]},
    "TextVectorization": {"vocabulary": ["red", "green"], "output_sequence_length": 3},
    "UpSampling": {"size": 2},
}  # fmt: skip
SHAPES = {
    "Bidirectional": (5, 4),
    "CategoryEncoding": (5,),
    "Embedding": (5,),
    "Hashing": (5,),
    "IntegerLookup": (5,),
    "MelSpectrogram": (256,),
    "Permute": (8, 4),
    "RepeatVector": (4,),
    "ReversibleEmbedding": (5,),
    "STFTSpectrogram": (256, 1),
    "StringLookup": (5,),
    "TextVectorization": (1,),
    "TimeDistributed": (5, 6, 4),
    **dict.fromkeys(("AdditiveAttention", "Attention", "Dot", "GRU", "LSTM", "SimpleRNN"), (5, 4)),
    **dict.fromkeys(("GroupQueryAttention", "MultiHeadAttention", "Masking", "RNN"), (5, 4)),
}
WHOLE_NUMBERS = ("CategoryEncoding", "Embedding", "HashedCrossing", "Hashing", "IntegerLookup",
                 "ReversibleEmbedding")  # fmt: skip
TEXTS = ("StringLookup", "TextVectorization")
MERGING = ("Add", "AdditiveAttention", "Attention", "Average", "Concatenate", "Dot", "Maximum",
           "Minimum", "Multiply", "Subtract")  # fmt: skip
# These take what no small model gives: functions and modules of other packages, saved graphs,
# states, which a recurrent layer hands to its cells.
WITHOUT_A_MODEL = ("FlaxLayer", "GRUCell", "InputLayer", "JaxLayer", "LSTMCell", "SimpleRNNCell",
                   "StackedRNNCells", "TFSMLayer", "TorchModuleWrapper")  # fmt: skip


def make(name):
    """A layer of a class."""
    cls = getattr(layers, name)
    if name == "Bidirectional":
        return cls(layers.LSTM(5, return_sequences=True), name="tested")
    if name == "TimeDistributed":
        return cls(layers.Conv1D(6, 3), name="tested")
    if name == "SpectralNormalization":
        return cls(layers.Conv2D(6, 3), name="tested")
    if name == "RNN":
        return cls(layers.LSTMCell(5), return_sequences=True, name="tested")
    if name == "Lambda":
        return cls(keras.activations.relu, name="tested")
    if name == "Permute":
        return cls((2, 1), name="tested")
    if name == "Reshape":
        return cls((16, 4, 6), name="tested")
    if name == "Pipeline":
        return cls([layers.Rescaling(2.0), layers.RandomFlip()], name="tested")
    family = name.rstrip("123D")
    family = family.removesuffix("Transpose").rstrip("123D")
    arguments = ARGUMENTS.get(family, {})
    if name.startswith(("AlphaDropout", "Dropout", "GaussianDropout", "SpatialDropout")):
        arguments = {"rate": 0.1}
    if name == "GaussianNoise":
        arguments = {"stddev": 0.1}
    return cls(**arguments, name="tested")


@functools.cache
def model(name):
    """Channels, the layer, and channels again; preprocessing comes first."""
    layer = make(name)
    rank = next((int(digit) for digit in name if digit in "123"), 2)
    shape = SHAPES.get(name, (*[8] * rank, 4))
    if name.startswith("ConvLSTM"):
        shape = (3, *shape)
    if is_preprocessing(name) and len(shape) == 3:
        shape = (8, 8, 3)
    dtype = "int32" if name in WHOLE_NUMBERS else "string" if name in TEXTS else "float32"
    if name == "HashedCrossing":
        inputs = [keras.Input((1,), dtype=dtype), keras.Input((1,), dtype=dtype)]
        hidden = layer(inputs)
    elif dtype != "float32" or is_preprocessing(name):
        inputs = keras.Input(shape, dtype=dtype)
        hidden = layer(inputs)
    else:
        inputs = keras.Input(shape)
        hidden = layers.Dense(6, name="before")(inputs)
        other = layers.Dense(6, name="other")(inputs)
        if name in MERGING:
            hidden = layer([hidden, other])
        elif name in ("GroupQueryAttention", "MultiHeadAttention"):
            hidden = layer(hidden, other)
        else:
            hidden = layer(hidden)
    if not hidden.dtype.startswith("float"):
        hidden = keras.ops.cast(hidden, "float32")
    return keras.Model(inputs, layers.Dense(3, name="after")(hidden))


def is_preprocessing(name):
    return "preprocessing" in getattr(layers, name).__module__
