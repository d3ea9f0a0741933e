"""Milliseconds and bytes."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from esnac_tf.footprint import footprints


def small():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])


def of_parts():
    parts = {name: keras.Input((4,), name=name) for name in ("one", "other")}
    return keras.Model(parts, keras.layers.Dense(2)(keras.layers.Add()(list(parts.values()))))


EXAMPLES = np.ones((3, 4), "float32")


@pytest.mark.parametrize(
    ("model", "x"),
    [(small, EXAMPLES), (of_parts, {"one": EXAMPLES, "other": EXAMPLES})],
)
def test_nothing_is_warned_of_however_many_models_are_measured(model, x, caplog):
    with caplog.at_level("WARNING", logger="tensorflow"):
        for _ in range(2):
            measured = footprints([model() for _ in range(4)], x)
    assert not caplog.records
    for each in measured:
        assert each.latency_secs > 0
        assert each.file_bytes > 1000


def test_a_model_that_takes_no_single_example_has_no_latency():
    inputs = keras.Input(batch_shape=(3, 5, 4))
    model = keras.Model(inputs, keras.layers.LSTM(2, stateful=True)(inputs))
    [measured] = footprints([model], np.ones((3, 5, 4), "float32"))
    assert measured.latency_secs is None
    assert measured.file_bytes > 1000
