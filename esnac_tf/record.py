"""The run folder: everything a search found, so that no finished trial is ever lost.

    config.json     the settings of the run, and under "free" those that may change
    teacher.json    what the teacher measured, and digests of its weights and of the data
    calibration.json  in which ways students were trained to measure their speed, and the chosen
                    one; only of long searches
    trials.jsonl    one JSON object a line for each finished trial
    full_training.json  what the full training of the best came to
    summary.json    the result, written when the search ends
    students/       the best students, in the formats asked for
    tensorboard/    the trials as scalars, when the extra `tensorboard` is installed
    checkpoints/    the weights of the best students of the search, and trainings under way, for
                    the run to go on with
    lock            held by the process that writes; holds its process id

A line of **trials.jsonl** has "format": 1 and the fields of `esnac_tf.trial.Trial`: `number`,
`state` ("complete", "failed", or "lost": a worker died with it, and it is evaluated again; readers
leave that line out), `actions`, `num_params`, `flops`, `validation_accuracy`, `objective`,
`duration_secs`, `step`, `best_epoch`, `num_epochs` and `failure`. It is flushed to the disk when
the trial finishes; `esnac_tf.trial_log` writes and reads it.

**teacher.json** has `num_params` (learned weights, frozen ones included), `flops` (multiply-adds
of one example), `validation_accuracy` (0 to 1), `weights_sha256` and `data_sha256`. The
`teacher` of **summary.json** has these fields and `name` and `test_accuracy`. summary.json has
beside it `settings` (those under "free" in config.json), `num_trials`, `num_failed_trials`,
`duration_secs`, `profile` (what the wall seconds of the last process went into, by parts that
don't overlap: `esnac_tf.profiling.PARTS` and `other`), `front` (the numbers of the trials on the
Pareto front of parameters and the metric, fewest parameters first) and `students`, best first. A
student has
`num_params`, `flops`, `validation_accuracy`, `test_accuracy` and

    trial               the number of the trial in trials.jsonl that found it
    actions             what was done to the teacher, as in that trial
    objective           f(x) with this `validation_accuracy`, that after the full training
    compression_ratio   1 - num_params / teacher num_params
    times_smaller       teacher num_params / num_params
    latency_secs        median wall time of one example on the CPU, as of the teacher; null
                        where a GPU is
    file_bytes          size of the `.keras` file, as of the teacher
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
import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

from esnac_tf import run_lock
from esnac_tf.errors import UserError
from esnac_tf.resuming import check_settings, recorded_settings, recorded_teacher
from esnac_tf.run_files import plain, read_object, user_errors, write_object
from esnac_tf.trial import Trial
from esnac_tf.trial_log import TrialLog, read_trials


class RunFolder:
    """A run folder that this process writes, alone.

    The folder is made if it is missing, and locked until `close` or until the process ends,
    however it ends. Use it in a `with` statement, or call `close`.

    Args:
        path: The folder.
        is_kept: Whether it stays, for another process to go on with.

    Attributes:
        path: The folder.
        is_kept: As given.

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

    def __init__(self, path: str | os.PathLike[str], is_kept: bool = True) -> None:
        self.path, self.is_kept = pathlib.Path(path), is_kept
        self._trials = TrialLog(self.path / "trials.jsonl")
        with user_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock: int | None = run_lock.take(self.path)
            for left in self.path.rglob(".*.tmp"):  # by a process that was killed
                shutil.rmtree(left, ignore_errors=True)

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Releases the folder. Closing twice does nothing."""
        self._trials.close()
        if self._lock is not None:
            os.close(self._lock)
        self._lock = None

    @property
    def students_path(self) -> pathlib.Path:
        """The folder of the best students; it is made when something is exported to it."""
        return self.path / "students"

    def training_path(self, name: str) -> pathlib.Path | None:
        """The file that keeps a training while it goes on; None if nothing is kept."""
        return self.path / "checkpoints" / f"training_{name}.npz" if self.is_kept else None

    def remove_trainings(self, name: str = "") -> None:
        """Removes what `training_path` gives for a name, or for all: nothing goes on with it."""
        for path in (self.path / "checkpoints").glob(f"training_{name}*.npz"):
            path.unlink()

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
        given = plain(config)
        recorded, recorded_free = recorded_settings(self.path)
        check_settings(self.path, recorded, given)
        given_free = recorded_free if free is None else plain(free)
        if recorded != given:
            self.remove_trainings()  # of other settings
        self.trials()  # nothing is written in a folder whose trials can't be read
        if (recorded, recorded_free) != (given, given_free):
            written = given if given_free is None else {**given, "free": given_free}
            write_object(self.path / "config.json", written)

    def write_teacher(self, teacher: Mapping[str, Any]) -> None:
        """Writes what the teacher measured, the reference of every objective.

        Args:
            teacher: The fields of teacher.json, as the module's docstring has them.

        Raises:
            UserError: If the file cannot be written.
        """
        self.remove_trainings()  # with another teacher or other data
        write_object(self.path / "teacher.json", teacher)

    def teacher(self) -> dict[str, Any] | None:
        """What `write_teacher` wrote; None before the first trial."""
        return recorded_teacher(self.path)

    def write_full_training(self, values: Mapping[str, Any]) -> None:
        """Writes what the full training came to.

        Raises:
            UserError: If the file cannot be written.
        """
        write_object(self.path / "full_training.json", values)

    def full_training(self) -> dict[str, Any] | None:
        """What `write_full_training` wrote; None before, or where the file was damaged."""
        with contextlib.suppress(UserError):  # it can be made again
            return read_object(self.path / "full_training.json")
        return None

    def write_calibration(self, values: Mapping[str, Any]) -> None:
        """Writes how students are trained fastest here.

        Raises:
            UserError: If the file cannot be written.
        """
        write_object(self.path / "calibration.json", values)

    def calibration(self) -> dict[str, Any] | None:
        """What `write_calibration` wrote; None before."""
        return read_object(self.path / "calibration.json")

    def append(self, trial: Trial) -> None:
        """Records a finished trial; when this returns, the trial is on the disk.

        Args:
            trial: The trial.

        Raises:
            UserError: If the disk is full or the folder cannot be written. The trials before
                this one are safe then.
        """
        self._trials.append(trial)

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
        write_object(self.path / "summary.json", summary)

    def summary(self) -> dict[str, Any] | None:
        """What `write_summary` wrote; None before the search has ended."""
        return read_object(self.path / "summary.json")
