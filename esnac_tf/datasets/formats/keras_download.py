"""Data sets that Keras downloads.

Keras keeps what it downloaded in `~/.keras/datasets` (or in `$KERAS_HOME/datasets`).
"""

from __future__ import annotations

import importlib

import numpy as np

from esnac_tf.datasets.splits import Array
from esnac_tf.errors import UserError


def download(name: str, expected: str) -> tuple[Array, Array, Array, Array]:
    """Gets a data set through `keras.datasets`.

    Args:
        name: A module of `keras.datasets`, such as "mnist".
        expected: What a folder given as --data_dir would have to hold, for the error message.

    Returns:
        x_train uint8 [N, H, W, C], y_train int32 [N], x_test and y_test. Pictures that Keras
        delivers as [N, H, W] get a channel.

    Raises:
        UserError: If the download fails, for instance because there is no network.

    Example:
        >>> x_train, y_train, x_test, y_test = download("mnist", "its IDX files")
        ... # doctest: +SKIP
    """
    try:
        source = importlib.import_module(f"keras.datasets.{name}")
        (x_train, y_train), (x_test, y_test) = source.load_data()
    except Exception as error:  # Keras raises a bare Exception when the network fails.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"Cannot download {name}: {reason}\n"
            f"Give --data_dir=FOLDER, a folder on this machine with {expected}."
        ) from error
    return _pictures(x_train), _labels(y_train), _pictures(x_test), _labels(y_test)


def _pictures(x: Array) -> Array:
    return x[..., np.newaxis] if x.ndim == 3 else x


def _labels(y: Array) -> Array:
    return y.reshape(-1).astype(np.int32)
