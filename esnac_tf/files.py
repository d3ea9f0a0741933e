"""Files that are never half written."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

from esnac_tf.errors import UserError


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
            flush(target.parent)
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
    flush(path)


def flush(path: pathlib.Path) -> None:
    """Flushes a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
