"""Small Keras models in which everything occurs that graph, surgery and student must bear."""

from __future__ import annotations

import functools

import keras
import numpy as np

from esnac_tf import teachers
from esnac_tf.graph.teacher import analyse
from esnac_tf.student import StudentBuilder

layers = keras.layers

# Teachers as small as they can be: (name, picture).
TEACHERS = {
    "resnet18": ("resnet18(width=4)", (8, 8, 3)),
    "resnet34": ("resnet34(width=4)", (8, 8, 3)),
    "shufflenet": ("shufflenet(width=40)", (8, 8, 3)),
    "vgg16": ("vgg16(width=4)", (32, 32, 3)),
    "vgg19": ("vgg19(width=4)", (32, 32, 3)),
}
MODES = ("width", "dependency")


def randomize(model, seed: int = 0):
    """Gives every weight a random value, BatchNormalization statistics included."""
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        values = generator.normal(0, 0.3, weight.shape)
        if weight.path.endswith(("gamma", "moving_variance", "variance")):
            values = generator.uniform(0.5, 1.5, weight.shape)
        elif weight.path.endswith("kernel"):
            values *= 3 / np.sqrt(max(np.prod(weight.shape[:-1]), 9))
        weight.assign(values)
    return model


def examples_for(model, count: int = 2, seed: int = 1):
    """A batch of random examples, in the structure that the model takes."""
    generator = np.random.default_rng(seed)

    def draw(tensor):
        shape = [length or 8 for length in tensor.shape[1:]]
        return generator.normal(size=(count, *shape)).astype("float32")

    inputs = model.inputs if isinstance(model, keras.Sequential) else model.input
    inputs = keras.tree.map_structure(draw, inputs)
    return inputs[0] if isinstance(inputs, list) and len(inputs) == 1 else inputs


def run(model, examples):
    """The model's outputs at inference, flat."""
    return [np.asarray(output) for output in keras.tree.flatten(model(examples, training=False))]


@functools.cache
def teacher(name: str):
    """A small teacher with random weights: never change it."""
    spec, picture = TEACHERS[name]
    return randomize(teachers.build(spec, picture, 5, ([0.4] * 3, [0.2] * 3)))


@functools.cache
def graph_of(name: str, mode: str):
    """The graph of a small teacher or of one of the models below."""
    return analyse(model(name), mode)


@functools.cache
def builder_of(name: str, mode: str):
    return StudentBuilder(model(name), graph_of(name, mode))


@functools.cache
def model(name: str):
    """A small teacher or one of the models below, with random weights: never change it."""
    return teacher(name) if name in TEACHERS else randomize(MODELS[name]())


def sequential():
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(6, 3, padding="same", activation="relu"),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(12, activation="relu"),
            layers.Dense(3),
        ]
    )


def several_inputs_and_ops():
    left, right = keras.Input((8,), name="z_left"), keras.Input((6,), name="a_right")
    first = keras.ops.relu(layers.Dense(8, name="first")(left) * 2.0)
    second = layers.Dense(8, name="second")(right)
    total = layers.Add()([first, second]) + 1.0
    sliced = layers.Dense(3, name="sliced")(total[:, ::2])
    joined = keras.ops.concatenate((total, right), axis=-1)
    outputs = {"z": layers.Dense(4)(joined) - 1.0, "a": sliced}
    return keras.Model({"z_left": left, "a_right": right}, outputs)


def shared_layer():
    picture = keras.Input((8, 8, 3))
    shared = layers.Conv2D(6, 3, padding="same", name="shared")
    shared(keras.Input((8, 8, 6)))  # a call that is not in this model
    stem = layers.Conv2D(6, 3, padding="same", activation="relu")(picture)
    once = layers.ReLU()(shared(stem))
    twice = layers.ReLU()(shared(once))
    return keras.Model(picture, layers.Dense(3)(layers.GlobalAveragePooling2D()(twice)))


def shared_by_input_and_hidden():
    inputs = keras.Input((4,))
    shared = layers.Dense(8)
    hidden = shared(inputs)
    again = shared(layers.ReLU()(layers.Dense(4)(hidden)))
    return keras.Model(inputs, layers.Dense(2)(layers.Add()([hidden, again])))


def nested():
    inner = keras.Sequential(
        [keras.Input((6,)), layers.Dense(6), layers.BatchNormalization()], name="inner"
    )
    inner.layers[0].trainable = False
    inputs = keras.Input((4,))
    hidden = layers.Dense(6)(inputs)
    return keras.Model(inputs, layers.Dense(2)(inner(inner(hidden))))


def nested_outputs():
    middle = keras.Input((6,))
    inner = keras.Model(middle, layers.Dense(6)(middle), name="inner")
    part = keras.Sequential([keras.Input((6,)), layers.Dense(4)], name="part")
    inputs = keras.Input((4,))
    once = inner(layers.Dense(6)(inputs))
    twice = inner(layers.ReLU()(once))
    return keras.Model(inputs, [twice, once, part(once), SubclassedPart(name="other")(twice)])


def local_custom_layer():
    class Scale(layers.Layer):  # not registered, and found by no import
        def build(self, shape):
            self.scale = self.add_weight(shape=(shape[-1],), name="scale")

        def call(self, inputs):
            return inputs * self.scale

    def twice(inputs):
        return 2 * inputs

    middle = keras.Input((6,))
    inner = keras.Model(middle, Scale()(middle), name="inner")
    inputs = keras.Input((4,))
    hidden = Scale()(layers.Dense(6, activation=twice)(inputs))
    hidden = layers.Lambda(lambda tensor: tensor + 1)(inner(layers.Dense(6)(hidden)))
    return keras.Model(inputs, layers.Dense(2)(hidden))


class SubclassedPart(keras.Model):
    """A model that is no functional graph."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(6)

    def call(self, inputs):
        return self.dense(inputs)

    def get_config(self):
        return {"name": self.name}


def subclassed_part():
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Dense(2)(SubclassedPart()(layers.Dense(6)(inputs))))


def unknown_layers():
    inputs = keras.Input((5, 8))
    hidden = layers.Dense(8)(inputs)
    hidden = layers.LayerNormalization()(layers.MultiHeadAttention(2, 4)(hidden, hidden))
    hidden = layers.TimeDistributed(layers.Dense(6))(hidden)
    _, _, state = layers.LSTM(7, return_state=True)(hidden)  # only the third output is used
    return keras.Model(inputs, layers.Dense(2)(layers.Dense(9)(state)))


def one_dimensional():
    inputs = keras.Input((12, 4))
    hidden = layers.Conv1D(6, 3, padding="causal", activation="relu")(inputs)
    hidden = layers.MaxPooling1D()(layers.ZeroPadding1D()(hidden))
    hidden = layers.SeparableConv1D(8, 3, activation="relu")(hidden)
    return keras.Model(inputs, layers.Dense(2)(layers.GlobalMaxPooling1D()(hidden)))


def depthwise():
    inputs = keras.Input((6, 6, 3))
    hidden = layers.Conv2D(6, 1)(inputs)
    hidden = layers.DepthwiseConv2D(3, depth_multiplier=2, activation="relu")(hidden)
    hidden = layers.Conv2D(12, 3, padding="same", groups=12)(hidden)  # depthwise in disguise
    hidden = layers.BatchNormalization()(hidden)
    return keras.Model(inputs, layers.Conv2D(2, 1)(layers.ReLU()(hidden)))


def separable():
    inputs = keras.Input((6, 6, 3))
    hidden = layers.SeparableConv2D(8, 3, depth_multiplier=3, activation="relu")(inputs)
    hidden = layers.SeparableConv2D(10, 3, depth_multiplier=2)(hidden)
    return keras.Model(inputs, layers.Conv2D(2, 1)(layers.LeakyReLU()(hidden)))


def transposed():
    inputs = keras.Input((4, 4, 3))
    hidden = layers.Conv2D(6, 3, activation="relu")(inputs)
    hidden = layers.Conv2DTranspose(8, 3, strides=2)(hidden)
    hidden = layers.UpSampling2D()(layers.BatchNormalization()(hidden))
    hidden = layers.Conv2DTranspose(8, 3, activation="relu")(hidden)
    return keras.Model(inputs, layers.Conv2D(2, 1)(hidden))


def concatenated():
    inputs = keras.Input((6, 6, 3))
    first = layers.Conv2D(6, 3, padding="same", activation="relu")(inputs)
    second = layers.Conv2D(4, 1, activation="relu")(first)
    joined = layers.Concatenate()([second, inputs, first])
    joined = layers.BatchNormalization()(joined)
    dense = layers.Concatenate()([layers.Conv2D(5, 1)(joined), joined])
    flat = layers.Flatten()(layers.AveragePooling2D(3)(dense))
    return keras.Model(inputs, layers.Dense(3)(flat))


def concatenated_positions():
    inputs = keras.Input((4, 4, 3))
    first, second = layers.Conv2D(6, 4)(inputs), layers.Conv2D(6, 4)(inputs)
    joined = layers.Concatenate(axis=1)([first, second])  # 1x1 maps: axes of length 1
    return keras.Model(inputs, layers.Conv2D(2, 1)(joined))


def prelu():
    inputs = keras.Input((4, 4, 3))
    hidden = layers.PReLU(shared_axes=[1, 2])(layers.Conv2D(6, 3, name="before")(inputs))
    hidden = layers.Conv2D(8, 1, activation="relu", name="after")(hidden)
    return keras.Model(inputs, layers.Conv2D(2, 1)(hidden))


def flatten_map():
    inputs = keras.Input((8, 8, 3))
    hidden = layers.Conv2D(6, 3, strides=2, padding="same")(inputs)
    hidden = layers.Flatten()(layers.ReLU()(layers.BatchNormalization()(hidden)))
    hidden = layers.BatchNormalization()(hidden)
    return keras.Model(inputs, layers.Dense(3)(layers.Dense(10, activation="relu")(hidden)))


def squeeze_excite():
    inputs = keras.Input((6, 6, 3))
    hidden = layers.Conv2D(8, 3)(inputs)
    gate = layers.Reshape((1, 1, 8))(layers.GlobalAveragePooling2D()(hidden))
    gate = layers.Conv2D(4, 1, activation="relu")(gate)
    gate = layers.Conv2D(8, 1, activation="sigmoid")(gate)
    spots = layers.Conv2D(1, 1, activation="sigmoid")(hidden)
    hidden = layers.Multiply()([spots, layers.Multiply()([hidden, gate])])
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(hidden)))


def decoder():
    inputs = keras.Input((5,))
    hidden = layers.Reshape((4, 4, 6))(layers.Dense(96, activation="relu")(inputs))
    hidden = layers.Conv2DTranspose(5, 3, strides=2, activation="relu")(hidden)
    return keras.Model(inputs, layers.Conv2D(2, 1)(hidden))


def channels_first():
    inputs = keras.Input((3, 8, 5))
    hidden = layers.Conv2D(6, 3, data_format="channels_first")(inputs)
    hidden = layers.ReLU()(layers.BatchNormalization(axis=1)(hidden))
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten("channels_first")(hidden)))


def frozen_noise():
    """Functions and shapes that fix a number of channels."""
    inputs = keras.Input((8, 8, 3))
    hidden = layers.Conv2D(6, 3, name="noised")(inputs)
    hidden = layers.Dropout(0.5, noise_shape=(None, 1, 1, 6))(hidden)
    hidden = layers.Conv2D(6, 3, activation="softmax", name="compared")(hidden)
    return keras.Model(inputs, layers.Conv2D(2, 3)(layers.Conv2D(7, 1, name="free")(hidden)))


def residual():
    """Two residual blocks, of which the second has a projection."""
    inputs = keras.Input((8, 8, 3))
    trunk = layers.Conv2D(6, 3, padding="same", name="stem")(inputs)
    branch = layers.Conv2D(6, 3, padding="same", name="conv1")(trunk)
    branch = layers.BatchNormalization(name="bn1")(branch)
    trunk = layers.ReLU(name="relu1")(layers.Add(name="add1")([branch, trunk]))
    branch = layers.Conv2D(8, 3, padding="same", name="conv2")(trunk)
    trunk = layers.Conv2D(8, 1, name="project")(trunk)
    trunk = layers.ReLU(name="relu2")(layers.Add(name="add2")([branch, trunk]))
    pooled = layers.GlobalAveragePooling2D(name="pool")(trunk)
    return keras.Model(inputs, layers.Dense(3, name="top")(pooled))


MODELS = {
    function.__name__: function
    for function in (
        sequential,
        several_inputs_and_ops,
        shared_layer,
        shared_by_input_and_hidden,
        nested,
        nested_outputs,
        local_custom_layer,
        subclassed_part,
        unknown_layers,
        one_dimensional,
        depthwise,
        separable,
        transposed,
        concatenated,
        concatenated_positions,
        prelu,
        flatten_map,
        squeeze_excite,
        decoder,
        channels_first,
        frozen_noise,
        residual,
    )
}
