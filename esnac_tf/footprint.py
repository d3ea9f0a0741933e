"""What a model takes where it is used: milliseconds for an example, bytes on the disk."""

from __future__ import annotations

import dataclasses
import pathlib
import statistics
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

_WARM_UP, _ROUNDS = 3, 15


@dataclasses.dataclass(frozen=True)
class Footprint:
    """What a model takes.

    Attributes:
        latency_secs: Median wall time of one example on the CPU; None where it can't be
            measured: where a GPU holds the weights, or the model takes no single example.
        file_bytes: Size of its `.keras` file, without what it is compiled with; None where it
            can't be saved.
    """

    latency_secs: float | None = None
    file_bytes: int | None = None


def footprints(models: Sequence[keras.Model], x: Any) -> list[Footprint]:
    """What models take, measured side by side.

    Latencies are medians of rounds in each of which every model has its turn, so that what
    disturbs the machine disturbs all. They are of the model's graph called on one example.

    Args:
        models: Models with the same inputs.
        x: A batch of examples, of which the first is taken.

    Returns:
        One footprint a model.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> [footprint] = footprints([model], tf.zeros((3, 4)))
        >>> footprint.latency_secs > 0, footprint.file_bytes > 1000
        (True, True)
    """
    one = tf.nest.map_structure(lambda part: part[:1], x)
    try:
        latencies = _latencies(models, one)
    except Exception:  # a model that takes no batch of one, as a stateful one
        latencies = [None] * len(models)
    return [
        Footprint(latency, _file_bytes(model))
        for model, latency in zip(models, latencies, strict=True)
    ]


def _latencies(models: Sequence[keras.Model], x: Any) -> Sequence[float | None]:
    if tf.config.list_logical_devices("GPU"):
        return [None] * len(models)
    calls = [_inference(model, x) for model in models]
    secs: list[list[float]] = [[] for _ in models]
    for turn in range(_WARM_UP + _ROUNDS):
        for call, measured in zip(calls, secs, strict=True):
            start = time.perf_counter()
            keras.tree.flatten(call(x))[0].numpy()
            if turn >= _WARM_UP:
                measured.append(time.perf_counter() - start)
    return [statistics.median(measured) for measured in secs]


def _inference(model: keras.Model, x: Any) -> Any:
    """The model as one graph for examples like these.

    It is traced by itself: TensorFlow warns of calls that trace, as they should not in a loop.
    """
    function = tf.function(lambda x: model(x, training=False), autograph=False)
    return function.get_concrete_function(x)


def _file_bytes(model: keras.Model) -> int | None:
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.keras"
        try:
            keras.saving.save_model(model, path)
        except Exception:  # a layer of the user's that can't be saved
            return None
        return path.stat().st_size
