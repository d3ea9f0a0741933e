"""Formats in which a student leaves the project, one file a format.

A format's name, in `--export`, is the name of its file in this folder. A new format is
one new file with one public function:

    def export(model: keras.Model, path_stem: pathlib.Path) -> pathlib.Path

which writes the model beside `path_stem` with a suffix of its own and returns the path written.
It writes inside `replacing`, so that a reader only ever sees a whole file. The contract test
`tests/exporters/test_exporters.py` runs over every file of this folder.

Importing this package imports no TensorFlow, so that a wrong name is told at once.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol, cast

from esnac_tf.errors import UserError
from esnac_tf.families import Family

if TYPE_CHECKING:
    from keras import Model

__all__ = ["FAMILY", "Exporter", "get", "names", "replacing"]

FAMILY = Family("export format", __name__)


class Exporter(Protocol):
    """What every module of this folder offers."""

    def export(self, model: Model, path_stem: pathlib.Path) -> pathlib.Path:
        """Writes a model in inference mode.

        Args:
            model: A Functional or Sequential model that is built.
            path_stem: Where to write, without the suffix: "runs/a/students/1" becomes
                "runs/a/students/1.keras" and the like. Missing parent folders are made; what an
                earlier export left under the same name is replaced.

        Returns:
            The path of the file or folder written.

        Raises:
            UserError: If the path cannot be written, or the format cannot hold this model.
        """


def names() -> list[str]:
    """The names of all export formats, sorted.

    Example:
        >>> "keras" in names()
        True
    """
    return FAMILY.names()


def get(name: str) -> Exporter:
    """The exporter of a format.

    Args:
        name: One of `names()`.

    Returns:
        A module with the function `export(model, path_stem)`.

    Raises:
        UnknownNameError: If there is no such format.

    Example:
        >>> get("saved_model").__name__
        'esnac_tf.exporters.saved_model'
        >>> get("paper")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        esnac_tf.errors.UnknownNameError: Unknown export format 'paper'.
        Known: ... A new one is added in esnac_tf/exporters/.
    """
    return cast(Exporter, FAMILY.module(name))


@contextlib.contextmanager
def replacing(target: pathlib.Path) -> Iterator[pathlib.Path]:
    """Puts a file or folder in place only when it is whole.

    The body writes to the path it is given, which has the target's name and lies in a hidden
    folder beside it. When the body ends well, everything it wrote is flushed to the disk and
    renamed to the target; when it raises, the target stays as it was. A process killed inside
    the body leaves the hidden folder `.NAME.*.tmp`, which may be deleted.

    A file is replaced in one step. A folder cannot be: between two renames there is an instant
    in which the target does not exist.

    Args:
        target: The file or folder to write. Missing parent folders are made.

    Yields:
        The path to write to. Its parent folder is free for intermediate files.

    Raises:
        UserError: If an `OSError` says that the target cannot be written.

    Example:
        >>> import tempfile
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> with replacing(folder / "a.txt") as path:
        ...     _ = path.write_text("whole")
        >>> [entry.name for entry in folder.iterdir()]
        ['a.txt']
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = pathlib.Path(
            tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
        )
        try:
            written = staging / target.name
            yield written
            _flush(written)
            _move(written, target, staging / "previous")
            _flush_one(target.parent)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        raise UserError(
            f"Cannot write {target}: {error.strerror or error}.\n"
            "Make room there and check its permissions, or choose another folder."
        ) from error


def _move(written: pathlib.Path, target: pathlib.Path, previous: pathlib.Path) -> None:
    """Renames `written` to `target`; a folder in the place steps aside to `previous`."""
    if not (written.is_dir() and target.is_dir()):
        os.replace(written, target)
        return
    os.replace(target, previous)
    try:
        os.replace(written, target)
    except OSError:
        os.replace(previous, target)
        raise


def _flush(path: pathlib.Path) -> None:
    """Flushes a file, or a folder with all that is in it, to the disk."""
    if path.is_dir():
        for entry in path.iterdir():
            _flush(entry)
    _flush_one(path)


def _flush_one(path: pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
