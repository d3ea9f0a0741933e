"""Nested models: names, shapes, arguments, and what stays one layer."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import small_models
from small_models import backbone

from esnac_tf.architecture import ActionSet, TensorReference
from esnac_tf.graph.cost import count_params
from esnac_tf.graph.parsing import named_layers, parse
from esnac_tf.graph.teacher import analyse
from esnac_tf.student import StudentBuilder

layers = keras.layers


def called_layers(model):
    return [call.layer for call in parse(model).calls if call.inputs]


def dense_part(name, units=6, layer="dense"):
    return keras.Sequential([keras.Input((6,)), layers.Dense(units, name=layer)], name=name)


def rebuilt(model):
    return StudentBuilder(model, analyse(model)).build(ActionSet())


def test_layers_keep_their_names_where_no_other_has_them():
    names = called_layers(small_models.model("sequential_of_models"))
    assert [name for name in names if name[:2] in ("co", "bn")] == ["conv1", "bn1", "conv2", "bn2"]


def test_the_outer_layer_keeps_its_name_and_the_others_get_their_models_before_it():
    inputs = keras.Input((6,))
    parts = [dense_part("first"), dense_part("second"), dense_part("third", layer="first_dense")]
    hidden = inputs
    for part in parts:
        hidden = part(hidden)
    model = keras.Model(inputs, layers.Dense(2, name="dense")(hidden))
    assert called_layers(model) == ["first_dense", "second_dense", "third_first_dense", "dense"]
    assert list(named_layers(model).values())[1] is parts[0].layers[0]


def test_a_nested_models_name_is_free_for_a_layer_in_it():
    inputs = keras.Input((6,))
    model = keras.Model(inputs, dense_part("part", layer="part")(inputs))
    assert called_layers(model) == ["part"]


def test_models_of_one_name_number_their_layers():
    same = keras.Sequential([keras.Input((6,)), dense_part("part")], name="same")
    other = keras.Sequential([keras.Input((6,)), dense_part("part")], name="other")
    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.Dense(2, name="dense")(other(same(inputs))))
    assert called_layers(model) == ["part_dense", "part_dense_1", "dense"]


def test_a_layer_in_two_models_is_one_layer():
    shared = layers.Dense(6, name="shared")
    middle = keras.Input((6,))
    inner = keras.Model(middle, shared(middle), name="inner")
    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.Dense(2)(shared(inner(shared(inputs)))))
    assert called_layers(model)[:3] == ["shared"] * 3
    student = rebuilt(model)
    assert len(student.weights) == len(model.weights) == 4
    assert count_params(student) == 6 * 6 + 6 + 6 * 2 + 2


def test_shapes_are_those_of_the_call_not_those_of_the_models_own_inputs():
    inputs = keras.Input((8, 10, 3))
    model = keras.Model(inputs, backbone()(inputs))
    assert model.output_shape == (None, 8, 10, 6)
    shapes = parse(model).shapes
    assert shapes[TensorReference("conv1")] == (None, 8, 10, 6)
    assert shapes[parse(model).outputs] == (None, 8, 10, 6)


def test_training_reaches_the_layers_that_take_it_and_wins_over_theirs():
    middle = keras.Input((6,))
    hidden = layers.Dropout(0.5, name="drop")(middle, training=True)
    hidden = layers.Dense(6, name="dense")(hidden)
    inner = keras.Model(middle, layers.BatchNormalization(name="norm")(hidden), name="inner")
    inputs = keras.Input((6,))

    def arguments(model):
        return {
            call.layer: call.kwargs.get("training") for call in parse(model).calls if call.inputs
        }

    model = keras.Model(inputs, inner(inputs))
    assert arguments(model) == {"drop": True, "dense": None, "norm": None}
    outer = keras.Sequential([keras.Input((6,)), inner], name="outer")
    model = keras.Model(inputs, outer(inputs, training=False))
    assert arguments(model) == {"drop": False, "dense": False, "norm": False}


def test_training_updates_the_statistics_that_it_updates_in_the_teacher():
    middle = keras.Input((6,))
    hidden = layers.BatchNormalization(name="frozen", trainable=False)(middle)
    hidden = layers.BatchNormalization(name="norm")(hidden)
    inner = keras.Model(middle, hidden, name="inner")
    inputs = keras.Input((6,))
    model = keras.Model(inputs, inner(inputs, training=False))
    student = rebuilt(model)
    examples = small_models.examples_for(model, 4)
    np.testing.assert_array_equal(student(examples, training=True), model(examples, training=True))
    for name, layer in named_layers(model).items():
        for one, other in zip(layer.weights, named_layers(student)[name].weights, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_frozen_model_freezes_its_layers_but_for_those_that_are_made_trainable_again():
    inputs = keras.Input((6,))
    part = dense_part("part")
    frozen = keras.Sequential([keras.Input((6,)), part, layers.Dense(6, name="own")], name="frozen")
    frozen.trainable = False
    model = keras.Model(inputs, frozen(inputs))
    assert model.trainable_variables == rebuilt(model).trainable_variables == []
    part.layers[0].trainable = True
    assert len(model.trainable_variables) == 2
    paths = [weight.path for weight in rebuilt(model).trainable_variables]
    assert paths == ["dense/kernel", "dense/bias"]


@pytest.mark.parametrize(
    ("given", "expected", "cast"),
    [
        ("float16", "float32", "Identity"),
        ("uint8", "float32", "Rescaling"),
        ("int32", "int64", "Rescaling"),
    ],
)
def test_inputs_are_cast_as_keras_casts_them(given, expected, cast):
    middle = keras.Input((4,), dtype=expected)
    inner = keras.Model(middle, middle + 1, name="inner")
    inputs = keras.Input((4,), dtype=given)
    model = keras.Model(inputs, inner(inputs))
    kinds = [layer.class_name for layer in parse(model).layers.values()]
    assert kinds[1] == cast
    examples = np.array([[0, 1, 100, 255]], given)
    np.testing.assert_array_equal(rebuilt(model)(examples), model(examples))
    assert rebuilt(model).output.dtype == model.output.dtype
    assert not analyse(model).removals


def test_inputs_in_a_dict_are_given_by_name_to_a_model_that_takes_a_list():
    first, second = keras.Input((3,), name="first"), keras.Input((3,), name="second")
    inner = keras.Model([second, first], second - 2 * first, name="inner")
    inputs = [keras.Input((3,)), keras.Input((3,))]
    given = {"first": inputs[0], "second": inputs[1]}
    model = keras.Model(inputs, layers.Dense(2)(inner(given)))
    examples = small_models.examples_for(model)
    assert "inner" not in named_layers(model)
    np.testing.assert_array_equal(rebuilt(model)(examples), model(examples))


def called_on_another_rank():
    inner = keras.Sequential([keras.Input((6, 1)), layers.Flatten(), layers.Dense(6)], name="inner")
    inputs = keras.Input((6,))
    return keras.Model(inputs, inner(inputs))


def called_with_a_mask():
    inner = keras.Sequential([keras.Input((5, 6)), layers.LSTM(4)], name="inner")
    inputs, mask = keras.Input((5, 6)), keras.Input((5,), dtype="bool")
    return keras.Model([inputs, mask], inner(inputs, mask=mask))


def subclassed():
    inputs = keras.Input((6,))
    return keras.Model(inputs, small_models.SubclassedPart(name="inner")(inputs))


@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask")
@pytest.mark.parametrize("make", [called_on_another_rank, called_with_a_mask, subclassed])
def test_what_can_not_be_replaced_stays_one_layer(make):
    model = make()
    assert called_layers(model) == ["inner"]
    examples = small_models.examples_for(model)
    np.testing.assert_array_equal(rebuilt(model)(examples), model(examples))


def test_outputs_that_nothing_takes_are_left_out():
    names = named_layers(small_models.model("nested_deeply"))
    assert "unused" not in names
    assert {"shared", "cell_shared"} <= names.keys()


def test_layers_of_nested_models_are_removed_shrunk_and_connected():
    model = small_models.model("transfer_learning")
    actions = ActionSet.of(
        removed=["bn2"], widths={"6": 3}, skips=[("backbone_conv1", "backbone_conv2")]
    )
    student = StudentBuilder(model, analyse(model)).build(actions)
    assert student.get_layer("backbone_conv1").filters == 3
    assert student.output_shape == (None, 3)
