"""Every shape of a functional model: read, rebuilt exactly, changed, saved and loaded."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_models import MODELS, SubclassedPart, examples_for, randomize

from esnac_tf.architecture import ActionSet
from esnac_tf.graph.cost import count_params
from esnac_tf.graph.parsing import functional_model, named_layers, parse
from esnac_tf.graph.teacher import analyse
from esnac_tf.search_space.space import SearchSpace
from esnac_tf.student import StudentBuilder

layers = keras.layers

# A model nested in another does not say that it bears masks, and yet they flow through it.
pytestmark = pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask")


class OptionalSum(layers.Layer):
    """Adds its second input to the first if it is there."""

    def call(self, first, second=None):
        return first if second is None else first + second


class OwnConfig(keras.Model):
    """A functional model that tells the arguments of its own constructor."""

    def __init__(self, units, **kwargs):
        inputs = keras.Input((4,))
        hidden = layers.Dense(units, activation="relu", name="inside")(inputs)
        super().__init__(inputs, layers.Dense(4, name="back")(hidden), **kwargs)
        self.units = units

    def get_config(self):
        return {"units": self.units, "name": self.name}


class OwnCall(OwnConfig):
    """A functional model that does something else than its graph."""

    def call(self, inputs, training=None, mask=None):
        return 2 * super().call(inputs, training=training, mask=mask)


def masked_text():
    """The mask of an Embedding, through two nested models."""
    sequence = keras.Input((5, 6))
    inner = keras.Sequential([sequence, layers.Dense(6), layers.Dropout(0.5)], name="inner")
    hidden = layers.LSTM(4, return_sequences=True)(inner(sequence))
    encoder = keras.Model(sequence, hidden, name="encoder")
    words = keras.Input((5,), dtype="int32")
    hidden = encoder(layers.Embedding(8, 6, mask_zero=True)(words))
    return keras.Model(words, layers.Dense(2)(layers.GlobalAveragePooling1D()(hidden)))


def masked_series():
    """The mask of a Masking layer, for a nested model."""
    series = keras.Input((5, 3))
    encoder = keras.Sequential([keras.Input((5, 3)), layers.GRU(4), layers.Dense(6)])
    masked = layers.Masking(0.0)(keras.ops.relu(series))
    return keras.Model(series, layers.Dense(2)(encoder(masked)))


def mask_of_ones_own():
    """A mask that Keras did not make: the nested model stays one layer."""
    sequence = keras.Input((5, 6))
    encoder = keras.Sequential([sequence, layers.Dense(6), layers.LSTM(4)], name="encoder")
    inputs, mask = keras.Input((5, 6)), keras.Input((5,), dtype="bool")
    hidden = encoder(layers.Dense(6)(inputs), mask=mask)
    return keras.Model([inputs, mask], layers.Dense(2)(layers.Dense(7)(hidden)))


def strings():
    """Words, numbers and texts with what was learned from data."""
    colour = keras.Input((1,), dtype="string", name="colour")
    number = keras.Input((1,), dtype="int64", name="number")
    text = keras.Input((), dtype="string", name="text")
    size = keras.Input((3,), name="size")
    word_lookup = layers.StringLookup(output_mode="multi_hot")
    word_lookup.adapt(np.array(["red", "green", "green"]))
    number_lookup = layers.IntegerLookup(vocabulary=[2, 3], output_mode="one_hot")
    vectorization = layers.TextVectorization(output_mode="tf_idf")
    vectorization.adapt(np.array(["red green", "green new", "new"]))
    normalization = layers.Normalization()
    bins = layers.Discretization(num_bins=3, output_mode="multi_hot")
    sizes = np.random.default_rng(0).normal(2, 3, (20, 3))
    normalization.adapt(sizes)
    bins.adapt(sizes)
    parts = [
        word_lookup(colour),
        number_lookup(number),
        vectorization(text),
        normalization(size),
        bins(size),
    ]
    hidden = layers.Dense(8)(layers.Concatenate()(parts))
    inputs = {"colour": colour, "number": number, "text": text, "size": size}
    return keras.Model(inputs, layers.Dense(3)(hidden))


def several_dtypes():
    """Inputs of several dtypes; outputs that are inputs, and one that is there twice."""
    words = keras.Input((5,), dtype="int32", name="words")
    picture = keras.Input((4, 4, 3), dtype="uint8", name="picture")
    half = keras.Input((6,), dtype="float16", name="half")
    hidden = layers.GlobalAveragePooling1D()(layers.Embedding(9, 6)(words))
    pixels = layers.Conv2D(6, 3, name="conv")(layers.Rescaling(1 / 255)(picture))
    added = layers.Add(name="sum")([hidden, layers.Flatten()(layers.MaxPooling2D()(pixels))])
    added = layers.Dense(6, name="dense")(layers.Concatenate()([added, half]))
    top = layers.Dense(2, dtype="float16", name="top")(added)
    return keras.Model([words, picture, half], [top, words, (top, picture)])


def fixed_batch():
    inputs = keras.Input(batch_shape=(2, 6, 6, 3), name="pictures")
    hidden = layers.Conv2D(5, 3, name="conv")(inputs)
    inner = keras.Sequential([keras.Input((4, 4, 5)), layers.Flatten(), layers.Dense(8)])
    return keras.Model(inputs, layers.Dense(2)(inner(hidden)))


def optional_input():
    first, second = keras.Input((6,)), keras.Input((6,), optional=True, name="spare")
    hidden = OptionalSum()(layers.Dense(6)(first), second)
    return keras.Model([first, second], layers.Dense(2)(layers.Dense(8)(hidden)))


def sparse_input():
    inputs = keras.Input((6,), sparse=True)
    return keras.Model(inputs, layers.Dense(2)(layers.Dense(8)(inputs)))


def ragged_input():
    words = keras.Input((None,), dtype="int64", ragged=True)
    hidden = layers.Embedding(9, 6)(keras.ops.convert_to_tensor(words))
    return keras.Model(words, layers.Dense(2)(layers.GlobalAveragePooling1D()(hidden)))


def own_config():
    inputs = keras.Input((4,))
    hidden = OwnConfig(8, name="part")(inputs)
    return keras.Model(inputs, layers.Dense(3)(OwnCall(6, name="other")(hidden)))


def subclassed_inside():
    """A subclassed model in a nested one: it stays one layer."""
    middle = keras.Input((6,))
    part = SubclassedPart(name="part")
    inner = keras.Model(middle, layers.Dense(6)(part(middle)), name="inner")
    part.dense.trainable = False
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Dense(2)(inner(layers.Dense(6)(inputs))))


def sum_is_output():
    inputs = keras.Input((6,))
    total = layers.Add(name="total")([inputs, layers.Dense(6, name="branch")(inputs)])
    return keras.Model(inputs, [total, layers.Dense(3, name="top")(total)])


SHAPES = {
    **{
        name: MODELS[name]
        for name in (
            "nested",
            "nested_outputs",
            "transfer_learning",
            "sequential_of_models",
            "nested_deeply",
            "siamese",
            "structures",
            "arguments",
            "mixed_precision",
            "layer_options",
            "variable_length",
        )
    },
    **{
        function.__name__: function
        for function in (
            masked_text,
            masked_series,
            mask_of_ones_own,
            strings,
            several_dtypes,
            fixed_batch,
            optional_input,
            sparse_input,
            ragged_input,
            own_config,
            subclassed_inside,
            sum_is_output,
        )
    },
}


def make(name):
    return randomize(SHAPES[name]())


def examples(name, model):
    if name == "optional_input":
        return [examples_for(model)[0], None]
    if name == "sparse_input":
        return tf.sparse.from_dense(examples_for(model))
    if name == "ragged_input":
        return tf.ragged.constant([[1, 2, 3], [4]], dtype="int64")
    return keras.tree.map_structure(keras.ops.convert_to_tensor, examples_for(model))


def call(name, model):
    """The structure of a model's outputs as lists and dicts in their order, and the values."""
    outputs = model(examples(name, model), training=False)
    values = [np.asarray(output) for output in keras.tree.flatten(outputs)]
    return repr(keras.tree.map_structure(lambda _: 0, outputs)), values


def interface(model):
    """All that those who call a model rely on."""
    model = functional_model(model)
    architecture = parse(model)
    inputs = {
        reference.layer: dict(architecture.layers[reference.layer].config)
        for reference in architecture.input_references
    }
    structures = [
        repr(keras.tree.map_structure(lambda tensor: (tensor.shape, tensor.dtype), tensors))
        for tensors in (model.input, model.output)
    ]
    return list(inputs.items()), structures


def listed(value):
    """Text with lists for tuples: a file does not tell them apart."""
    return repr(value).replace("(", "[").replace(")", "]")


@pytest.mark.parametrize("name", list(SHAPES))
def test_no_action_gives_the_same_model(name):
    teacher = make(name)
    student = StudentBuilder(teacher, analyse(teacher)).build(ActionSet())
    structure, expected = call(name, teacher)
    received_structure, received = call(name, student)
    assert received_structure == structure
    for one, other in zip(received, expected, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    assert interface(student) == interface(teacher)
    names = functional_model(teacher).output_names
    if len(set(names)) == len(names):
        assert student.output_names == names
    assert count_params(student) == count_params(teacher)
    policies = {name: layer.dtype_policy.name for name, layer in keras_layers(teacher).items()}
    for layer_name, layer in keras_layers(student).items():
        assert layer.dtype_policy.name == policies.get(layer_name, layer.dtype_policy.name)
        template = keras_layers(teacher).get(layer_name, layer)
        assert layer.trainable == template.trainable
        assert [weight.trainable for weight in layer.weights] == (
            [weight.trainable for weight in template.weights]
        )


def keras_layers(model):
    return {
        name: layer
        for name, layer in named_layers(model).items()
        if isinstance(layer, layers.Layer)
    }


@pytest.mark.parametrize("name", list(SHAPES))
def test_random_students_run_and_load_as_they_were_saved(name, tmp_path):
    teacher = make(name)
    graph = analyse(teacher, "dependency")
    space = SearchSpace(graph)
    builder = StudentBuilder(teacher, graph)
    custom = {kind.__name__: kind for kind in (OptionalSum, SubclassedPart, OwnConfig, OwnCall)}
    for actions in space.to_actions(space.sample(2, np.random.default_rng(0))):
        student = builder.build(actions)
        structure, expected = call(name, student)
        assert structure == call(name, teacher)[0]
        student.save(tmp_path / "student.keras")
        loaded = keras.saving.load_model(tmp_path / "student.keras", custom_objects=custom)
        for one, other in zip(call(name, loaded)[1], expected, strict=True):
            np.testing.assert_array_equal(one, other)
        assert listed(interface(loaded)) == listed(interface(student))
