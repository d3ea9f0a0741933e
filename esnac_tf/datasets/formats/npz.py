"""A data set of your own in one NumPy file.

`np.savez("mine.npz", x_train=..., y_train=..., x_test=..., y_test=...)`, and if you like
`class_names=np.array(["cat", "dog"])`. `x_*` are numbers of any shape [N, ...] with channels last;
`y_*` are class numbers from 0 up, [N] or [N, 1]. Pickled objects are never loaded.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from esnac_tf.datasets.splits import Array, Source
from esnac_tf.errors import UserError

REQUIRED = ("x_train", "y_train", "x_test", "y_test")

# What np.load raises for files that are no .npz, cut short, damaged, or claim absurd shapes.
READ_ERRORS = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    SyntaxError,
    zipfile.BadZipFile,
    zlib.error,
)

_FROM_PYTHON = "Models of other labels are compressed from Python: esnac_tf.compress."


def read(path: str | os.PathLike[str], seed: int = 0) -> Source:
    """Reads and checks an `.npz` file.

    Args:
        path: The file, with the arrays x_train, y_train, x_test, y_test and possibly class_names.
        seed: Any integer. Shuffles the training set where its labels come in order, because the
            validation set taken from its end would hold the last classes only. Otherwise the
            order of the file is kept.

    Returns:
        The data set. uint8 stays uint8, all other numbers become float32.

    Raises:
        UserError: If the file is broken, an array is missing or is no array of numbers, shapes and
            lengths don't fit, values are not finite, or labels are not 0 .. K - 1 (without gaps,
            unless `class_names` says how many classes there are).

    Example:
        >>> import tempfile
        >>> x, y = np.zeros([4, 8, 8, 3], np.uint8), np.array([0, 1, 1, 0])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(Path(folder, "mine.npz"), x_train=x, y_train=y, x_test=x, y_test=y)
        ...     source = read(Path(folder, "mine.npz"))
        >>> source.x_train.dtype, source.class_names
        (dtype('uint8'), ('0', '1'))
    """
    path = Path(path)
    arrays = _load(path)
    x_train, x_test = _inputs(path, "x_train", arrays), _inputs(path, "x_test", arrays)
    y_train, y_test = _labels(path, "y_train", arrays), _labels(path, "y_test", arrays)
    for x, y, part in ((x_train, y_train, "train"), (x_test, y_test, "test")):
        if len(x) != len(y):
            raise UserError(
                f"x_{part} and y_{part} in {path} must be equally long, "
                f"received {len(x)} and {len(y)}."
            )
    if x_train.shape[1:] != x_test.shape[1:]:
        raise UserError(
            f"x_train and x_test in {path} must hold examples of one shape, "
            f"received {x_train.shape[1:]} and {x_test.shape[1:]}."
        )
    if x_train.dtype != x_test.dtype:
        x_train, x_test = x_train.astype(np.float32), x_test.astype(np.float32)
    class_names = _class_names(path, arrays, y_train)
    for y, part in ((y_train, "train"), (y_test, "test")):
        if y.max() >= len(class_names):
            raise UserError(
                f"y_{part} in {path} must be in 0 .. {len(class_names) - 1} "
                f"({len(class_names)} classes), received {y.max()}."
            )
    if y_train[0] != y_train[-1] and np.all(y_train[:-1] <= y_train[1:]):
        order = np.random.default_rng(seed).permutation(len(y_train))
        x_train, y_train = x_train[order], y_train[order]
    return Source(x_train, y_train.astype(np.int32), x_test, y_test.astype(np.int32), class_names)


def _load(path: Path) -> dict[str, Array]:
    try:
        # np.load would leave a file that it opens itself open when the zip is broken.
        with path.open("rb") as file:
            return _arrays(path, np.load(file, allow_pickle=False))
    except UserError:
        raise
    except READ_ERRORS as error:
        raise _broken(path, error) from error


def _arrays(path: Path, archive: Any) -> dict[str, Array]:
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise UserError(
            f"{path} holds a single array.\n"
            f"Expected an .npz file with the arrays {', '.join(REQUIRED)}, written by np.savez."
        )
    missing = [name for name in REQUIRED if name not in archive.files]
    if missing:
        raise UserError(
            f"{path} lacks {', '.join(missing)}; it holds: "
            f"{', '.join(archive.files) or 'nothing'}.\n"
            f"Expected the arrays {', '.join(REQUIRED)} (and class_names, if you like)."
        )
    arrays = {}
    for name in (*REQUIRED, "class_names"):
        if name not in archive.files:
            continue
        try:
            arrays[name] = archive[name]
        except READ_ERRORS as error:
            if "allow_pickle" in str(error):
                raise UserError(
                    f"{name} in {path} holds Python objects, which are not loaded.\n"
                    "Expected an array of numbers of one shape "
                    "(class_names: an array of strings)."
                ) from error
            raise _broken(path, error, name) from error
        if not isinstance(arrays[name], np.ndarray):
            raise UserError(f"{name} in {path} must be an array, received other bytes.")
    return arrays


def _broken(path: Path, error: BaseException, name: str = "") -> UserError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    if "allow_pickle" in reason:  # NumPy takes whatever it does not know for a pickle.
        reason = "it is neither a zip file nor an array."
    place = f"{name} in {path}" if name else f"{path}"
    return UserError(f"{place} cannot be read: {reason}\nExpected an .npz file by np.savez.")


def _inputs(path: Path, name: str, arrays: dict[str, Array]) -> Array:
    x = arrays[name]
    if x.dtype.kind not in "biuf":
        raise UserError(f"{name} in {path} must hold real numbers, received dtype {x.dtype}.")
    if x.ndim < 2 or x.size == 0:
        raise UserError(
            f"{name} in {path} must have a shape [N, ...] with at least one example and one value, "
            f"received {x.shape}."
        )
    if x.dtype == np.uint8:
        return x
    with np.errstate(over="ignore"):
        x = x.astype(np.float32)
    finite = np.isfinite(x)
    if not finite.all():
        first = int(np.argmin(finite.reshape(len(x), -1).all(axis=1)))
        raise UserError(
            f"{name} in {path} must be finite, received {x.size - finite.sum()} values that are "
            f"NaN or too large for float32, the first in example {first}."
        )
    return x


def _labels(path: Path, name: str, arrays: dict[str, Array]) -> Array:
    y = arrays[name]
    if _is_one_hot(y):
        raise UserError(
            f"{name} in {path} is one-hot, of shape {y.shape}.\n"
            f"Expected class numbers [N]: store {name}.argmax(axis=1)."
        )
    if y.ndim == 0 or y.size == 0:
        raise UserError(
            f"{name} in {path} must have the shape [N] or [N, 1], N at least 1, received {y.shape}."
        )
    if y.ndim > 2 or y.size != len(y):
        raise UserError(
            f"{name} in {path} has the shape {y.shape}, and the command line reads one class for "
            f"each example, [N] or [N, 1].\n{_FROM_PYTHON}"
        )
    if y.dtype.kind not in "biu":
        raise UserError(
            f"{name} in {path} must hold class numbers of an integer dtype, "
            f"received dtype {y.dtype}.\nStore classes as integers. {_FROM_PYTHON}"
        )
    y = y.reshape(-1)
    if y.min() < 0:
        raise UserError(f"{name} in {path} must hold class numbers from 0 up, received {y.min()}.")
    return y


def _is_one_hot(y: Array) -> bool:
    """Whether there are several columns, and a single 1 in each row, else 0."""
    if y.ndim != 2 or y.shape[1] < 2 or y.size == 0 or y.dtype.kind not in "biuf":
        return False
    return bool(np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all())


def _class_names(path: Path, arrays: dict[str, Array], y_train: Array) -> tuple[str, ...]:
    if "class_names" in arrays:
        given = arrays["class_names"]
        if given.dtype.kind != "U" or given.ndim != 1 or given.size == 0:
            raise UserError(
                f"class_names in {path} must be an array [C] of strings, "
                f"received shape {given.shape} and dtype {given.dtype}."
            )
        return tuple(str(name) for name in given)
    present = np.unique(y_train)
    gaps = np.flatnonzero(present != np.arange(len(present)))
    if gaps.size:
        raise UserError(
            f"y_train in {path} has the class {present[-1]} but no example of class {gaps[0]}.\n"
            "Expected labels 0 .. K - 1 without gaps, or the array class_names with all K names."
        )
    return tuple(str(label) for label in present)
