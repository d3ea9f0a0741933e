"""The run folder: everything a search found, so that no finished trial is ever lost.

    config.json     the settings of the run, and under "free" those that may change
    teacher.json    what the teacher measured, and digests of its weights and of the data
    trials.jsonl    one JSON object a line for each finished trial
    full_training.json  what the full training of the best came to
    summary.json    the result, written when the search ends
    students/       the best students, in the formats asked for
    tensorboard/    the trials as scalars, when the extra `tensorboard` is installed
    checkpoints/    the weights of the best students of the search, for the run to go on with
    lock            held by the process that writes; holds its process id

A line of **trials.jsonl** has "format": 1 and the fields of `esnac_tf.trial.Trial`: `number`,
`state` ("complete" or "failed"), `actions`, `num_params`, `flops`, `validation_accuracy`,
`objective`, `duration_secs`, `step`, `best_epoch` and `failure`. It is flushed to the disk when
the trial finishes. A line counts once its newline is written: a last line that was cut off by a
crash is dropped with a warning, and overwritten by the next trial.

**teacher.json** has `num_params` (learned weights, frozen ones included), `flops` (multiply-adds
of one example), `validation_accuracy` (0 to 1), `weights_sha256` and `data_sha256`. The
`teacher` of **summary.json** has these fields and `name` and `test_accuracy`. summary.json has
`settings` beside it (those under "free" in config.json) and `students`, best first. A student has
`num_params`, `flops`, `validation_accuracy`, `test_accuracy` and

    trial               the number of the trial in trials.jsonl that found it
    actions             what was done to the teacher, as in that trial
    objective           f(x) with this `validation_accuracy`, that after the full training
    compression_ratio   1 - num_params / teacher num_params
    times_smaller       teacher num_params / num_params
    best_epoch          the epoch of the full training whose weights these are; 0: none of them,
                        the search's weights were better
    failure             null, or why the full training ended early
    exports             format -> path relative to the run folder
    export_failures     format -> why it could not be written

so every number that is printed at the end can be computed again from the folder. All files are
JSON in UTF-8 that any reader takes: where a number is not finite, they hold null. All but
trials.jsonl are replaced in one step: a reader sees the old or the new file, never half of one.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from absl import logging

from esnac_tf.errors import UserError
from esnac_tf.files import flush, replacing
from esnac_tf.trial import Trial

FORMAT = 1


class RunFolder:
    """A run folder that this process writes, alone.

    The folder is made if it is missing, and locked until `close` or until the process ends,
    however it ends. Use it in a `with` statement, or call `close`.

    Args:
        path: The folder.

    Attributes:
        path: The folder.

    Raises:
        UserError: If another process holds the folder, or it cannot be made or written.

    Example:
        >>> import tempfile
        >>> from esnac_tf.architecture import ActionSet
        >>> with RunFolder(pathlib.Path(tempfile.mkdtemp()) / "run") as folder:
        ...     folder.check_or_write_config({"num_steps": 20})
        ...     folder.append(Trial(0, "complete", ActionSet(), 100, 2000, 0.5, 0.4, 1.0))
        ...     [trial.objective for trial in folder.trials()]
        [0.4]
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = pathlib.Path(path)
        self._trials_descriptor: int | None = None
        with _user_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock_descriptor: int | None = _lock(self.path / "lock")

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Releases the folder. Closing twice does nothing."""
        for descriptor in (self._trials_descriptor, self._lock_descriptor):
            if descriptor is not None:
                os.close(descriptor)
        self._trials_descriptor = self._lock_descriptor = None

    @property
    def students_path(self) -> pathlib.Path:
        """The folder of the best students; it is made when something is exported to it."""
        return self.path / "students"

    @property
    def tensorboard_path(self) -> pathlib.Path:
        """The folder of TensorBoard's event files."""
        return self.path / "tensorboard"

    def check_or_write_config(
        self, config: Mapping[str, Any], free: Mapping[str, Any] | None = None
    ) -> None:
        """Writes the settings of a new run, or holds them against those of the run to resume.

        A run without any trial is no run yet: its settings are replaced.

        Args:
            config: The settings by name; values that JSON can hold.
            free: Settings that may change between a run and its continuation: written, and
                not compared. None leaves those that are written.

        Raises:
            UserError: If the folder holds a run with other settings, or cannot be written.
        """
        path = self.path / "config.json"
        given = _plain(config)
        recorded = _read_object(path)
        recorded_free = None if recorded is None else recorded.pop("free", None)
        given_free = recorded_free if free is None else _plain(free)
        has_trials = (self.path / "trials.jsonl").exists()
        if recorded is None or (recorded != given and not has_trials):
            if has_trials:
                raise UserError(
                    f"{self.path} holds trials, and no config.json that says how they came "
                    "about.\nChoose another --run_dir, or restore that file."
                )
            with _user_errors(path):
                (self.path / "teacher.json").unlink(missing_ok=True)
            _write_object(path, _with_free(given, given_free))
            return
        unset = object()
        differing = [
            f"{name} is {_shown(recorded, name)} there and {_shown(given, name)} now"
            for name in sorted(recorded.keys() | given.keys())
            if recorded.get(name, unset) != given.get(name, unset)
        ]
        if differing:
            raise UserError(
                f"{self.path} holds a run with other settings: {'; '.join(differing)}.\n"
                "Choose another --run_dir for a new run, or give the same settings to resume."
            )
        if recorded_free != given_free:
            _write_object(path, _with_free(given, given_free))

    def write_teacher(self, teacher: Mapping[str, Any]) -> None:
        """Writes what the teacher measured, the reference of every objective.

        Args:
            teacher: The fields of teacher.json, as the module's docstring has them.

        Raises:
            UserError: If the file cannot be written.
        """
        _write_object(self.path / "teacher.json", teacher)

    def teacher(self) -> dict[str, Any] | None:
        """What `write_teacher` wrote; None in a new folder."""
        return _read_object(self.path / "teacher.json")

    def write_full_training(self, values: Mapping[str, Any]) -> None:
        """Writes what the full training came to.

        Raises:
            UserError: If the file cannot be written.
        """
        _write_object(self.path / "full_training.json", values)

    def full_training(self) -> dict[str, Any] | None:
        """What `write_full_training` wrote; None before."""
        return _read_object(self.path / "full_training.json")

    def append(self, trial: Trial) -> None:
        """Records a finished trial; when this returns, the trial is on the disk.

        Args:
            trial: The trial.

        Raises:
            UserError: If the disk is full or the folder cannot be written. The trials before
                this one are safe then.
        """
        line = _dumps({"format": FORMAT, **trial.to_json()}) + "\n"
        path = self.path / "trials.jsonl"
        with _user_errors(path):
            if self._trials_descriptor is None:
                self._trials_descriptor = _open_after_last_line(path)
            start = os.lseek(self._trials_descriptor, 0, os.SEEK_END)
            try:
                _write_all(self._trials_descriptor, line.encode())
                os.fsync(self._trials_descriptor)
            except OSError:
                os.ftruncate(self._trials_descriptor, start)
                raise

    def trials(self) -> list[Trial]:
        """All recorded trials, in the order in which they finished.

        Raises:
            UserError: As `read_trials`.
        """
        return read_trials(self.path)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Writes the result of the search; the module's docstring has its fields.

        Args:
            summary: `teacher` and `students`.

        Raises:
            UserError: If the file cannot be written.
        """
        _write_object(self.path / "summary.json", summary)

    def summary(self) -> dict[str, Any] | None:
        """What `write_summary` wrote; None before the search has ended."""
        return _read_object(self.path / "summary.json")


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
    with _user_errors(path):
        content = path.read_bytes() if path.exists() else b""
    whole = content[: _whole_lines_bytes(content)]
    if len(whole) < len(content):
        logging.warning(
            "The last line of %s was cut off and is left out: that trial is evaluated again.", path
        )
    return [
        _parse_trial(line, f"{path}, line {number}")
        for number, line in enumerate(whole.splitlines(), start=1)
    ]


def _lock(path: pathlib.Path) -> int:
    """Takes the lock of a run folder and returns its descriptor; the kernel frees it on death."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise UserError(
            f"{path.parent} is in use by another search, process {holder}.\n"
            "Wait until it has ended, or choose another --run_dir."
        ) from None
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _open_after_last_line(path: pathlib.Path) -> int:
    """Opens trials.jsonl for writing and removes a last line that was cut off."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
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
        _loads(content[start:])
    except ValueError:
        return start
    return end


def _parse_trial(line: bytes, where: str) -> Trial:
    try:
        values = _loads(line)
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


def _plain(value: Any) -> Any:
    """A value as JSON can hold it: NumPy's numbers as Python's, what is not finite as None."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    raise TypeError(f"JSON cannot hold {value!r}, a {type(value).__name__}.")


def _dumps(value: Any, indent: int | None = None) -> str:
    return json.dumps(_plain(value), allow_nan=False, indent=indent)


def _loads(text: bytes) -> Any:
    return json.loads(text, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _with_free(config: dict[str, Any], free: Any) -> dict[str, Any]:
    return config if free is None else {**config, "free": free}


def _shown(settings: Mapping[str, Any], name: str) -> str:
    return _dumps(settings[name]) if name in settings else "not set"


def _read_object(path: pathlib.Path) -> dict[str, Any] | None:
    """A JSON object from a file; None if there is no file."""
    with _user_errors(path):
        if not path.exists():
            return None
        content = path.read_bytes()
    try:
        values = _loads(content)
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


def _write_object(path: pathlib.Path, values: Mapping[str, Any]) -> None:
    """Replaces a file by a JSON object in one step."""
    with replacing(path) as whole:
        whole.write_text(_dumps(values, indent=2) + "\n", encoding="utf-8")


def _write_all(descriptor: int, content: bytes) -> None:
    """Writes all bytes: one `os.write` may write fewer."""
    remaining = memoryview(content)
    while remaining:
        remaining = remaining[os.write(descriptor, remaining) :]


@contextlib.contextmanager
def _user_errors(path: pathlib.Path) -> Iterator[None]:
    """Tells what the file system refuses as a `UserError`."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"Cannot use {path} for the run: {error.strerror or error}.\n"
            "Make room there and check its permissions, or choose another --run_dir."
        ) from error
