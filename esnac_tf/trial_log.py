"""trials.jsonl: one line for each finished trial, on the disk before the next step begins.

A line counts once its newline is written: a last line that was cut off by a crash is dropped with
a warning, and overwritten by the next trial. `esnac_tf.record` describes the fields of a line.
"""

from __future__ import annotations

import errno
import os
import pathlib

from absl import logging

from esnac_tf.errors import UserError
from esnac_tf.files import flush
from esnac_tf.run_files import dumps, loads, user_errors
from esnac_tf.trial import LOST, Trial

FORMAT = 1


class TrialLog:
    """Appends trials to trials.jsonl; the file is made with the first one.

    Args:
        path: The file.

    Example:
        >>> import tempfile
        >>> from esnac_tf.architecture import ActionSet
        >>> run_dir = tempfile.mkdtemp()
        >>> log = TrialLog(pathlib.Path(run_dir) / "trials.jsonl")
        >>> log.append(Trial(0, "complete", ActionSet(), 100, 2000, 0.5, 0.4, 1.0))
        >>> log.close()
        >>> [trial.objective for trial in read_trials(run_dir)]
        [0.4]
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def append(self, trial: Trial) -> None:
        """Records a finished trial; when this returns, the trial is on the disk.

        Args:
            trial: The trial.

        Raises:
            UserError: If the disk is full or the file cannot be written. The trials before this
                one are safe then.
        """
        line = dumps({"format": FORMAT, **trial.to_json()}) + "\n"
        with user_errors(self._path):
            if self._descriptor is None:
                self._descriptor = _open_after_last_line(self._path)
            start = os.lseek(self._descriptor, 0, os.SEEK_END)
            try:
                _write_all(self._descriptor, line.encode())
                os.fsync(self._descriptor)
            except OSError:
                os.ftruncate(self._descriptor, start)
                raise

    def close(self) -> None:
        """Closes the file. Closing twice does nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = None


def read_trials(run_dir: str | os.PathLike[str]) -> list[Trial]:
    """The trials of a run folder, which may be in use by another process.

    Args:
        run_dir: The run folder.

    Returns:
        The trials in the order in which they finished; none if there is no trials.jsonl. A last
        line that was cut off is left out, with a warning.

    Raises:
        UserError: If any other line is no trial, or the file cannot be read.

    Example:
        >>> import tempfile
        >>> read_trials(tempfile.mkdtemp())
        []
    """
    path = pathlib.Path(run_dir) / "trials.jsonl"
    with user_errors(path):
        if path.is_symlink():  # trials are appended: to no file that lies elsewhere
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        content = path.read_bytes() if path.exists() else b""
    whole = content[: _whole_lines_bytes(content)]
    if len(whole) < len(content):
        logging.warning(
            "The last line of %s was cut off and is left out: that trial is evaluated again.", path
        )
    trials = [
        _parse_trial(line, f"{path}, line {number}")
        for number, line in enumerate(whole.splitlines(), start=1)
    ]
    return [trial for trial in trials if trial.state != LOST]


def _open_after_last_line(path: pathlib.Path) -> int:
    """Opens trials.jsonl for writing and removes a last line that was cut off."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        content = path.read_bytes()
        size = _whole_lines_bytes(content)
        if size < len(content):
            os.ftruncate(descriptor, size)
        flush(path.parent)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _whole_lines_bytes(content: bytes) -> int:
    """Bytes up to the end of the last line that was written whole."""
    end = content.rfind(b"\n") + 1
    if end < len(content) or not content:
        return end
    # A crash of the machine can leave garbage that ends in a newline.
    start = content.rfind(b"\n", 0, end - 1) + 1
    try:
        loads(content[start:])
    except ValueError:
        return start
    return end


def _parse_trial(line: bytes, where: str) -> Trial:
    try:
        values = loads(line)
        if not isinstance(values, dict):
            raise ValueError("a JSON object was expected")
        if values["format"] != FORMAT:
            raise ValueError(f"format {FORMAT} was expected, {values['format']!r} received")
        return Trial.from_json(values)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise UserError(
            f"{where}: this is no trial that this version reads ({reason}).\n"
            "Restore the file from a copy, remove that line, or choose another --run_dir."
        ) from error


def _write_all(descriptor: int, content: bytes) -> None:
    """Writes all bytes: one `os.write` may write fewer."""
    remaining = memoryview(content)
    while remaining:
        remaining = remaining[os.write(descriptor, remaining) :]
