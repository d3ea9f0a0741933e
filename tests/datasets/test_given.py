"""Data as the user gives it becomes batches."""

import pickle

import numpy as np
import pytest
import tensorflow as tf

from esnac_tf.datasets.given import (
    DatasetBatches,
    given_evaluation_batches,
    given_training_batches,
)
from esnac_tf.datasets.structures import StructuredBatches

X = np.arange(20, dtype="float32").reshape(10, 2)
Y = np.arange(10) % 3
LABELS = {"numbers": Y, "column": Y[:, None], "one_hot": np.eye(3)[Y], "bytes": Y.astype("uint8")}


WEIGHT = np.arange(10) / 4


def dataset(x=X, y=Y, batch_size=4, weight=None):
    parts = (x, y) if weight is None else (x, y, weight)
    return tf.data.Dataset.from_tensor_slices(parts).batch(batch_size)


def holed(array, value):
    """The array with a number in example 7 that is none."""
    array = array.copy()
    array[7] = value
    return array


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("form", ["arrays", "lists", "dataset"])
def test_training_batches_have_one_size_and_class_numbers(labels, form):
    y = LABELS[labels]
    data = {"arrays": (X, y), "lists": [X.tolist(), y.tolist()], "dataset": dataset(y=y)}[form]
    batches = given_training_batches(data, 4, num_classes=3)
    assert batches.batch_size == 4
    elements = list(batches.epoch(0))
    assert len(elements) == 2  # the two examples that are left fill no batch
    for x, numbers in elements:
        assert x.shape == (4, 2)
        assert numbers.dtype == tf.int32
        np.testing.assert_array_equal(numbers, Y[(x[:, 0].numpy() // 2).astype(int)])


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("form", ["arrays", "dataset"])
def test_evaluation_batches_hold_every_example_once(labels, form):
    y = LABELS[labels]
    data = (X, y) if form == "arrays" else dataset(y=y)
    seen, numbers = [], []
    for x, y, weight in given_evaluation_batches(data, 4, num_classes=3):
        assert x.shape[0] == y.shape[0] == weight.shape[0] == 4
        seen += x.numpy()[weight.numpy() > 0].tolist()
        numbers += y.numpy()[weight.numpy() > 0].tolist()
    assert seen == X.tolist()
    assert numbers == Y.tolist()


def test_what_is_already_in_batches_is_taken_as_it_is():
    batches = given_training_batches((X, Y), 4)
    assert given_training_batches(batches, 2) is batches
    evaluation = given_evaluation_batches((X, Y), 4)
    assert given_evaluation_batches(evaluation, 2) is evaluation


@pytest.mark.parametrize("sizes", [(4, 6), (2, 5, 3), (6, 1, 3)])
@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("weighted", [False, True])
def test_evaluation_batches_of_any_sizes_hold_every_example_once(sizes, labels, weighted):
    ends = np.cumsum(sizes)
    parts = [X, LABELS[labels], np.arange(1, 11, dtype="float64")][: 3 if weighted else 2]

    def batches():
        for start, end in zip([0, *ends], ends, strict=False):
            yield tuple(part[start:end] for part in parts)

    specs = [tf.TensorSpec((None, *part.shape[1:]), part.dtype) for part in parts]
    data = tf.data.Dataset.from_generator(batches, output_signature=tuple(specs))
    given = given_evaluation_batches(data, 4, num_classes=3)
    whole = [np.concatenate(part) for part in zip(*given.as_numpy_iterator(), strict=True)]
    assert {spec.shape[0] for spec in given.element_spec} == {sizes[0]}
    np.testing.assert_array_equal(whole[0][:10], X)
    np.testing.assert_array_equal(whole[1][:10], Y)
    np.testing.assert_array_equal(whole[2][:10], parts[2] if weighted else np.ones(10))
    assert not whole[2][10:].any()


@pytest.mark.parametrize(
    ("y", "weight", "expected"),
    [
        (Y + 1, np.ones(10), "received 1 .. 3"),
        (np.eye(4)[Y], np.ones(10), "4 columns"),
        (np.eye(3)[Y][:, None], np.ones(10), "one-hot [B, C]"),
        (Y, np.ones((10, 3)), "Weights must be one number for each example"),
    ],
)
def test_weighted_data_that_does_not_fit_is_told(user_error, y, weight, expected):
    data = tf.data.Dataset.from_tensor_slices((X, y, weight)).batch(4)
    assert expected in user_error(given_evaluation_batches, data, 4, num_classes=3)


@pytest.mark.parametrize("give", [given_training_batches, given_evaluation_batches])
def test_examples_of_other_models_are_finite_too(user_error, give):
    data = ([X, holed(X, np.nan)], X)
    assert "first in example 7" in user_error(give, data, 4, is_classifier=False)
    give((X, holed(X, np.nan)), 4, is_classifier=False)  # labels may be missing
    give((np.array([["a"], ["b"]]), Y[:2]), 2, is_classifier=False)


def test_arrays_are_shuffled_by_seed_and_epoch():
    def order(seed, epoch):
        batches = given_training_batches((X, Y), 4, seed)
        return np.concatenate([x.numpy()[:, 0] for x, _ in batches.epoch(epoch)]).tolist()

    assert order(0, 0) == order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)


@pytest.mark.parametrize(
    "data",
    [
        lambda: (X, Y, WEIGHT),
        lambda: tf.data.Dataset.from_tensor_slices((X, Y, WEIGHT)).batch(5),
    ],
    ids=["arrays", "dataset"],
)
@pytest.mark.parametrize("is_classifier", [True, False])
def test_weights_stay_with_their_examples(data, is_classifier):
    batches = given_training_batches(data(), 5, num_classes=3, is_classifier=is_classifier)
    held_out = given_evaluation_batches(data(), 5, num_classes=3, is_classifier=is_classifier)
    for dataset in (batches.epoch(0), held_out):
        rows = [np.concatenate(part) for part in zip(*dataset.as_numpy_iterator(), strict=True)]
        for x, y, weight in zip(*rows, strict=True):
            [index] = np.flatnonzero((x == X).all(axis=1))
            assert (y, weight) == (Y[index], np.float32(WEIGHT[index]))


@pytest.mark.parametrize("weight", [None, np.arange(6, dtype=np.float32)])
def test_structured_batches_go_to_another_process(weight):
    x = {"a": np.arange(6.0), "b": [np.array(["one", "two", "six"] * 2)]}
    batches = StructuredBatches(x, np.arange(6), 2, seed=1, weight=weight)
    copy = pickle.loads(pickle.dumps(batches))
    for batch, other in zip(batches.epoch(4), copy.epoch(4), strict=True):
        tf.nest.assert_same_structure(batch, other)
        for part, part_copy in zip(tf.nest.flatten(batch), tf.nest.flatten(other), strict=True):
            assert part.dtype == part_copy.dtype
            np.testing.assert_array_equal(part, part_copy)


def test_the_last_batch_of_weighted_arrays_is_filled_up():
    *_, (_, _, weight) = given_evaluation_batches((X, Y, WEIGHT), 4)
    np.testing.assert_array_equal(weight, [2.0, 2.25, 0, 0])


def test_the_number_of_batches_may_be_unknown():
    assert DatasetBatches(dataset(X[:8], Y[:8])).num_batches == 2
    assert DatasetBatches(dataset().filter(lambda x, y: True)).num_batches is None


def test_inputs_may_be_nested():
    nested = tf.data.Dataset.from_tensor_slices(({"a": X, "b": X[:, :1]}, Y)).batch(4)
    x, _ = next(iter(given_training_batches(nested, 4).epoch(0)))
    assert x["a"].shape == (4, 2)
    x, _, _ = list(given_evaluation_batches(nested, 4))[-1]
    assert x["b"].shape == (4, 1)


@pytest.mark.parametrize("give", [given_training_batches, given_evaluation_batches])
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (lambda: "digits", "received str"),
        (lambda: (X, Y, np.ones((10, 2))), "Weights must be one number for each example"),
        (lambda: (X, Y, ["heavy"] * 10), "Weights must be one number for each example"),
        (lambda: (X, Y, np.ones(9)), "one number of examples"),
        (
            lambda: (X, Y, np.arange(10) - 4.0),
            "data gives example 0 the weight -4.0",
        ),
        (
            lambda: (X, Y, holed(WEIGHT, np.nan)),
            "data gives example 7 the weight nan",
        ),
        (
            lambda: dataset(x=X, y=Y, weight=-WEIGHT),
            "data gives example 1 the weight",
        ),
        (
            lambda: dataset(weight=np.full(10, np.inf)),
            "data gives example 0",
        ),
        (lambda: (holed(X, np.nan), Y), "NaN or infinity, first in example 7"),
        (lambda: (holed(X, -np.inf), Y, WEIGHT), "NaN or infinity, first in example 7"),
        (lambda: ({"a": X, "b": holed(X, np.inf)}, Y), "NaN or infinity, first in example 7"),
        (lambda: [holed(X, np.nan).tolist(), Y], "NaN or infinity, first in example 7"),
        (
            lambda: dataset(holed(X, np.nan), batch_size=8),
            "data holds NaN or infinity",
        ),
        (
            lambda: dataset({"a": holed(X, np.nan)}, batch_size=8),
            "data holds NaN",
        ),
        (lambda: (X, Y[:-1]), "shapes (10, 2) and (9,)"),
        (lambda: (X[:0], Y[:0]), "N at least 1"),
        (lambda: (X, np.array(["cat"] * 10)), "y must be an array of numbers"),
        (lambda: (np.array([{}] * 10), Y), "x must be an array of numbers"),
        (lambda: (X, Y + 1), "in 0 .. 2, as the model has 3 classes, received 1 .. 3"),
        (lambda: (X, Y - 1), "received -1 .. 1"),
        (lambda: (X, np.eye(4)[Y]), "4 columns"),
        (lambda: dataset(y=np.eye(4)[Y]), "4 columns"),
        (lambda: dataset(y=Y + 1), "received 1 .. 3"),
        (lambda: dataset(y=np.eye(3)[Y][:, None]), "one-hot [B, C]"),
        (lambda: dataset(y={"class": Y}), "Labels must be"),
        (lambda: dataset().take(0), "is empty"),
        (lambda: dataset().repeat(), "has no end"),
        (lambda: dataset().unbatch(), "received single examples"),
        (lambda: tf.data.Dataset.from_tensor_slices(X), "received elements"),
    ],
)
def test_other_data_is_told(user_error, give, data, expected):
    assert expected in user_error(give, data(), 4, num_classes=3)


def test_the_error_says_which_data_it_is(user_error):
    bad = (holed(X, np.nan), Y)
    assert "The training data holds" in user_error(given_training_batches, bad, 4)
    assert "The test data holds" in user_error(
        lambda *args: given_evaluation_batches(*args, part="test"), bad, 4
    )
    batches = dataset(*bad, batch_size=8)
    assert "The first batch of the validation data" in user_error(
        given_evaluation_batches, batches, 4
    )
