"""Whether a run may go on in its folder, and what it has come to; nothing is written here.

A run goes on with the settings, the teacher and the data that its trials came about with.
"""

from __future__ import annotations

import errno
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from esnac_tf import run_lock
from esnac_tf.errors import UserError
from esnac_tf.run_files import dumps, plain, read_object, user_errors

RESUME = ("auto", "never", "required")


def check_resume(run_dir: str | os.PathLike[str] | None, resume: str) -> None:
    """Refuses a folder that holds a run, or holds none.

    Args:
        run_dir: The run folder, which need not exist; None: there is none.
        resume: "auto": both is right. "never": it must hold no run. "required": it must hold one.

    Raises:
        UserError: It is not so.

    Example:
        >>> check_resume("no/such/folder", "required")
        Traceback (most recent call last):
            ...
        esnac_tf.errors.UserError: no/such/folder holds no run to go on with.
        Give the --run_dir of one, or resume='auto'.
    """
    holds_run = run_dir is not None and (pathlib.Path(run_dir) / "config.json").exists()
    if resume == "required" and not holds_run:
        told = f"{run_dir} holds no run" if run_dir else "Without a run folder there is no run"
        raise UserError(f"{told} to go on with.\nGive the --run_dir of one, or resume='auto'.")
    if resume == "never" and holds_run:
        raise UserError(
            f"{run_dir} holds a run already.\nChoose another --run_dir, or resume='auto'."
        )


def check_run(run_dir: str | os.PathLike[str], config: Mapping[str, Any]) -> bool:
    """Raises what a run would raise at its start in this folder; writes nothing.

    Args:
        run_dir: The run folder, which need not exist.
        config: The settings of the run, as for `RunFolder.check_or_write_config`.

    Returns:
        Whether the folder holds a run of these settings, which would go on.

    Raises:
        UserError: If another process holds the folder, it cannot be made or written, or it holds
            a run with other settings.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> check_run(f"{folder}/run", {"seed": 3}), os.listdir(folder)
        (False, [])
        >>> from esnac_tf.record import RunFolder
        >>> with RunFolder(folder) as run:
        ...     run.check_or_write_config({"seed": 3})
        >>> check_run(folder, {"seed": 3})
        True
    """
    path = pathlib.Path(run_dir)
    with user_errors(path):
        _require_writable(path)
        run_lock.check_free(path)
    recorded, _ = recorded_settings(path)
    given = plain(config)
    check_settings(path, recorded, given)
    return bool(recorded == given)


def recorded_settings(run_dir: pathlib.Path) -> tuple[dict[str, Any] | None, Any]:
    """What config.json holds.

    Args:
        run_dir: The run folder.

    Returns:
        The settings that a resumed run must share, and those that may change; None in the place
        of what is not there.

    Raises:
        UserError: If the file can't be read.
    """
    recorded = read_object(run_dir / "config.json")
    return recorded, None if recorded is None else recorded.pop("free", None)


def check_settings(
    run_dir: pathlib.Path,
    recorded: Mapping[str, Any] | None,
    given: Mapping[str, Any],
) -> None:
    """Refuses settings with which the trials in a folder did not come about.

    A run without any trial is no run yet: it may have any.

    Args:
        run_dir: The run folder.
        recorded: The settings that it holds.
        given: The settings of the run that would go on, as JSON values.

    Raises:
        UserError: If they differ.
    """
    if recorded == given or not _has_trials(run_dir):
        return
    if recorded is None:
        raise UserError(
            f"{run_dir} holds trials, and no config.json that says how they came about.\n"
            "Choose another --run_dir, or restore that file."
        )
    unset = object()
    differing = [
        f"{name} is {_shown(recorded, name)} there and {_shown(given, name)} now"
        for name in sorted(recorded.keys() | given.keys())
        if recorded.get(name, unset) != given.get(name, unset)
    ]
    raise UserError(
        f"{run_dir} holds a run with other settings: {'; '.join(differing)}.\n"
        "Choose another --run_dir for a new run, or give the same settings to resume."
    )


def recorded_teacher(run_dir: str | os.PathLike[str]) -> dict[str, Any] | None:
    """What teacher.json holds; None if it is not there, or no trial depends on it yet."""
    path = pathlib.Path(run_dir)
    return read_object(path / "teacher.json") if _has_trials(path) else None


def check_teacher(run_dir: str | os.PathLike[str], digests: Mapping[str, str]) -> None:
    """Holds teacher and data against those of the run to resume.

    A run without any trial is no run yet: it may have any.

    Args:
        run_dir: The run folder.
        digests: `weights_sha256` and `data_sha256` as in teacher.json, or one of them.

    Raises:
        UserError: If the folder holds a search with another teacher, or other data.

    Example:
        >>> import tempfile
        >>> from esnac_tf.record import RunFolder
        >>> with RunFolder(tempfile.mkdtemp()) as run:
        ...     run.write_teacher({"data_sha256": "c1"})
        ...     check_teacher(run.path, {"data_sha256": "c2"})
    """
    recorded = recorded_teacher(run_dir)
    for name, what in (("weights_sha256", "teacher"), ("data_sha256", "data")):
        if recorded is not None and name in digests and recorded.get(name) != digests[name]:
            raise UserError(
                f"{pathlib.Path(run_dir)} holds a search with another {what}.\n"
                f"Choose another --run_dir for a new run, or give the same {what} to resume."
            )


def finished_summary(
    run_dir: str | os.PathLike[str], free: Mapping[str, Any], exported: bool = True
) -> dict[str, Any] | None:
    """The summary of a run that has nothing left to do.

    Args:
        run_dir: The run folder.
        free: The settings that may change between a run and its continuation.
        exported: Whether the exports belong to what was to do.

    Returns:
        The summary; None if there is none, it came about with other settings, or an export is
        missing: one that was interrupted, or failed, is tried again.

    Raises:
        UserError: If the file can't be read.

    Example:
        >>> import tempfile
        >>> from esnac_tf.record import RunFolder
        >>> with RunFolder(tempfile.mkdtemp()) as run:
        ...     run.write_summary({"settings": {"num_steps": 2, "export": []}, "students": []})
        >>> finished_summary(run.path, {"num_steps": 2, "export": ()})["students"]
        []
        >>> finished_summary(run.path, {"num_steps": 3, "export": ()})
    """
    summary = read_object(pathlib.Path(run_dir) / "summary.json")
    if summary is None or summary.get("settings") != plain(free) or not _is_whole(summary):
        return None
    for student in summary["students"]:
        if exported and not set(free["export"]) <= student["exports"].keys():
            return None
    return summary


# What is shown of models, all of them numbers.
_FIGURES = ("num_params", "times_smaller", "flops", "objective", "latency_secs", "file_bytes")


def _is_whole(summary: Mapping[str, Any]) -> bool:
    """Whether a summary that may have been changed holds what is shown of it."""
    teacher, students = summary.get("teacher", {}), summary.get("students")
    profile = summary.get("profile", {})
    if not isinstance(students, list) or not isinstance(profile, dict):
        return False
    models = [{"exports": {}, **teacher} if isinstance(teacher, dict) else None, *students]
    figures = list(profile.values())
    for model in models:
        if not isinstance(model, dict) or not isinstance(model.get("metric", ""), str):
            return False
        exports, metric = model.get("exports"), model.get("metric", "accuracy")
        if not isinstance(exports, dict) or not all(isinstance(p, str) for p in exports.values()):
            return False
        names = [*_FIGURES, f"validation_{metric}", f"test_{metric}"]
        figures += [model.get(name) for name in names]
    return all(figure is None or isinstance(figure, (int, float)) for figure in figures)


def _has_trials(run_dir: pathlib.Path) -> bool:
    return (run_dir / "trials.jsonl").exists()


def _require_writable(path: pathlib.Path) -> None:
    """Raises what the system would if the folder were made and written now."""
    for folder in (path, *path.parents):
        try:
            folder.lstat()
        except FileNotFoundError:
            continue
        if not folder.is_dir():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        if not os.access(folder, os.W_OK | os.X_OK):
            read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
            code = errno.EROFS if read_only else errno.EACCES
            raise OSError(code, os.strerror(code))
        return


def _shown(settings: Mapping[str, Any], name: str) -> str:
    return dumps(settings[name]) if name in settings else "not set"
