"""Fresh layers: classes that nobody registered, names, frozen layers and vocabularies."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from esnac_tf.errors import UserError
from esnac_tf.graph.building import build, fresh_layer
from esnac_tf.graph.parsing import named_layers, parse
from esnac_tf.graph.teacher import analyse
from esnac_tf.student import StudentBuilder

layers = keras.layers


class Scale(layers.Layer):
    """A layer whose configuration holds its own arguments only."""

    def __init__(self, factor, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), name="scale")

    def call(self, inputs):
        return inputs * self.scale * self.factor

    def get_config(self):
        return {"factor": self.factor}


class Halves(keras.initializers.Initializer):
    """An initializer that is not registered."""

    def __call__(self, shape, dtype=None):
        return keras.ops.full(shape, 0.5, dtype)


def rebuilt(model):
    return build(parse(model), named_layers(model))


def test_a_layer_that_keeps_its_name_for_itself_is_found_by_its_name():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, layers.Dense(2)(Scale(2.0, name="scale", trainable=False)(inputs)))
    fresh = rebuilt(model).get_layer("scale")
    assert fresh.factor == 2.0
    assert not fresh.trainable


def test_classes_inside_a_layer_need_no_registration():
    inputs = keras.Input((3,))
    dense = layers.Dense(2, kernel_initializer=Halves(), name="dense")
    model = keras.Model(inputs, layers.TimeDistributed(dense)(layers.Reshape((1, 3))(inputs)))
    assert (np.asarray(rebuilt(model).weights[0]) == 0.5).all()


@pytest.mark.parametrize(
    ("make", "data", "value"),
    [
        (lambda: layers.StringLookup(), ["b", "a", "b"], "b"),
        (lambda: layers.IntegerLookup(output_mode="count"), [7, 5, 7], 7),
        (lambda: layers.StringLookup(output_mode="tf_idf"), [["a", "b"], ["b", "c"]], ["b"]),
    ],
)
def test_vocabularies_are_taken_over(make, data, value):
    layer = make()
    layer.adapt(np.array(data))
    inputs = keras.Input((1,), dtype="int64" if value == 7 else "string")
    config = parse(keras.Model(inputs, layer(inputs))).layers[layer.name]
    fresh = fresh_layer(config, layer)
    assert fresh.get_vocabulary() == layer.get_vocabulary()
    example = keras.ops.convert_to_tensor(np.array([value]))
    np.testing.assert_array_equal(fresh(example), layer(example))


def test_outputs_keep_their_names():
    middle = keras.Input((4,))
    head = keras.Model(middle, layers.Dense(2, name="inside")(middle), name="head")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, [head(inputs), layers.Dense(3, name="other")(inputs)])
    again = rebuilt(model)
    assert again.output_names == model.output_names == ["head", "other"]
    assert [type(layer).__name__ for layer in again.layers if layer.name == "head"] == ["Identity"]


class Padded(keras.layers.Layer):
    """Tells more of its configuration than it takes back."""

    def __init__(self, size=1, **kwargs):
        super().__init__(**kwargs)
        self.size = size

    def call(self, x):
        return x

    def get_config(self):
        return {**super().get_config(), "size": self.size, "area": self.size**2}


def test_a_layer_that_does_not_take_its_configuration_is_told_with_the_reason():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2)(Padded(name="padded")(inputs)))
    with pytest.raises(UserError, match=r"'padded': .*'area'.*\n.* get_config ") as error:
        StudentBuilder(model, analyse(model)).teacher()
    assert len(str(error.value).splitlines()) == 2


def test_a_slice_may_end_where_a_tensor_says():
    inputs = keras.Input((5, 4))
    part = layers.Dense(6)(inputs)[:, : keras.ops.convert_to_tensor(3)]
    model = keras.Model(inputs, layers.Dense(2)(part))
    examples = np.random.default_rng(0).normal(size=(2, 5, 4))
    student = StudentBuilder(model, analyse(model)).teacher()
    np.testing.assert_array_equal(student(examples), model(examples))
