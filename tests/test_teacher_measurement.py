"""Teachers whose metric compares nothing: what may be wrong is told."""

import keras
import numpy as np
import pytest

import esnac_tf
from esnac_tf.errors import UserError

X = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")


def told(y, **settings):
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(8, activation="relu")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1)(hidden), name="reg")
    with pytest.raises(UserError) as caught:
        esnac_tf.compress(model, (X, y), (X, y), batch_size=16, **settings)
    text = str(caught.value)
    assert len(text.splitlines()) == 2
    assert "Give a trained model, and data in the units that it was trained on." in text
    return text


def test_a_metric_that_was_given_may_not_fit():
    text = told(X[:, :1] + 100, loss="mse", metric="accuracy")
    assert "The teacher 'reg' has the binary_accuracy 0 on the held-out data" in text
    assert "Or the metric binary_accuracy does not fit" in text
    assert "NaN" not in text


def test_labels_may_hold_nan():
    y = X[:, :1].copy()
    y[5] = np.nan
    text = told(y, loss="mse")
    assert "the loss nan" in text
    assert "Look for NaN among the labels" in text
    assert "does not fit" not in text
    assert "does not fit" in told(y, loss="mse", metric="mean_absolute_error")


def test_a_loss_below_zero_is_no_fault_of_the_training():
    text = told(X[:, :1], loss=lambda y, p: keras.ops.mean(0 * (y - p), axis=-1) - 2.0)
    assert "the loss -2 " in text
    assert "give one that is above 0" in text
