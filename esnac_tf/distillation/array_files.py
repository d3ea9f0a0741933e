"""Arrays in a file: all of them or none, and of what they should be."""

from __future__ import annotations

import io
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from esnac_tf.datasets.formats.npz import READ_ERRORS
from esnac_tf.files import replacing


def write_arrays(path: pathlib.Path, key: str, arrays: Sequence[Any]) -> None:
    """Writes arrays to an `.npz` file, in one step.

    Args:
        path: The file; the suffix is `.npz`.
        key: What the arrays are of.
        arrays: The arrays.

    Raises:
        UserError: The file can't be written.

    Example:
        >>> import tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "a.npz"
        >>> write_arrays(path, "ones", [np.ones(2)])
        >>> read_arrays(path, "ones"), read_arrays(path, "twos")
        ([array([1., 1.])], None)
    """
    with replacing(path) as whole:
        np.savez(whole, *map(_storable, arrays), key=np.array(key))


def read_arrays(path: pathlib.Path, key: str) -> list[np.ndarray] | None:
    """The arrays in a file; None if there is none, it is damaged, or of something else."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            if str(arrays["key"]) != key:
                return None
            return [arrays[f"arr_{index}"] for index in range(len(arrays.files) - 1)]
    except READ_ERRORS:
        return None


def _storable(array: Any) -> np.ndarray:
    """An array of a type that NumPy knows: bfloat16 as float32, which loses nothing."""
    array = np.asarray(array)
    return array.astype(np.float32) if array.dtype.kind == "V" else array
