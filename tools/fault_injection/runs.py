"""Starts searches, with a fault or without, and compares what they came to."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
# A search of a quarter of a minute; its teacher is trained once for all of them.
FLAGS = (
    "--teacher=resnet18(width=4)", "--teacher_epochs=4", "--dataset=digits", "--train_examples=320",
    "--validation_examples=128", "--num_steps=3", "--num_kernels=2", "--num_candidates=60",
    "--kernel_steps=8", "--search_epochs=3", "--num_best=2", "--full_epochs=4", "--batch_size=32",
    "--export=keras",
)  # fmt: skip
_LIMIT_SECS = 300
# What differs from run to run, and may.
_SECS = ("duration_secs", "latency_secs", "profile")


@dataclasses.dataclass(frozen=True)
class Ended:
    """A process that has ended.

    Attributes:
        code: Its exit code; -9 after SIGKILL.
        text: What it said.
    """

    code: int
    text: str

    @property
    def has_traceback(self) -> bool:
        """Whether it said more than a user wants to know."""
        return "Traceback" in self.text


def start(
    run_dir: pathlib.Path, flags: Sequence[str] = (), fault: Mapping[str, Any] | None = None
) -> subprocess.Popen[str]:
    """Starts the search command in a run folder, with other flags than `FLAGS` where given."""
    module = ["esnac_tf.search"] if fault is None else ["fault_injection.command"]
    if fault is not None:
        module.append(json.dumps(dict(fault)))
    path = os.pathsep.join([str(ROOT), str(ROOT / "tools")])
    cache = run_dir.parent / "cache"
    return subprocess.Popen(
        [sys.executable, "-m", *module, *FLAGS, f"--run_dir={run_dir}", f"--cache_dir={cache}",
         *flags],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )  # fmt: skip


def wait(process: subprocess.Popen[str]) -> Ended:
    """Waits for a process.

    Raises:
        subprocess.TimeoutExpired: It hangs.
    """
    try:
        text, _ = process.communicate(timeout=_LIMIT_SECS)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return Ended(process.returncode, text)


def run(
    run_dir: pathlib.Path, flags: Sequence[str] = (), fault: Mapping[str, Any] | None = None
) -> Ended:
    """Runs the search command to its end."""
    return wait(start(run_dir, flags, fault))


def lines(run_dir: pathlib.Path) -> list[dict[str, Any]]:
    """The trials in a run folder, as they are written, without their times."""
    path = run_dir / "trials.jsonl"
    if not path.exists():
        return []
    return [_without_secs(json.loads(line)) for line in path.read_text().splitlines()]


def differences(run_dir: pathlib.Path, expected: pathlib.Path) -> list[str]:
    """What is not the same in two finished run folders: trials, figures, weights of students."""
    found = []
    numbers = [line["number"] for line in lines(run_dir)]
    if len(set(numbers)) < len(numbers):
        found.append(f"a trial is there twice: {numbers}")
    if _by_number(run_dir) != _by_number(expected):
        found.append("trials differ")
    summaries = [_summary(folder) for folder in (run_dir, expected)]
    if None in summaries or summaries[0] != summaries[1]:
        found.append("summaries differ")
    for one, other in zip(_students(run_dir), _students(expected), strict=False):
        if one.name != other.name or _weights(one) != _weights(other):
            found.append(f"students differ: {one.name}, {other.name}")
    if len(_students(run_dir)) != len(_students(expected)):
        found.append("there are other students")
    left = [path.name for path in run_dir.rglob(".*.tmp")]
    left += [path.name for path in run_dir.rglob("training_*")]
    if left:
        found.append(f"left over: {', '.join(left)}")
    return found


def _by_number(run_dir: pathlib.Path) -> list[dict[str, Any]]:
    return sorted(lines(run_dir), key=lambda line: line["number"])


def _summary(run_dir: pathlib.Path) -> Any:
    path = run_dir / "summary.json"
    return _without_secs(json.loads(path.read_text())) if path.exists() else None


def _without_secs(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_secs(part) for name, part in value.items() if name not in _SECS}
    return [_without_secs(part) for part in value] if isinstance(value, list) else value


def _students(run_dir: pathlib.Path) -> list[pathlib.Path]:
    return sorted((run_dir / "students").glob("*.keras"))


def _weights(path: pathlib.Path) -> list[Any]:
    import keras

    return [np.asarray(weight).tolist() for weight in keras.saving.load_model(path).get_weights()]
