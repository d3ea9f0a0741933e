"""What is told of students that came out badly; test_compression.py has the rest."""

import warnings

import keras
import numpy as np
import pytest

import esnac_tf

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(64, 6)).astype("float32")
NOISE = GENERATOR.normal(size=(64, 1)).astype("float32")
SETTINGS = {
    "strategy": "random", "num_steps": 1, "num_kernels": 2, "num_best": 1, "search_epochs": 1,
    "search_learning_rate": 1e-9, "full_epochs": 0, "batch_size": 16, "loss": "mse",
}  # fmt: skip


def regression_net():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(16, activation="relu") for _ in range(3)]
    return keras.Sequential([keras.Input((6,)), *layers, keras.layers.Dense(1)])


def told(noise, spoilt=False, **settings):
    """The warnings of a search whose teacher is as good as the noise of its labels allows."""
    model = regression_net()
    y = model.predict(X, verbose=0) + noise * NOISE
    spoilt_y = y.copy()
    spoilt_y[3] = np.nan
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        result = esnac_tf.search_students(
            model, (X, spoilt_y if spoilt else y), (X, y), **{**SETTINGS, **settings}
        )
    found = [warning for warning in found if warning.category is UserWarning]
    assert {warning.filename for warning in found} <= {__file__}  # not lines of the library
    return [str(warning.message) for warning in found], result


@pytest.mark.parametrize("metric", [None, "mean_absolute_error"])
def test_students_that_are_much_worse_than_their_teacher_are_told(metric):
    texts, result = told(noise=0.001, metric=metric)
    [text] = texts
    [student] = result.students
    name = metric or "loss"
    teacher = result.summary["teacher"][f"validation_{name}"]
    assert f"its {name} is {student.validation_metric:.6g}, the teacher's {teacher:.6g}." in text
    for setting in ("search_epochs", "full_epochs", "removal_probabilities", "max_shrinkage"):
        assert setting in text


def test_those_that_are_not_are_none():
    assert told(noise=10.0)[0] == []


def test_a_loss_that_becomes_nan_may_be_that_of_labels():
    texts, _ = told(noise=10.0, spoilt=True, full_epochs=1)
    [text] = texts
    assert "ended early: loss became NaN" in text
    assert text.endswith("Lower full_learning_rate, or look for NaN among the labels.")
