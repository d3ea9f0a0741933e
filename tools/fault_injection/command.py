"""The search command with one fault in it: what a run calls is wrapped, then the command is run.

    python -m fault_injection.command '{"function": "esnac_tf.files.flush", "call": 3}' FLAGS

At so many calls of the function the fault happens: "kill" (SIGKILL), at once or after a part of a
second, "kill_worker" (of one of Ray's), "term" (SIGTERM), "memory" (an error as where memory runs
out) or "nan" (NaN in the student's last weights).
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
from typing import Any

from esnac_tf import search


def main(arguments: list[str]) -> int:
    """Runs the command; its exit code."""
    fault, *flags = arguments
    inject(**json.loads(fault))
    return search.main(["search", *flags])


def inject(
    function: str, call: int = 1, fault: str = "kill", delay: float = 0.0, calls: int = 1
) -> None:
    """Wraps a function or a method.

    Args:
        function: Its name with that of its module, and of its class.
        call: At which of its calls the fault happens, from 1.
        fault: Which.
        delay: Seconds after the beginning of that call, while it goes on; 0: before it.
        calls: At how many calls it happens, this one and those after it.
    """
    owner, name = owner_of(function)
    original = getattr(owner, name)
    count = 0

    @functools.wraps(original)
    def wrapped(*arguments: Any, **settings: Any) -> Any:
        nonlocal count
        count += 1
        if call <= count < call + calls:
            if delay:
                timer = threading.Timer(delay, happen, [fault])
                timer.daemon = True
                timer.start()
            elif fault == "nan":
                student = original(*arguments, **settings)
                weights = student.get_weights()
                weights[-1] = weights[-1] * float("nan")
                student.set_weights(weights)
                return student
            else:
                happen(fault)
        return original(*arguments, **settings)

    setattr(owner, name, wrapped)


def owner_of(function: str) -> tuple[Any, str]:
    """The module or the class that holds a function, and its name there."""
    path, _, name = function.rpartition(".")
    try:
        return importlib.import_module(path), name
    except ModuleNotFoundError:
        module, _, kind = path.rpartition(".")
        return getattr(importlib.import_module(module), kind), name


def happen(fault: str) -> None:
    """Lets a fault happen."""
    if fault == "memory":
        raise MemoryError("no room (injected)")
    pid = os.getpid()
    if fault == "kill_worker":
        pid = next(child for child in children(pid) if "ray::Worker" in command_of(child))
        fault = "kill"
    os.kill(pid, {"kill": signal.SIGKILL, "term": signal.SIGTERM}[fault])


def children(pid: int) -> list[int]:
    """The processes that a process has started, and those that they have."""
    listed = subprocess.run(
        ["ps", "-e", "-o", "pid=,ppid="], capture_output=True, text=True, check=True
    )
    pairs = [tuple(map(int, line.split())) for line in listed.stdout.splitlines()]
    found = [pid]
    for parent in found:
        found += [child for child, above in pairs if above == parent]
    return found[1:]


def command_of(pid: int) -> str:
    """The command line of a process; empty if it has ended."""
    listed = subprocess.run(["ps", "-p", str(pid), "-o", "args="], capture_output=True, text=True)
    return listed.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
