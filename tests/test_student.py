"""Students: exact copies, sliced weights, and random actions that build, train and reload."""

from __future__ import annotations

import pathlib

import hypothesis
import hypothesis.strategies as st
import keras
import numpy as np
import pytest
import small_models
import tensorflow as tf
from small_models import MODELS, MODES, TEACHERS, builder_of, examples_for, graph_of, run

from esnac_tf import teachers
from esnac_tf.architecture import ActionSet
from esnac_tf.encoding import Encoder
from esnac_tf.errors import UserError
from esnac_tf.graph.cost import count_params
from esnac_tf.graph.parsing import parse
from esnac_tf.graph.teacher import analyse
from esnac_tf.graph.widths import ParameterTable
from esnac_tf.search_space.space import SearchSpace
from esnac_tf.student import StudentBuilder

RESNET20 = pathlib.Path(__file__).parents[2] / "shared" / "teachers" / "resnet20_cifar10.keras"
ALL = [*TEACHERS, *MODELS]


def few(count):
    return hypothesis.settings(
        max_examples=count, deadline=None, derandomize=True, phases=[hypothesis.Phase.generate]
    )


# No action: the teacher.


@pytest.mark.parametrize("name", ALL)
def test_no_action_gives_the_teachers_outputs_exactly(name):
    teacher, builder = small_models.model(name), builder_of(name, "width")
    examples = examples_for(teacher)
    for _ in range(2):  # the second student is as good as the first
        student = builder.build(ActionSet())
        for expected, received in zip(run(teacher, examples), run(student, examples), strict=True):
            np.testing.assert_array_equal(received, expected)
    outputs = teacher(examples)
    assert keras.tree.map_structure(lambda _: 0, student(examples)) == keras.tree.map_structure(
        lambda _: 0, outputs
    )
    assert count_params(student) == count_params(teacher)


def test_no_action_gives_the_outputs_of_a_teacher_from_a_file_exactly():
    if not RESNET20.exists():
        pytest.skip(f"{RESNET20} is not here")
    teacher = keras.saving.load_model(RESNET20, compile=False)
    student = StudentBuilder(teacher, analyse(teacher)).build(ActionSet())
    pictures = np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 3)).astype("float32")
    np.testing.assert_array_equal(student(pictures), teacher(pictures))


def test_statistics_of_normalization_layers_are_inherited():
    data = np.random.default_rng(0).normal(3, 2, (50, 4)).astype("float32")
    outer, inner = keras.layers.Normalization(), keras.layers.Normalization()
    outer.adapt(data)
    inner.adapt(data)
    inputs = keras.Input((4,))
    part = keras.Sequential([keras.Input((4,)), inner, keras.layers.Dense(6)], name="part")
    teacher = keras.Model(inputs, keras.layers.Dense(2)(part(outer(inputs))))
    student = StudentBuilder(teacher, analyse(teacher)).build(ActionSet())
    np.testing.assert_array_equal(student(data), teacher(data))


def test_a_student_has_weights_of_its_own():
    teacher = small_models.model("residual")
    before = [np.asarray(weight).copy() for weight in teacher.weights]
    student = builder_of("residual", "width").build(ActionSet())
    for weight in student.weights:
        weight.assign(weight + 1)
    for weight, value in zip(teacher.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)


def test_a_student_takes_a_name():
    assert builder_of("residual", "width").build(ActionSet(), name="small").name == "small"


# Narrower layers: the teacher with the dropped channels masked.


def masked_teacher(teacher, graph, kept):
    """The teacher, in which every channel that is not kept is zero wherever it is made."""
    copy = keras.models.clone_model(teacher)
    copy.set_weights(teacher.get_weights())
    for call in graph.architecture.calls:
        labels = graph.channels.labels[graph.architecture.outputs_of(call)[0]].reshape(-1)
        dropped = (labels >= 0) & ~kept[labels]
        if not dropped.any() or call.call or not graph.architecture.layer_of(call).is_keras_layer:
            continue
        for weight in copy.get_layer(call.layer).weights:
            name, value = weight.path.rsplit("/", 1)[-1], np.asarray(weight).copy()
            class_name = graph.architecture.layer_of(call).class_name
            if name in ("bias", "gamma", "beta"):
                value[dropped] = 0
            elif class_name == "Conv2DTranspose":
                value[..., dropped, :] = 0
            elif class_name == "DepthwiseConv2D":
                flat = value.reshape(*value.shape[:2], -1)
                flat[..., dropped] = 0
                value = flat.reshape(value.shape)
            elif name in ("kernel", "pointwise_kernel"):
                value[..., dropped] = 0
            weight.assign(value)
    return copy


def assert_equals_masked_teacher(teacher, builder, graph, widths):
    actions = ActionSet.of(widths=widths)
    examples = examples_for(teacher)
    student = builder.build(actions)
    masked = masked_teacher(teacher, graph, builder.kept_slots(actions))
    for expected, received in zip(run(masked, examples), run(student, examples), strict=True):
        np.testing.assert_allclose(
            received, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max()
        )
    return student


def draw_widths(data, graph):
    return {group.name: data.draw(st.integers(1, group.width)) for group in graph.width_groups}


SLICED = [
    "concatenated",
    "concatenated_positions",
    "decoder",
    "depthwise",
    "flatten_map",
    "one_dimensional",
    "prelu",
    "residual",
    "separable",
    "sequential",
    "shared_layer",
    "squeeze_excite",
    "transposed",
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", SLICED)
@few(3)
@hypothesis.given(data=st.data())
def test_sliced_weights_equal_the_masked_full_layer(name, mode, data):
    graph = graph_of(name, mode)
    widths = draw_widths(data, graph)
    assert_equals_masked_teacher(small_models.model(name), builder_of(name, mode), graph, widths)


@pytest.mark.parametrize("name", SLICED)
def test_one_channel_a_group_equals_the_masked_full_layer(name):
    graph = graph_of(name, "width")
    widths = {group.name: 1 for group in graph.width_groups}
    teacher, builder = small_models.model(name), builder_of(name, "width")
    assert_equals_masked_teacher(teacher, builder, graph, widths)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["resnet18", "vgg16", "shufflenet"])
@few(2)
@hypothesis.given(data=st.data())
def test_sliced_teachers_equal_the_masked_teacher(name, mode, data):
    graph = graph_of(name, mode)
    widths = draw_widths(data, graph)
    assert_equals_masked_teacher(small_models.model(name), builder_of(name, mode), graph, widths)


@pytest.mark.parametrize(
    ("spec", "picture"),
    [("shufflenet(width=200)", (8, 8, 3)), ("vgg16(width=4)", (64, 64, 1))],
)
def test_sliced_larger_teachers_equal_the_masked_teacher(spec, picture):
    """Channel shuffles of 50 channels, whose bundles are of two classes; Flatten of 2x2."""
    teacher = small_models.randomize(teachers.build(spec, picture, 3))
    graph = analyse(teacher, "dependency")
    generator = np.random.default_rng(0)
    widths = {group.name: generator.integers(1, group.width) for group in graph.width_groups}
    builder = StudentBuilder(teacher, graph)
    student = assert_equals_masked_teacher(teacher, builder, graph, widths)
    for layer in student.layers:
        if isinstance(layer, keras.layers.Conv2D) and layer.groups == 2:
            assert layer.filters % 2 == 0
            assert layer.input.shape[-1] % 2 == 0


def test_the_most_important_channels_are_kept():
    inputs = keras.Input((3,))
    hidden = keras.layers.Dense(4, name="hidden", use_bias=False)(inputs)
    teacher = keras.Model(inputs, keras.layers.Dense(2)(hidden))
    kernel = np.array([[1, 3, 0, 2], [1, 3, 0, 2], [2, 4, 1, 3]], "float32")
    teacher.get_layer("hidden").kernel.assign(kernel)
    actions = ActionSet.of(widths={"4": 2})
    for importance, expected in (("l1", [1, 3]), ("l2", [1, 3]), ("first", [0, 1])):
        builder = StudentBuilder(teacher, analyse(teacher), importance)
        student = builder.build(actions)
        np.testing.assert_array_equal(student.get_layer("hidden").kernel, kernel[:, expected])


def test_scales_of_batch_normalization_tell_which_channels_are_kept():
    inputs = keras.Input((3,))
    hidden = keras.layers.Dense(4, name="hidden")(inputs)
    hidden = keras.layers.BatchNormalization(name="norm")(hidden)
    plain = keras.layers.Dense(3, name="plain", use_bias=False)(hidden)
    teacher = keras.Model(inputs, keras.layers.Dense(2)(plain))
    scales = np.array([0.1, -2.0, 0.2, 1.0], "float32")
    teacher.get_layer("norm").gamma.assign(scales)
    teacher.get_layer("hidden").kernel.assign([[9, 1, 5, 1]] * 3)
    teacher.get_layer("plain").kernel.assign([[1, 9, 5]] * 4)
    for importance, expected in (("batch_norm", [1, 3]), ("l2", [0, 1])):
        student = StudentBuilder(teacher, analyse(teacher), importance).build(
            ActionSet.of(widths={"4": 2, "3": 2})
        )
        np.testing.assert_array_equal(student.get_layer("norm").gamma, scales[expected])
        # A group without BatchNormalization is judged by its weights.
        np.testing.assert_array_equal(student.get_layer("plain").kernel[0], [9, 5])


def test_separable_convolutions_are_scored_by_what_creates_their_channels():
    inputs = keras.Input((4, 4, 3))
    hidden = keras.layers.SeparableConv2D(4, 3, depth_multiplier=2, name="hidden")(inputs)
    teacher = keras.Model(inputs, keras.layers.Conv2D(2, 1)(hidden))
    layer = teacher.get_layer("hidden")
    kernel = np.ones((1, 1, 6, 4), "float32") * np.array([1, 3, -2, 0.5], "float32")
    layer.pointwise_kernel.assign(kernel)
    layer.bias.assign([9, 0, 0, 9])  # says nothing
    student = StudentBuilder(teacher, analyse(teacher)).build(ActionSet.of(widths={"4": 2}))
    np.testing.assert_array_equal(student.get_layer("hidden").pointwise_kernel, kernel[..., [1, 2]])


def test_units_are_scored_by_all_their_gates():
    inputs = keras.Input((5, 3))
    hidden = keras.layers.GRU(3, name="hidden")(inputs)
    teacher = keras.Model(inputs, keras.layers.Dense(2)(hidden))
    cell = teacher.get_layer("hidden").cell
    kernel = np.ones((3, 9), "float32") * np.array([1, 0, 0, 1, 0, 2, 1, 9, 2], "float32")
    cell.kernel.assign(kernel)
    cell.recurrent_kernel.assign(np.ones((3, 9)))
    student = StudentBuilder(teacher, analyse(teacher)).build(ActionSet.of(widths={"3": 2}))
    kept = student.get_layer("hidden").cell
    np.testing.assert_array_equal(kept.kernel, kernel[:, [1, 2, 4, 5, 7, 8]])
    assert kept.recurrent_kernel.shape == (2, 6)
    assert kept.bias.shape == (2, 6)


def test_heads_are_scored_by_all_that_is_theirs():
    inputs = keras.Input((5, 6))
    layer = keras.layers.MultiHeadAttention(3, 4, name="attention")
    teacher = keras.Model(inputs, keras.layers.Dense(2)(layer(inputs, inputs)))
    scale = np.array([3, 1, 2], "float32")
    for dense in (layer.query_dense, layer.key_dense, layer.value_dense):
        dense.kernel.assign(np.ones((6, 3, 4)) * scale[:, None])
    layer.output_dense.kernel.assign(np.ones((3, 4, 6)) * scale[:, None, None])
    graph = analyse(teacher, "dependency")
    student = StudentBuilder(teacher, graph).build(ActionSet.of(widths={"attention/heads": 2}))
    kept = student.get_layer("attention")
    assert kept.num_heads == 2
    np.testing.assert_array_equal(kept.output_dense.kernel[:, 0, 0], [3, 2])
    np.testing.assert_array_equal(kept.query_dense.kernel[0, :, 0], [3, 2])


def test_shorter_keys_keep_the_scale_of_the_scores():
    inputs = keras.Input((5, 6))
    layer = keras.layers.MultiHeadAttention(2, 8, name="attention")
    teacher = keras.Model(inputs, keras.layers.Dense(2)(layer(inputs, inputs)))
    graph = analyse(teacher, "dependency")
    student = StudentBuilder(teacher, graph, "first").build(
        ActionSet.of(widths={"attention/key_size": 2})
    )
    kept = student.get_layer("attention")
    assert (kept.key_dim, kept.value_dim) == (2, 8)
    np.testing.assert_allclose(
        kept.query_dense.kernel, layer.query_dense.kernel[..., :2] * np.sqrt(2 / 8), rtol=1e-6
    )
    np.testing.assert_array_equal(kept.key_dense.kernel, layer.key_dense.kernel[..., :2])


def test_states_that_are_kept_between_batches_fit_the_student():
    inputs = keras.Input(batch_shape=(2, 5, 3))
    hidden = keras.layers.LSTM(6, stateful=True, name="hidden")(inputs)
    teacher = keras.Model(inputs, keras.layers.Dense(2)(hidden))
    student = StudentBuilder(teacher, analyse(teacher)).build(ActionSet.of(widths={"6": 4}))
    examples = examples_for(teacher)
    assert not np.array_equal(student(examples), student(examples))
    student.get_layer("hidden").reset_state()
    assert student.get_layer("hidden").states[0].shape == (2, 4)


def test_channel_importance_that_is_not_known():
    with pytest.raises(UserError, match="l1, l2, batch_norm, first"):
        StudentBuilder(small_models.model("residual"), graph_of("residual", "width"), "luck")


# Random actions.


def assert_trains(student, examples):
    """One step of gradient descent with a finite loss and finite gradients."""
    with tf.GradientTape() as tape:
        outputs = keras.tree.flatten(student(examples, training=True))
        loss = sum(tf.reduce_mean(tf.square(output - 1)) for output in outputs)
    weights = [weight.value for weight in student.trainable_variables]
    gradients = tape.gradient(loss, weights)
    assert np.isfinite(loss)
    for weight, gradient in zip(weights, gradients, strict=True):
        if gradient is not None:
            gradient = tf.convert_to_tensor(gradient)  # that of an embedding is sparse
            assert np.isfinite(gradient).all()
            weight.assign_sub(1e-3 * gradient)


def random_candidate(name, mode, seed):
    space = SearchSpace(graph_of(name, mode))
    return space, space.sample(1, np.random.default_rng(seed))


def assert_counted_and_encoded(name, mode, candidate, student):
    """What is told of a student before it is built is true of the student."""
    graph = graph_of(name, mode)
    table = ParameterTable(graph, small_models.model(name))
    assert table.count(candidate.removed, candidate.widths)[0] == count_params(student)
    features = Encoder(graph).encode(candidate.removed, candidate.widths, candidate.skips)[0]
    built = parse(student)
    calls = {(call.layer, call.call): call for call in built.calls}
    for index, node in enumerate(graph.nodes):
        first = node.calls[0]
        axis = (
            1
            if graph.architecture.layer_of(first).config.get("data_format") == ("channels_first")
            else -1
        )
        if candidate.removed[0, index] or not features[index, 14:16].any() or axis == 1:
            continue
        call = calls[first.layer, first.call]
        given = built.shapes[call.inputs[0]][axis]
        made = built.shapes[built.outputs_of(call)[0]][axis]
        np.testing.assert_array_equal(features[index, 14:16], [given, made], node.name)


def assert_random_student(name, mode, seed, folder):
    space, candidate = random_candidate(name, mode, seed)
    (actions,) = space.to_actions(candidate)
    student = builder_of(name, mode).build(actions)
    examples = examples_for(student)
    assert all(np.isfinite(output).all() for output in run(student, examples))
    assert_counted_and_encoded(name, mode, candidate, student)
    assert_trains(student, examples)
    student.save(folder / "student.keras")
    loaded = keras.saving.load_model(folder / "student.keras", compile=False)
    np.testing.assert_allclose(loaded(examples), student(examples), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["resnet18", "resnet34", "vgg16", "vgg19"])
@few(2)
@hypothesis.given(seed=st.integers(0, 10**6))
def test_random_students_of_teachers(name, mode, seed, tmp_path_factory):
    assert_random_student(name, mode, seed, tmp_path_factory.mktemp("student"))


@pytest.mark.parametrize(("mode", "seed"), [("width", 1), ("dependency", 2)])
def test_random_students_of_shufflenet(mode, seed, tmp_path):
    """One for each mode: Keras compiles each grouped convolution with XLA on a CPU."""
    assert_random_student("shufflenet", mode, seed, tmp_path)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", list(MODELS))
@few(3)
@hypothesis.given(seed=st.integers(0, 10**6))
def test_random_students_of_all_kinds_of_layers(name, mode, seed):
    space, candidate = random_candidate(name, mode, seed)
    (actions,) = space.to_actions(candidate)
    student = builder_of(name, mode).build(actions)
    examples = examples_for(student)
    assert all(np.isfinite(output).all() for output in run(student, examples))
    assert_counted_and_encoded(name, mode, candidate, student)
    assert_trains(student, examples)


@pytest.mark.parametrize("name", ["concatenated", "resnet18", "several_inputs_and_ops"])
def test_equal_actions_give_equal_students(name):
    space, candidate = random_candidate(name, "width", 3)
    (actions,) = space.to_actions(candidate)
    builder = builder_of(name, "width")
    first, second = builder.build(actions), builder.build(actions)
    for a, b in zip(first.weights, second.weights, strict=True):
        np.testing.assert_array_equal(a, b)
