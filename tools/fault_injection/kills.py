"""A search that is killed again and again, and goes on each time."""

from __future__ import annotations

import pathlib
import random
from collections.abc import Iterator, Mapping
from typing import Any

from fault_injection.runs import differences, run

# What a search does, by the functions that do it: (function, its calls in a whole run).
PHASES: Mapping[str, tuple[tuple[str, int], ...]] = {
    "sampling": (("esnac_tf.search_space.space.SearchSpace.sample", 6),),
    "surrogate": (("esnac_tf.surrogate.surrogate.Surrogate.fit", 2),),
    "training": (("esnac_tf.distillation.joint_step.JointStep.__call__", 60),),
    "saving": (
        ("esnac_tf.files._flush", 12),
        ("esnac_tf.files._move", 12),
        ("esnac_tf.trial_log._write_all", 4),
        ("esnac_tf.distillation.checkpoint.write_arrays", 3),
        ("esnac_tf.best_students.write_arrays", 4),
    ),
    "full training": (("esnac_tf.final_students.train", 1),),
    "export": (("esnac_tf.exporters.keras.export", 2), ("esnac_tf.record.write_object", 4)),
}
# Seconds that the fit and the full training of such a search take, about.
_LASTING = {"surrogate": 1.5, "full training": 4.0, "training": 0.02, "export": 0.1}


def killed_searches(
    folder: pathlib.Path, num_kills: int, seed: int
) -> Iterator[tuple[str, int, list[str]]]:
    """Kills searches until there were so many kills, each to its end.

    Args:
        folder: Where run folders are made; `folder / "expected"` holds a run that was not killed.
        num_kills: How often.
        seed: Of the moments.

    Yields:
        Of each search the phases in which it was killed, how many kills these are, and what was
        not the same in the end.
    """
    generator = random.Random(seed)
    left = [name for _ in range(num_kills) for name in PHASES][:num_kills]
    number = 0
    while left:
        number += 1
        run_dir, killed, missed = folder / f"killed_{number}", [], 0
        while left and missed < 3:
            # Sooner ones first, so that a search is killed in all of its phases.
            phase = left[0] if not killed else generator.choice(left)
            if run(run_dir, fault=a_kill(phase, generator, len(killed))).code == -9:
                left.remove(phase)
                killed.append(phase)
                missed = 0
            else:  # the search has ended before that
                missed = 3 if (run_dir / "summary.json").exists() else missed + 1
        ended = run(run_dir)
        found = differences(run_dir, folder / "expected")
        if ended.code or ended.has_traceback:
            found.append(f"exit code {ended.code}: {ended.text[-300:]}")
        yield ", ".join(killed), len(killed), found


def a_kill(phase: str, generator: random.Random, num_kills: int) -> dict[str, Any]:
    """A moment in a phase; an early one where a search was killed often, as less of it is left."""
    function, calls = generator.choice(PHASES[phase])
    lasting = _LASTING.get(phase, 0.0)
    return {
        "function": function,
        "call": generator.randint(1, max(1, calls // (1 + num_kills))),
        "delay": generator.uniform(0.1, 1.0) * lasting,
    }
