"""Models of every purpose: what they are for is found, and they are compressed as a user would."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import esnac_tf
from esnac_tf.config import SearchConfig
from esnac_tf.distillation.output_losses import LabelLoss
from esnac_tf.distillation.task import Task, search_metric
from esnac_tf.errors import UserError
from esnac_tf.purpose import find_purpose

layers = keras.layers
GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(64, 6)).astype("float32")
PICTURES = GENERATOR.normal(size=(32, 8, 8, 3)).astype("float32")
SETTINGS = {
    "strategy": "random", "num_steps": 1, "num_kernels": 2, "num_best": 1, "search_epochs": 1,
    "full_epochs": 1, "batch_size": 16, "full_learning_rate": 1e-3,
}  # fmt: skip


def search(model, data, **settings):
    return esnac_tf.search_students(model, data, data, test=data, **{**SETTINGS, **settings})


def assert_measured(result, metric, expected, direction):
    """The figures are those that Keras itself computes of the student; more is better."""
    [student] = result.students
    assert student.trial.metric == metric
    assert student.validation_metric == pytest.approx(expected(student.model), rel=1e-4)
    assert student.test_metric == pytest.approx(student.validation_metric, rel=1e-4)
    teacher = result.summary["teacher"]
    ratio = student.validation_metric / teacher[f"validation_{metric}"]
    saved = 1 - student.num_params / teacher["num_params"]
    reward = saved * (2 - saved) * (ratio if direction == "max" else 1 / ratio)
    assert student.objective == pytest.approx(reward, rel=1e-4)
    assert result.summary["students"][0][f"test_{metric}"] == student.test_metric
    assert (student.validation_accuracy is None) == (metric != "accuracy")
    assert student.num_params < teacher["num_params"]


def dense_net(outputs=1, activation=None):
    inputs = keras.Input((6,))
    hidden = layers.Dense(16, activation="relu")(inputs)
    hidden = layers.Dense(16, activation="relu")(hidden)
    return keras.Model(inputs, layers.Dense(outputs, activation)(hidden))


def evaluated(x, y, loss=None, metric=None):
    """What Keras says of a model after compiling it."""

    def value(model):
        metrics = None if metric is None else [metric]
        model.compile(loss=loss, metrics=metrics)
        figures = model.evaluate(x, y, verbose=0, batch_size=len(keras.tree.flatten(y)[0]))
        return figures if metric is None else figures[-1]

    return value


def test_regression_is_judged_by_the_loss_it_is_compiled_with():
    model, y = dense_net(), 2 * X[:, :1]
    model.compile("adam", "mean_squared_error")
    model.fit(X, y, epochs=5, verbose=0)
    result = search(model, (X, y))
    assert_measured(result, "loss", evaluated(X, y, "mean_squared_error"), "min")


@pytest.mark.parametrize("shape", [(64,), (64, 1)], ids=str)
def test_a_metric_and_a_loss_by_name(shape):
    y = X[:, 0].reshape(shape)
    result = search(dense_net(), (X, y), loss="huber", metric="mean_absolute_error")
    column = y.reshape(64, 1)
    expected = evaluated(X, column, "huber", "mean_absolute_error")
    assert_measured(result, "mean_absolute_error", expected, "min")


def tagged_sentences():
    """Sentences of 2 to 6 words, filled up with zeros, and a tag for each place."""
    words = GENERATOR.integers(1, 9, (64, 6))
    words[np.arange(6) >= GENERATOR.integers(2, 7, (64, 1))] = 0
    return words, np.where(words > 0, words % 3, 2 - words % 3)


def tagger():
    words = keras.Input((6,), dtype="int32")
    hidden = layers.Embedding(9, 12, mask_zero=True)(words)
    hidden = layers.LSTM(12, return_sequences=True)(hidden)
    return keras.Model(words, layers.Dense(3)(hidden))


@pytest.mark.parametrize("metric", ["loss", "sparse_categorical_accuracy"])
def test_what_only_fills_a_batch_of_sequences_does_not_count(metric):
    x, y = tagged_sentences()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    result = search(tagger(), (x, y), loss=loss, metric=metric, batch_size=64)
    expected = evaluated(x, y, loss, None if metric == "loss" else metric)
    assert_measured(result, metric, expected, "min" if metric == "loss" else "max")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_masked_loss_is_the_one_of_keras(dtype):
    x, y = tagged_sentences()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    policy = "mixed_float16" if dtype == "float16" else "float32"
    words = keras.Input((6,), dtype="int32")
    far = keras.initializers.RandomNormal(stddev=3.0, seed=0)
    hidden = layers.Embedding(9, 12, far, mask_zero=True, dtype=policy)(words)
    model = keras.Model(words, layers.Dense(3, dtype=policy)(hidden))
    task = Task(is_classifier=False)
    ours = LabelLoss(loss)(tf.constant(y), None, task.scores(model(x)))
    assert float(tf.reduce_mean(ours)) == pytest.approx(float(loss(y, model(x))), rel=1e-2)
    everything = tf.reduce_mean(loss.call(tf.constant(y), tf.cast(model(x), tf.float32)))
    assert float(everything) != pytest.approx(float(tf.reduce_mean(ours)), rel=3e-2)


def test_labels_of_any_size_are_learned_in_the_full_training():
    model, y = dense_net(), 500 + 400 * X[:, :1]
    model.compile(keras.optimizers.Adam(0.1), "mean_squared_error")
    model.fit(X, y, epochs=60, verbose=0)
    settings = {**SETTINGS, "full_epochs": 8}
    del settings["full_learning_rate"]
    result = esnac_tf.search_students(model, (X, y), (X, y), **settings)
    [student] = result.students
    assert student.failure is None
    assert student.best_epoch > 0
    assert student.validation_metric < student.trial.validation_metric


def test_several_labels_at_once():
    y = (GENERATOR.random((64, 5)) > 0.5).astype("float32")
    result = search(
        dense_net(5, "sigmoid"), (X, y), loss="binary_crossentropy", metric="binary_accuracy"
    )
    expected = evaluated(X, y, "binary_crossentropy", "binary_accuracy")
    assert_measured(result, "binary_accuracy", expected, "max")


def test_another_metric_of_a_classifier():
    y = GENERATOR.integers(0, 5, 64)
    metric = keras.metrics.SparseTopKCategoricalAccuracy(2, name="top_2")
    result = search(dense_net(5), (X, y), metric=metric)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    fresh = keras.metrics.SparseTopKCategoricalAccuracy(2)
    assert_measured(result, "top_2", evaluated(X, y, loss, fresh), "max")


@pytest.mark.filterwarnings("ignore:.*better than chance")
def test_a_classifier_with_a_dict_for_its_output():
    model = dense_net(5)
    model = keras.Model(model.input, {"scores": model.output})
    result = search(model, (X, GENERATOR.integers(0, 5, 64)), loss="auto")
    assert result.students[0].trial.metric == "accuracy"
    assert set(result.students[0].model(X)) == {"scores"}


def segmentation():
    inputs = keras.Input((8, 8, 3))
    hidden = layers.Conv2D(8, 3, padding="same", activation="relu")(inputs)
    model = keras.Model(inputs, layers.Conv2D(2, 1)(hidden))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


MASKS = (PICTURES.sum(-1) > 0).astype("int32")


def test_segmentation_by_a_metric_object():
    metric = keras.metrics.MeanIoU(2, sparse_y_pred=False, name="iou")
    result = search(segmentation(), (PICTURES, MASKS), metric=metric)
    fresh = keras.metrics.MeanIoU(2, sparse_y_pred=False)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    assert_measured(result, "iou", evaluated(PICTURES, MASKS, loss, fresh), "max")


class Batches(keras.utils.PyDataset):
    epochs = 0

    def __len__(self):
        return 2

    def __getitem__(self, index):
        rows = slice(16 * index, 16 * index + 16)
        return PICTURES[rows], MASKS[rows]

    def on_epoch_end(self):
        self.epochs += 1


def test_a_py_dataset_gives_what_its_arrays_give():
    batches = Batches()
    result = esnac_tf.search_students(segmentation(), batches, Batches(), **SETTINGS)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    [student] = result.students
    expected = evaluated(PICTURES, MASKS, loss)(student.model)
    assert student.validation_metric == pytest.approx(expected, rel=1e-4)
    assert batches.epochs >= 2


def two_by_two():
    a, b = keras.Input((6,), name="a"), keras.Input((4,), name="b")
    hidden = layers.Concatenate()(
        [layers.Dense(8, activation="relu")(a), layers.Dense(8, activation="relu")(b)]
    )
    hidden = layers.Dense(12, activation="relu")(hidden)
    outputs = {
        "kind": layers.Dense(3, name="kind")(hidden),
        "size": layers.Dense(1, name="size")(hidden),
    }
    model = keras.Model({"a": a, "b": b}, outputs)
    losses = {
        "kind": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "size": "mean_squared_error",
    }
    model.compile("adam", losses, loss_weights={"kind": 1.0, "size": 0.5})
    return model


DICTS = {"a": X, "b": GENERATOR.normal(size=(64, 4)).astype("float32")}
LABELS = {"kind": GENERATOR.integers(0, 3, 64), "size": X[:, :1]}


def test_two_inputs_and_two_outputs_are_judged_by_the_whole_loss():
    result = search(two_by_two(), (DICTS, LABELS))

    def expected(model):
        twin = two_by_two()
        model.compile(loss=twin.loss, loss_weights={"kind": 1.0, "size": 0.5})
        figures = model.evaluate(DICTS, LABELS, verbose=0, batch_size=64, return_dict=True)
        return figures["loss"]

    assert_measured(result, "loss", expected, "min")
    student = result.students[0].model
    assert list(student.input) == ["a", "b"]
    assert list(student.output) == ["kind", "size"]


@pytest.mark.parametrize("metric", ["accuracy", "sparse_categorical_accuracy"])
def test_a_metric_of_one_of_several_outputs(metric):
    result = search(two_by_two(), (DICTS, LABELS), metric={"kind": metric})

    def expected(model):
        return float(np.mean(np.argmax(model(DICTS)["kind"], -1) == LABELS["kind"]))

    assert_measured(result, "sparse_categorical_accuracy", expected, "max")


def classifier(inputs, hidden, classes=3):
    return keras.Model(inputs, layers.Dense(classes)(hidden))


def time_series():
    inputs = keras.Input((32, 4))
    hidden = layers.Conv1D(8, 5, padding="same", activation="relu")(inputs)
    hidden = layers.BatchNormalization()(hidden)
    hidden = layers.Conv1D(8, 5, padding="same", activation="relu")(hidden)
    return classifier(inputs, layers.GlobalAveragePooling1D()(hidden))


def text():
    inputs = keras.Input((12,), dtype="int32")
    hidden = layers.Embedding(50, 8, mask_zero=True)(inputs)
    hidden = layers.LSTM(12)(hidden)
    return classifier(inputs, layers.Dense(8, activation="relu")(hidden))


def vision_transformer():
    inputs = keras.Input((8, 8, 3))
    patches = layers.Conv2D(16, 2, strides=2)(inputs)
    tokens = layers.Reshape((16, 16))(patches)
    for _ in range(2):
        normal = layers.LayerNormalization()(tokens)
        tokens = layers.Add()([tokens, layers.MultiHeadAttention(2, 8)(normal, normal)])
        normal = layers.LayerNormalization()(tokens)
        hidden = layers.Dense(32, activation="gelu")(normal)
        tokens = layers.Add()([tokens, layers.Dense(16)(hidden)])
    hidden = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(tokens))
    return classifier(inputs, hidden)


@pytest.mark.filterwarnings("ignore:.*better than chance")
@pytest.mark.parametrize(
    ("make", "x"),
    [
        (time_series, GENERATOR.normal(size=(48, 32, 4)).astype("float32")),
        (text, GENERATOR.integers(0, 50, (48, 12))),
        (vision_transformer, GENERATOR.normal(size=(48, 8, 8, 3)).astype("float32")),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.parametrize("channel_groups", ["width", "dependency"])
def test_networks_of_every_kind(make, x, channel_groups):
    model, y = make(), np.arange(48) % 3
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    result = search(model, (x, y), channel_groups=channel_groups, search_learning_rate=1e-3)
    assert all(trial.is_complete for trial in result.trials), result.trials
    assert result.students[0].num_params < result.summary["teacher"]["num_params"]


def list_outputs():
    inputs = keras.Input((6,))
    hidden = layers.Dense(12, activation="relu")(inputs)
    outputs = [layers.Dense(2, name="near")(hidden), layers.Dense(2, name="far")(hidden)]
    model = keras.Model(inputs, outputs)
    model.compile("adam", {"near": "mean_squared_error", "far": "mean_absolute_error"})
    return model


def test_outputs_in_a_list_are_known_by_name():
    labels = [X[:, :2], X[:, 2:4]]
    result = search(list_outputs(), (X, labels), metric={"far": "mean_absolute_error"})

    def expected(model):
        return float(np.mean(np.abs(np.asarray(model(X)[1]) - labels[1])))

    assert_measured(result, "mean_absolute_error", expected, "min")


@pytest.mark.parametrize(
    ("compiled", "labels"),
    [
        ("mean_squared_error", X[:, :3]),
        ("binary_crossentropy", (GENERATOR.random((64, 3)) > 0.5).astype("float32")),
    ],
)
def test_what_is_compiled_with_another_loss_is_no_classifier(compiled, labels):
    model = dense_net(3, "sigmoid")
    model.compile("adam", compiled)
    assert_measured(search(model, (X, labels)), "loss", evaluated(X, labels, compiled), "min")


@pytest.mark.parametrize(
    "metric",
    [
        "mse",
        "mean_absolute_error",
        keras.metrics.RootMeanSquaredError(name="distance"),
        keras.metrics.BinaryCrossentropy(name="surprise"),
    ],
    ids=str,
)
def test_less_of_an_error_is_better_whatever_its_name(metric):
    assert search_metric(metric).direction == "min"


def test_a_loss_that_is_a_mean_over_all_is_that_of_each_example():
    outputs, labels = tf.constant([[1.0], [3.0]]), tf.constant([[0], [0]])
    mean = LabelLoss(lambda y, p: tf.reduce_mean((y - p) ** 2))
    assert mean(labels, None, outputs).numpy().tolist() == [5.0, 5.0]
    each = LabelLoss(lambda y, p: tf.reduce_mean((y - p) ** 2, axis=-1))
    assert each(labels, None, outputs).numpy().tolist() == [1.0, 9.0]


def shape_compare(labels, outputs):
    return labels - outputs


class TestErrors:
    def told(self, **settings):
        model = settings.pop("model", None) or dense_net()
        with pytest.raises(UserError) as caught:
            search(model, settings.pop("data", (X, X[:, :1])), **settings)
        assert len(str(caught.value).splitlines()) == 2
        return str(caught.value)

    def test_no_loss(self):
        assert "its loss is not known" in self.told()

    def test_unknown_names(self):
        assert "Unknown loss 'mse_'" in self.told(loss="mse_")
        assert "Unknown metric 'mae_'" in self.told(loss="mse", metric="mae_")

    def test_a_loss_that_does_not_fit_the_labels(self):
        text = self.told(model=dense_net(4), loss="mean_squared_error", data=(X, X))
        assert text.startswith("The loss can't be computed")
        reason = text.splitlines()[0].partition("): ")[2]
        assert reason == "Incompatible shapes: [16,6] vs. [16,4]"

    def test_an_output_without_a_label_is_named(self):
        labels = {"kind": LABELS["kind"]}
        text = self.told(model=two_by_two(), data=(DICTS, labels))
        assert text.startswith("The output 'size' has a loss, but no label.")

    @pytest.mark.parametrize("metric", ["MeanIoU", "mean_io_u", keras.metrics.MeanIoU])
    def test_a_metric_that_needs_arguments(self, metric):
        text = self.told(loss="mse", metric=metric)
        assert "needs arguments" in text
        assert "'num_classes'" in text
        assert "from Python" in text

    def test_a_metric_that_does_not_fit_the_labels_tells_the_useful_words(self):
        text = self.told(
            model=dense_net(4), loss=lambda y, p: p[:, 0], data=(X, X), metric=shape_compare
        )
        assert "model's outputs: Incompatible shapes: [16,6] vs. [16,4]\n" in text

    def test_a_metric_of_an_output_that_is_not_there(self):
        text = self.told(
            model=two_by_two(), data=(DICTS, LABELS), metric={"colour": "mean_absolute_error"}
        )
        assert "The outputs are 'kind', 'size'" in text

    def test_a_metric_that_does_not_say_which_output(self):
        text = self.told(model=two_by_two(), data=(DICTS, LABELS), metric="mean_absolute_error")
        assert "a metric looks at one" in text

    def test_a_loss_of_classes_for_what_has_none(self):
        text = self.told(loss="mse", distillation_loss="soft_targets")
        assert "compares the classes of classifiers" in text

    def test_labels_that_are_no_classes(self):
        assert "must be one-hot" in self.told(model=dense_net(3), data=(X, X[:, :3]))

    def test_metrics_that_are_no_figure_or_take_other_labels(self):
        y = GENERATOR.integers(0, 3, 64)
        text = self.told(model=dense_net(3), data=(X, y), metric="categorical_accuracy")
        assert "Give its sparse twin" in text
        text = self.told(model=two_by_two(), data=(DICTS, LABELS), metric={"kin": "accuracy"})
        assert "The outputs are " in text
        assert "'kind'" in text
        metric = keras.metrics.R2Score(class_aggregation=None)
        text = self.told(model=dense_net(2), data=(X, X[:, :2]), loss="mse", metric=metric)
        assert "gives 2 numbers" in text

    def test_a_loss_below_zero_compares_nothing(self):
        text = self.told(loss=lambda y, p: -1.0 - tf.reduce_mean((y - p) ** 2, axis=-1))
        assert "with which no student can be compared" in text

    def test_weights_that_are_no_numbers_of_examples(self):
        assert "one number for each example" in self.told(data=(X, X[:, :1], X), loss="mse")

    def test_a_label_is_missing(self):
        labels = {"kind": LABELS["kind"]}
        assert self.told(model=two_by_two(), data=(DICTS, labels))


def test_examples_weigh_in_the_metric():
    labels, weight = X[:, :1] * 2, np.linspace(0, 1, len(X))

    def expected(student):
        errors = np.abs(np.asarray(student(X)) - labels)[:, 0]
        return (errors * weight).sum() / weight.sum()

    data = (X, labels, weight)
    result = search(dense_net(), data, loss="mse", metric="mean_absolute_error")
    assert_measured(result, "mean_absolute_error", expected, "min")


def test_what_is_asked_for_is_recorded(tmp_path):
    settings = find_purpose(
        dense_net(), SearchConfig(loss="huber"), metric=keras.metrics.MeanAbsoluteError()
    ).settings
    assert settings["loss"] == "huber"
    assert settings["metric"]["class_name"] == "MeanAbsoluteError"
    search(dense_net(), (X, X[:, :1]), loss="huber", run_dir=tmp_path)
    with pytest.raises(UserError, match="loss is"):
        search(dense_net(), (X, X[:, :1]), loss="mean_squared_error", run_dir=tmp_path)
