#!/usr/bin/env python3
"""Measures how fast the project is, against bars: ratios of medians of things run side by side.

    python tools/benchmark.py                            all of it at its small size: minutes
    python tools/benchmark.py --size=full                the sizes that docs/performance.md reports
    python tools/benchmark.py --only='^surrogate'        those whose names match
    python tools/benchmark.py --json=benchmark.json      writes the figures, too

Each benchmark runs in a process of its own. PyTorch is compared with where it is installed, and
CIFAR-10 is used where ESNAC_TF_CIFAR10_DIR names the folder that holds cifar-10-batches-bin. Times
on a machine that does other work mean little; ratios bear more. Ends with 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import pathlib
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Functions that yield findings, by the name that --only matches.
BENCHMARKS = {
    "surrogate_fit_step": "surrogate_speed.fit_step",
    "surrogate_whole_fit": "surrogate_speed.whole_fit",
    "surrogate_scoring": "surrogate_speed.scoring",
    "surrogate_tracing": "surrogate_speed.tracing",
    "surrogate_growth": "surrogate_speed.growth",
    "training_joint_step": "training_speed.joint_step",
    "training_distiller": "training_speed.distiller",
    "training_teacher_targets": "training_speed.teacher_targets",
    "training_tracing": "training_speed.tracing",
    "pipeline_images": "pipeline_speed.images",
    "startup_commands": "startup_speed.commands",
    "startup_dry_run": "startup_speed.dry_run",
    "startup_large_models": "startup_speed.large_models",
    "memory_over_trials": "memory.over_trials",
    "executors_overhead": "executors_speed.overhead",
}


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmarks; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog=f"The benchmarks are {', '.join(BENCHMARKS)}."
    )
    parser.add_argument("--only", default="", help="regular expression for the benchmarks' names")
    parser.add_argument(
        "--size", choices=("small", "full"), default="small", help="small: minutes on 2 cores"
    )
    parser.add_argument("--json", help="file for the figures")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        return run_child(options.child, options.size, options.json)
    try:
        names = [name for name in BENCHMARKS if re.search(options.only, name)]
    except re.error as error:
        print(f"--only must be a regular expression, received {options.only!r}: {error}.")
        return 2
    if not names:
        print(f"No benchmark matches {options.only!r}.\nThere are {', '.join(BENCHMARKS)}.")
        return 2
    results: dict[str, Any] = {}
    for name in names:
        print(f"== {name}", flush=True)
        start = time.monotonic()
        findings = run(name, options.size)
        results[name] = {"findings": findings, "duration_secs": time.monotonic() - start}
    if options.json:
        document = {"machine": machine(), "size": options.size, "benchmarks": results}
        pathlib.Path(options.json).write_text(json.dumps(document, indent=1) + "\n")
    bars = [finding["is_met"] for result in results.values() for finding in result["findings"]]
    missed = bars.count(False)
    print(f"== {bars.count(True)} bars met, {missed} missed")
    return int(missed > 0)


def run(name: str, size: str) -> list[dict[str, Any]]:
    """The findings of one benchmark, run in a process of its own, which prints them.

    One that fails counts as a bar that is missed.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "findings.json"
        command = [sys.executable, __file__, f"--child={name}", f"--size={size}", f"--json={path}"]
        # The checkout's own package, installed or not.
        paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        environment = {"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ, "PYTHONPATH": paths}
        code = subprocess.run(command, env=environment).returncode
        if code == 0:
            return json.loads(path.read_text())
    print(f"{name} failed with exit code {code}.", file=sys.stderr)
    return [{"name": "runs to its end", "is_met": False}]


def run_child(name: str, size: str, path: str) -> int:
    """Runs one benchmark here, prints its findings as they come, and writes them."""
    module, function = BENCHMARKS[name].split(".")
    findings = []
    for finding in getattr(importlib.import_module(f"benchmarks.{module}"), function)(size):
        print(finding.line(), flush=True)
        findings.append({**dataclasses.asdict(finding), "is_met": finding.is_met})
    pathlib.Path(path).write_text(json.dumps(findings))
    return 0


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    import importlib.metadata as metadata

    packages = ("tensorflow", "keras", "tensorflow-probability", "numpy")
    return {
        "processor": platform.processor() or platform.machine(),
        "num_cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        **{package: metadata.version(package) for package in packages},
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
