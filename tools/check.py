#!/usr/bin/env python3
"""Runs all checks of the project, the same that CI runs.

    python tools/check.py            all of them
    python tools/check.py mypy tests    only these

Needs the extra `test`. Goes on after a check that fails, and ends with 1 if any did.
"""

from __future__ import annotations

import os
import pathlib
import shlex
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PYTEST = [sys.executable, "-m", "pytest"]
# Console scripts lie beside the interpreter; the environment need not be activated.
SCRIPTS = pathlib.Path(sys.executable).parent

CHECKS = {
    "format": [sys.executable, "-m", "ruff", "format", "--check", "."],
    "lint": [sys.executable, "-m", "ruff", "check", "."],
    "types": [sys.executable, "-m", "mypy"],
    "imports": [str(SCRIPTS / "lint-imports")],
    # Doctests and tests in one run, so that the last line counts them all; two files at a time.
    "tests": [*PYTEST, "-n2", "--dist=loadfile", "--doctest-modules", "esnac_tf", "tests"],
}


def main(names: list[str]) -> int:
    """Runs the checks of these names, all if there are none; the exit code."""
    unknown = sorted(set(names) - set(CHECKS))
    if unknown:
        print(f"Unknown check {unknown[0]!r}.\nKnown: {', '.join(CHECKS)}.", file=sys.stderr)
        return 2
    environment = {
        **os.environ,
        "TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2"),
        # Tests compare runs on a CPU, whatever else the machine has.
        "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
    }
    results = []
    for name, command in CHECKS.items():
        if names and name not in names:
            continue
        print(f"== {name}: {shlex.join([pathlib.Path(command[0]).name, *command[1:]])}", flush=True)
        start = time.monotonic()
        code, last_line = run(command, environment)
        results.append((name, code, time.monotonic() - start, last_line))
    print("== summary")
    for name, code, secs, last_line in results:
        state = "passed" if code == 0 else f"FAILED ({code})"
        print(f"{name:8} {state:12} {secs:6.0f} s   {last_line}")
    return int(any(code for _, code, *_ in results))


def run(command: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """Runs a command and passes on what it says; its exit code and its last line."""
    last_line = ""
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            last_line = line.strip() or last_line
    return process.returncode, last_line


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
