import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from esnac_tf.datasets.splits import Source, Splits, channel_statistics, hold_out

NAMES = ("even", "odd")


def source(total, test=3):
    x = np.arange(total * 4, dtype=np.float32).reshape(total, 2, 2, 1)
    y = np.arange(total) % 2
    return Source(x, y, x[:test], y[:test], NAMES)


@given(total=st.integers(2, 300), data=st.data())
def test_parts_are_disjoint_and_in_order(total, data):
    validation = data.draw(st.integers(1, total - 1))
    train = data.draw(st.integers(1, total - validation))
    given_source = source(total)
    splits = hold_out("toy", given_source, train, validation)
    np.testing.assert_array_equal(splits.x_train, given_source.x_train[:train])
    np.testing.assert_array_equal(splits.x_validation, given_source.x_train[-validation:])
    np.testing.assert_array_equal(splits.y_train, given_source.y_train[:train])
    np.testing.assert_array_equal(splits.y_validation, given_source.y_train[-validation:])
    assert splits.y_train.dtype == splits.y_validation.dtype == splits.y_test.dtype == np.int32


@pytest.mark.parametrize(
    ("total", "expected"),
    [(2, 1), (100, 10), (49_999, 5000), (50_000, 5000), (60_000, 5000)],
)
def test_default_size_of_the_validation_set(total, expected):
    splits = hold_out("toy", source(total))
    assert len(splits.x_validation) == expected
    assert len(splits.x_train) == total - expected


@pytest.mark.parametrize("value", [0, -1, 10, 11, 1.5, True, "3"])
def test_wrong_validation_examples(value, user_error):
    text = user_error(hold_out, "toy", source(10), None, value)
    assert "--validation_examples" in text
    assert "1 .. 9" in text
    assert repr(value) in text


@pytest.mark.parametrize("value", [0, -5, 7, 10])
def test_wrong_train_examples(value, user_error):
    text = user_error(hold_out, "toy", source(10), value, 4)
    assert "--train_examples must be a whole number in 1 .. 6" in text
    assert "10 training pictures" in text


def test_too_few_pictures(user_error):
    assert "at least 2" in user_error(hold_out, "toy", source(1, test=1))
    assert "0 test pictures" in user_error(hold_out, "toy", source(5, test=0))


def test_normalization_is_of_what_is_trained_on():
    splits = hold_out("toy", source(10), 5, 2)
    assert splits.normalization.mean == pytest.approx((9.5,))
    given_one = dataclasses.replace(source(10), normalization=splits.normalization)
    assert hold_out("toy", given_one).normalization == splits.normalization


@given(
    hnp.arrays(
        np.uint8, hnp.array_shapes(min_dims=2, max_dims=4, max_side=5), elements=st.integers(0, 255)
    )
)
def test_statistics_agree_with_numpy(x):
    mean, deviation = channel_statistics(x)
    axes = tuple(range(x.ndim - 1))
    np.testing.assert_allclose(mean, x.mean(axes, dtype=np.float64))
    expected = x.std(axes, dtype=np.float64)
    np.testing.assert_allclose(deviation, np.where(expected < 1e-9, 1.0, expected), rtol=1e-9)


def test_statistics_over_many_chunks():
    x = np.random.default_rng(0).integers(0, 256, [5000, 3, 2], dtype=np.uint8)
    mean, deviation = channel_statistics(x)
    np.testing.assert_allclose(mean, x.mean((0, 1)))
    np.testing.assert_allclose(deviation, x.std((0, 1)))


def test_a_constant_channel_is_harmless():
    assert channel_statistics(np.full([7, 2], 0.1, np.float32)).standard_deviation == (1.0, 1.0)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"y_train": np.zeros(2, np.int32)}, "x_train and y_train"),
        ({"y_test": np.zeros([3, 2], np.int32)}, "x_test and y_test"),
        ({"x_test": np.zeros([3, 2, 2, 3])}, "(2, 2, 3)"),
        ({"y_validation": np.array([2], np.int32)}, "received 2 .. 2"),
        ({"y_validation": np.array([-1], np.int32)}, "received -1 .. -1"),
        ({"class_names": ("even",)}, "received 1 names"),
        ({"augmentation": "mixup"}, "'mixup'"),
    ],
)
def test_parts_that_do_not_fit(changes, expected, user_error):
    splits = hold_out("toy", source(10))
    assert isinstance(splits, Splits)
    assert expected in user_error(dataclasses.replace, splits, **changes)
