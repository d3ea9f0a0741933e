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
        if weight.path.endswith(("/mean", "/variance")):
            continue  # a Normalization layer took them over when it was adapted
        values = generator.normal(0, 0.3, weight.shape)
        if weight.path.endswith(("gamma", "moving_variance")):
            values = generator.uniform(0.5, 1.5, weight.shape)
        elif weight.path.endswith("kernel"):
            values *= 3 / np.sqrt(max(np.prod(weight.shape[:-1]), 9))
        weight.assign(values)
    return model


def examples_for(model, count: int = 2, seed: int = 1):
    """A batch of random examples, in the structure that the model takes."""
    generator = np.random.default_rng(seed)

    def draw(tensor):
        shape = (tensor.shape[0] or count, *(length or 8 for length in tensor.shape[1:]))
        if tensor.dtype == "string":
            return keras.ops.convert_to_tensor(generator.choice(["red", "green", "new"], shape))
        if tensor.dtype.startswith(("int", "uint")):
            return generator.integers(0, 8, shape).astype(tensor.dtype)
        return generator.normal(size=shape).astype(tensor.dtype)

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


def backbone(**options):
    """A network without a top for pictures of any size, as keras.applications gives them."""
    inputs = keras.Input((None, None, 3))
    stem = layers.Conv2D(6, 3, padding="same", name="conv1")(layers.Rescaling(0.5)(inputs))
    stem = layers.ReLU()(layers.BatchNormalization(name="bn1")(stem))
    branch = layers.Conv2D(6, 3, padding="same", name="conv2")(stem)
    branch = layers.BatchNormalization(name="bn2")(branch)
    output = layers.ReLU()(layers.Add()([branch, stem]))
    return keras.Model(inputs, output, name="backbone", **options)


def transfer_learning():
    """A frozen backbone under a new top, whose layers have names of the backbone's."""
    base = backbone()
    base.trainable = False
    inputs = keras.Input((8, 8, 3))
    hidden = layers.GlobalAveragePooling2D()(base(inputs, training=False))
    hidden = layers.Dense(8, activation="relu", name="conv1")(hidden)
    return keras.Model(inputs, layers.Dense(3, name="conv2")(layers.Dropout(0.5)(hidden)))


def sequential_of_models():
    head = keras.Sequential([layers.Dense(8, activation="relu"), layers.Dense(3)], name="head")
    pool = layers.GlobalAveragePooling2D()
    return keras.Sequential([keras.Input((8, 8, 3)), backbone(), pool, head])


def nested_deeply():
    """Three levels, each called twice; two inputs in a dict, two outputs, one of them unused."""
    first, second = keras.Input((6,), name="first"), keras.Input((6,), name="second")
    hidden = layers.Dense(6, name="shared")(layers.Add()([first, second]))
    unused = layers.Dense(2, name="unused")(hidden)
    cell = keras.Model([first, second], {"unused": unused, "state": hidden}, name="cell")
    inputs = keras.Input((6,))
    state = cell([inputs, inputs])["state"]
    state = cell({"first": layers.ReLU()(state), "second": inputs})["state"]
    middle = keras.Model(inputs, [state, inputs], name="middle")
    pixels = keras.Input((4,))
    hidden = layers.Dense(6, name="shared")(pixels)
    once, same = middle(hidden)
    twice, _ = middle(layers.ReLU()(once))
    return keras.Model(pixels, layers.Dense(3)(layers.Concatenate()([once, same, twice])))


def siamese():
    encoder = keras.Sequential(
        [keras.Input((6, 6, 3)), layers.Conv2D(6, 3, activation="relu"), layers.Flatten()],
        name="encoder",
    )
    left, right = keras.Input((6, 6, 3), name="left"), keras.Input((6, 6, 3), name="right")
    distance = keras.ops.absolute(encoder(left) - encoder(right))
    return keras.Model([left, right], layers.Dense(1)(layers.Dense(8)(distance)))


def structures():
    """Inputs and outputs in dicts and tuples; an output that is an input, one that is used."""
    spare, given = keras.Input((5,), name="spare"), keras.Input((4,), name="given")
    hidden = layers.Dense(8, activation="relu", name="hidden")(given)
    top = layers.Dense(3, name="top")(layers.Dense(8, name="last")(hidden))
    outputs = {"z": (top, [hidden]), "a": {"spare": spare, "again": top}}
    return keras.Model({"spare": spare, "given": given}, outputs)


def arguments():
    """Calls with `training`, masks, initial states and constants."""
    inputs = keras.Input((5, 4))
    mask = keras.ops.any(inputs > 0, axis=-1)
    hidden = layers.Dense(6)(inputs) + np.arange(6, dtype="float32")
    hidden = layers.BatchNormalization()(hidden, training=False)
    hidden = layers.Dropout(0.5)(hidden, training=False)
    state = layers.Dense(3)(layers.GlobalAveragePooling1D()(hidden, mask=mask))
    hidden = layers.GRU(3, return_sequences=True)(hidden, initial_state=state, mask=mask)
    return keras.Model(inputs, layers.Dense(2)(hidden[:, -1]))


def mixed_precision():
    """A nested model of float32 on features of float16, and pictures of uint8."""
    tail = keras.Sequential(
        [keras.Input((4,)), layers.Dense(8), layers.BatchNormalization()], name="tail"
    )
    inputs = keras.Input((6, 6, 3), dtype="uint8")
    base = backbone()
    base.dtype_policy = "mixed_float16"
    for layer in base.layers:
        layer.dtype_policy = "mixed_float16"
    hidden = layers.GlobalAveragePooling2D(dtype="mixed_float16")(base(inputs))
    hidden = tail(layers.Dense(4, dtype="mixed_float16")(hidden))
    return keras.Model(inputs, layers.Dense(3)(hidden))


def layer_options():
    """Frozen layers, regularizers, constraints and initializers."""
    inputs = keras.Input((6, 6, 3))
    hidden = layers.Conv2D(
        6,
        3,
        kernel_regularizer=keras.regularizers.L2(0.01),
        kernel_constraint=keras.constraints.MaxNorm(3),
        kernel_initializer=keras.initializers.HeNormal(seed=3),
        activity_regularizer="l1",
        name="regularized",
    )(inputs)
    hidden = layers.BatchNormalization(trainable=False, name="frozen")(hidden)
    hidden = layers.Conv2D(6, 3, padding="same", trainable=False, name="kept")(hidden)
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(hidden)))


def variable_length():
    inputs = keras.Input((None, 4))
    inner = keras.Sequential([keras.Input((None, 4)), layers.Conv1D(6, 3)], name="inner")
    hidden = layers.Conv1D(6, 3, padding="same")(layers.ReLU()(inner(inputs)))
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalMaxPooling1D()(hidden)))


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


def attention_and_recurrence():
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


def vision_transformer():
    """Patches, two blocks of attention and dense layers, the mean over all positions."""
    inputs = keras.Input((8, 8, 3))
    hidden = layers.Conv2D(8, 2, strides=2, name="patches")(inputs)
    hidden = layers.Reshape((16, 8))(hidden)
    for number in range(2):
        normal = layers.LayerNormalization()(hidden)
        attention = layers.MultiHeadAttention(2, 4, dropout=0.1, name=f"attention{number}")
        hidden = layers.Add()([hidden, attention(normal, normal)])
        dense = layers.LayerNormalization()(hidden)
        dense = layers.Dense(16, activation="gelu", name=f"expand{number}")(dense)
        hidden = layers.Add()([hidden, layers.Dense(8, name=f"shrink{number}")(dense)])
    hidden = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(hidden))
    return keras.Model(inputs, layers.Dense(3)(hidden))


def text_classifier():
    """Words, padded with zeros, which the mask leaves out."""
    words = keras.Input((7,), dtype="int32")
    hidden = layers.Embedding(8, 6, mask_zero=True, name="words")(words)
    hidden = layers.LSTM(6, return_sequences=True, dropout=0.1, name="lstm")(hidden)
    hidden = layers.Bidirectional(layers.GRU(4), name="both")(hidden)
    return keras.Model(words, layers.Dense(2)(layers.Dense(9, activation="relu")(hidden)))


def time_series():
    """Causal convolutions with a residual connection, and a recurrent layer over them."""
    inputs = keras.Input((16, 2))
    hidden = layers.Conv1D(6, 3, padding="causal", activation="relu", name="stem")(inputs)
    branch = layers.Conv1D(6, 3, padding="causal", dilation_rate=2, name="branch")(hidden)
    branch = layers.Activation("relu")(layers.BatchNormalization()(branch))
    hidden = layers.MaxPooling1D()(layers.Add()([hidden, branch]))
    hidden = layers.TimeDistributed(layers.Dense(5, activation="tanh", name="each"))(hidden)
    return keras.Model(inputs, layers.Dense(1)(layers.SimpleRNN(4)(hidden)))


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
        attention_and_recurrence,
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
        transfer_learning,
        sequential_of_models,
        nested_deeply,
        siamese,
        structures,
        arguments,
        mixed_precision,
        layer_options,
        variable_length,
        vision_transformer,
        text_classifier,
        time_series,
    )
}
