"""The files of a run folder: JSON that any reader takes, and what the file system refuses.

A number that is not finite is written as null, and NaN is not read.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from esnac_tf.errors import UserError
from esnac_tf.files import replacing


def plain(value: Any) -> Any:
    """A value as JSON can hold it: NumPy's numbers as Python's, what is not finite as None.

    Raises:
        TypeError: JSON can't hold it.

    Example:
        >>> plain({"rates": (1, float("nan"))})
        {'rates': [1, None]}
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    raise TypeError(f"JSON cannot hold {value!r}, a {type(value).__name__}.")


def dumps(value: Any, indent: int | None = None) -> str:
    """A value as JSON text.

    Raises:
        TypeError: JSON can't hold it.

    Example:
        >>> dumps({"accuracy": float("nan")})
        '{"accuracy": null}'
    """
    return json.dumps(plain(value), allow_nan=False, indent=indent)


def loads(text: bytes) -> Any:
    """The value of JSON text.

    Raises:
        ValueError: It is no JSON.

    Example:
        >>> loads(b'{"accuracy": null}')
        {'accuracy': None}
    """
    return json.loads(text, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def read_object(path: pathlib.Path) -> dict[str, Any] | None:
    """A JSON object from a file; None if there is no file.

    Raises:
        UserError: The file can't be read, or holds something else.

    Example:
        >>> read_object(pathlib.Path("missing.json")) is None
        True
    """
    with user_errors(path):
        if not path.exists():
            return None
        content = path.read_bytes()
    try:
        values = loads(content)
    except ValueError as error:
        raise UserError(
            f"{path} cannot be read as JSON: {error}.\n"
            "Restore it from a copy, or choose another --run_dir."
        ) from error
    if not isinstance(values, dict):
        raise UserError(
            f"{path} must hold a JSON object, and holds a {type(values).__name__}.\n"
            "Restore it from a copy, or choose another --run_dir."
        )
    return values


def write_object(path: pathlib.Path, values: Mapping[str, Any]) -> None:
    """Replaces a file by a JSON object in one step.

    Raises:
        UserError: The file can't be written.
        TypeError: JSON can't hold a value.

    Example:
        >>> import tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "a.json"
        >>> write_object(path, {"seed": 3})
        >>> read_object(path)
        {'seed': 3}
    """
    with replacing(path) as whole:
        whole.write_text(dumps(values, indent=2) + "\n", encoding="utf-8")


@contextlib.contextmanager
def user_errors(path: pathlib.Path) -> Iterator[None]:
    """Tells what the file system refuses as a `UserError`.

    Args:
        path: The file or folder of the run that is used inside.

    Raises:
        UserError: In place of an `OSError`.

    Example:
        >>> with user_errors(pathlib.Path("run")):
        ...     raise PermissionError(13, "Permission denied")
        Traceback (most recent call last):
            ...
        esnac_tf.errors.UserError: Cannot use run for the run: Permission denied.
        Make room there and check its permissions, or choose another --run_dir.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"Cannot use {path} for the run: {error.strerror or error}.\n"
            "Make room there and check its permissions, or choose another --run_dir."
        ) from error
