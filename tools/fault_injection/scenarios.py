"""Faults of other kinds: of disks, of students, of memory, of files, of other processes.

Each scenario lets something happen to a search, and yields what it came to, then what was not as
it should be.
"""

from __future__ import annotations

import importlib.util
import json
import pathlib
import subprocess
import time

from fault_injection.runs import Ended, differences, lines, run, start, wait

TRAIN = "esnac_tf.distillation.joint_step.JointStep.__call__"
EVENTS = "esnac_tf.executors.ray.RayExecutor._follow"
UPDATE = "esnac_tf.distillation.student_update.StudentUpdate.__call__"
BUILD = "esnac_tf.student.StudentBuilder.build"
# What the user is told by the error that stops a search.
_MAX_ERROR_LINES = 3


class Checks:
    """Collects what was not as it should be."""

    def __init__(self) -> None:
        self.failed: list[str] = []

    def that(self, is_so: object, told: str) -> None:
        """Notes what should be so, and is not."""
        if not is_so:
            self.failed.append(told)

    def stopped(self, ended: Ended, code: int, told: str) -> None:
        """Notes it where a process did not end with a code and a short word of the reason."""
        self.that(ended.code == code, f"exit code {ended.code}, not {code}: {ended.text[-300:]}")
        self.that(not ended.has_traceback, f"a traceback: {ended.text[-300:]}")
        self.that(told in ended.text, f"nothing of {told!r}: {ended.text[-300:]}")
        error = ended.text[ended.text.find("Error: ") :] if "Error: " in ended.text else ""
        self.that(len(error.splitlines()) <= _MAX_ERROR_LINES, f"a long error: {error}")

    def goes_on(self, run_dir: pathlib.Path, expected: pathlib.Path) -> None:
        """Notes it where the same command does not come to what it should have come to."""
        ended = run(run_dir)
        self.that(ended.code == 0, f"resumed: exit code {ended.code}: {ended.text[-300:]}")
        for difference in differences(run_dir, expected):
            self.failed.append(f"resumed: {difference}")


def sigterm(folder: pathlib.Path, check: Checks) -> str:
    """SIGTERM while students train."""
    run_dir = folder / "sigterm"
    ended = run(run_dir, fault={"function": TRAIN, "call": 15, "fault": "term"})
    check.stopped(ended, 143, f"The same command with --run_dir={run_dir} goes on.")
    kept = list((run_dir / "checkpoints").glob("training_*.npz"))
    check.that(kept, "the training is not kept")
    check.goes_on(run_dir, folder / "expected")
    return "the epoch ends and is kept, exit code 143; the same command ends as if nothing had been"


def full_disk(folder: pathlib.Path, check: Checks) -> str:
    """A disk that is full."""
    disk = folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        return "NOT TRIED: nothing can be mounted here"
    try:
        run_dir = disk / "run"
        cache = f"--cache_dir={folder / 'cache'}"
        ended = run(run_dir, [cache])
        check.stopped(ended, 2, "No space left on device")
        written = lines(run_dir)
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        ended = run(run_dir, [cache])
        check.that(lines(run_dir)[: len(written)] == written, "trials that were written are gone")
        check.that(ended.code == 0, f"with room again: {ended.text[-300:]}")
        check.failed += differences(run_dir, folder / "expected")
    finally:
        subprocess.run(["umount", str(disk)], check=False)
    return (
        "a clear stop, exit code 2; what was written stays, and with room again the search goes on"
    )


def read_only(folder: pathlib.Path, check: Checks) -> str:
    """A folder on a read-only mount."""
    disk = folder / "read_only"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(disk), "-o", "ro"]).returncode:
        return "NOT TRIED: nothing can be mounted here"
    try:
        start_secs = time.monotonic()
        cache = f"--cache_dir={folder / 'cache'}"
        check.stopped(run(disk / "run", [cache]), 2, "Read-only file system")
        secs = time.monotonic() - start_secs
        check.that(not list(disk.iterdir()), "something was written")
    finally:
        subprocess.run(["umount", str(disk)], check=False)
    return f"told before the search starts, after {secs:.0f} s, exit code 2"


def nan_student(folder: pathlib.Path, check: Checks) -> str:
    """A student with NaN."""
    run_dir = folder / "nan"
    ended = run(run_dir, fault={"function": BUILD, "call": 2, "fault": "nan"})
    check.that(ended.code == 0, f"exit code {ended.code}: {ended.text[-300:]}")
    states = [line["state"] for line in lines(run_dir)]
    check.that(states.count("failed") == 1, f"states {states}")
    check.that(states.count("complete") == 5, f"states {states}")
    failure = next((line["failure"] for line in lines(run_dir) if line["failure"]), "")
    check.that("NaN" in failure, f"the reason {failure!r}")
    return f"that trial has failed ({failure}), the search goes on"


def out_of_memory(folder: pathlib.Path, check: Checks) -> str:
    """Memory that runs out once."""
    run_dir = folder / "memory"
    ended = run(run_dir, fault={"function": UPDATE, "call": 3, "fault": "memory"})
    check.that(ended.code == 0, f"exit code {ended.code}: {ended.text[-300:]}")
    check.that("Memory ran out with 2 students at once" in ended.text, "nothing is told")
    check.failed += differences(run_dir, folder / "expected")
    return "fewer students are trained at once from then on; the trials are the same"


def two_processes(folder: pathlib.Path, check: Checks) -> str:
    """Two processes started at once."""
    run_dir = folder / "two"
    processes = [start(run_dir), start(run_dir)]
    ended = sorted(map(wait, processes), key=lambda one: one.code)
    check.that(ended[0].code == 0, f"none finished: {ended[0].text[-300:]}")
    check.stopped(ended[1], 2, "is in use by another search, process")
    check.failed += differences(run_dir, folder / "expected")
    return "one searches; the other ends with exit code 2 and names the process of the first"


def torn_log(folder: pathlib.Path, check: Checks) -> str:
    """A log whose last line was cut off."""
    run_dir = _stopped(folder, "torn")
    log = run_dir / "trials.jsonl"
    log.write_bytes(log.read_bytes()[:-20])
    ended = run(run_dir)
    check.that("cut off" in ended.text, "nothing is told")
    check.that(ended.code == 0, f"exit code {ended.code}: {ended.text[-300:]}")
    check.failed += differences(run_dir, folder / "expected")
    return "the line is dropped with a warning, that trial is evaluated again"


def future_log(folder: pathlib.Path, check: Checks) -> str:
    """A log line from a future version."""
    run_dir = _stopped(folder, "future")
    log = run_dir / "trials.jsonl"
    first, *rest = log.read_text().splitlines(keepends=True)
    values = {**json.loads(first), "format": 99}
    log.write_text(json.dumps(values) + "\n" + "".join(rest))
    before = log.read_bytes()
    check.stopped(run(run_dir), 2, "this is no trial that this version reads")
    check.that(log.read_bytes() == before, "the log was changed")
    return "exit code 2, which names the line; nothing is changed"


def lost_checkpoints(folder: pathlib.Path, check: Checks) -> str:
    """Checkpoints that are gone, or cut off."""
    for number, damage in enumerate((lambda path: path.unlink(), _cut_off)):
        run_dir = folder / f"checkpoint_{number}"
        ended = run(run_dir, fault={"function": TRAIN, "call": 50, "fault": "term"})
        check.that(ended.code == 143, f"exit code {ended.code}")
        kept = [path for path in (run_dir / "checkpoints").glob("*") if path.is_file()]
        check.that(kept, "nothing was kept")
        for path in kept:
            damage(path)
        check.goes_on(run_dir, folder / "expected")
    return "what was kept there is trained again, and comes out the same"


def killed_worker(folder: pathlib.Path, check: Checks) -> str:
    """A worker of Ray that is killed while it trains."""
    if importlib.util.find_spec("ray") is None:
        return "NOT TRIED: Ray is not installed"
    run_dir = folder / "worker"
    ended = run(
        run_dir, ["--executor=ray"], {"function": EVENTS, "call": 2, "fault": "kill_worker"}
    )
    check.that(ended.code == 0, f"exit code {ended.code}: {ended.text[-300:]}")
    states = [line["state"] for line in lines(run_dir)]
    check.that("lost" in states, f"states {states}")
    complete = [line["number"] for line in lines(run_dir) if line["state"] == "complete"]
    check.that(sorted(complete) == list(range(6)), f"complete are {complete}")
    return "its students are lost, recorded as such and trained again"


def _stopped(folder: pathlib.Path, name: str) -> pathlib.Path:
    """A run folder of a search that was killed after its second step."""
    run_dir = folder / name
    fault = {"function": "esnac_tf.trial_log._write_all", "call": 5, "fault": "kill"}
    run(run_dir, fault=fault)
    return run_dir


def _cut_off(path: pathlib.Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


SCENARIOS = (
    sigterm, full_disk, read_only, nan_student, out_of_memory, two_processes, torn_log, future_log,
    lost_checkpoints, killed_worker,
)  # fmt: skip
