#!/usr/bin/env python3
"""Lets faults happen to real searches, and holds what becomes of them against what should.

    python tools/faults.py                     30 kills, then faults of other kinds: half an hour
    python tools/faults.py --kills=4           fewer kills
    python tools/faults.py --only=sigterm      one kind
    python tools/faults.py --write             puts the table into docs/reliability.md

The searches are small ones on the digits. Ends with 1 if anything was not as it should be.
"""

from __future__ import annotations

import argparse
import collections
import pathlib
import re
import sys
import tempfile
import time
from collections.abc import Sequence

from fault_injection.kills import killed_searches
from fault_injection.runs import ROOT, run
from fault_injection.scenarios import SCENARIOS, Checks

DOCUMENT = ROOT / "docs" / "reliability.md"
_BEGIN, _END = "<!-- faults: begin -->\n", "<!-- faults: end -->\n"


def main(arguments: Sequence[str]) -> int:
    """Lets faults happen; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30, help="how often a search is killed")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of kills")
    parser.add_argument("--only", default="", help="regular expression for the kinds of faults")
    parser.add_argument("--write", action="store_true", help="write docs/reliability.md's table")
    options = parser.parse_args(arguments)
    if options.write and options.only:
        parser.error("--write writes the whole table: leave --only out")
    rows, failures = [], 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        print("A search without a fault ...", flush=True)
        expected = run(folder / "expected")
        if expected.code:
            print(expected.text)
            return 1
        if re.search(options.only, "kills"):
            row, failed = kills(folder, options.kills, options.seed)
            rows.append(row)
            failures += failed
        for scenario in SCENARIOS:
            if not re.search(options.only, scenario.__name__):
                continue
            start, check = time.monotonic(), Checks()
            told = scenario(folder, check)
            print(f"{scenario.__name__} ({time.monotonic() - start:.0f} s): {told}", flush=True)
            for failure in check.failed:
                print(f"  NOT AS IT SHOULD BE: {failure}", flush=True)
            failures += bool(check.failed)
            rows.append(
                ((scenario.__doc__ or "").rstrip("."), "no" if check.failed else "yes", told)
            )
    print(f"== {failures} not as they should be")
    if options.write:
        write(rows)
    return int(failures > 0)


def kills(folder: pathlib.Path, count: int, seed: int) -> tuple[tuple[str, str, str], int]:
    """Kills searches; the row of the table, and how many searches came to something else."""
    failures, phases, num_searches = 0, collections.Counter[str](), 0
    for killed, number, found in killed_searches(folder, count, seed):
        num_searches += 1
        phases.update(name for name in killed.split(", ") if name)
        print(f"search {num_searches}: {number} kills ({killed})", flush=True)
        for difference in found:
            print(f"  NOT AS IT SHOULD BE: {difference}", flush=True)
        failures += bool(found)
    spread = ", ".join(f"{name} {number}" for name, number in phases.items())
    told = (
        f"{sum(phases.values())} kills in {num_searches} searches ({spread}): trials, figures and "
        "weights are those of a search that was not killed; nothing lost, nothing twice"
    )
    return ("SIGKILL at random moments", "no" if failures else "yes", told), failures


def write(rows: Sequence[tuple[str, str, str]]) -> None:
    """Puts the table into the document."""
    table = ["| what happens | as it should be | what becomes of the search |", "|---|---|---|"]
    table += [f"| {' | '.join(row)} |" for row in rows]
    before, rest = DOCUMENT.read_text().split(_BEGIN)
    _, after = rest.split(_END)
    DOCUMENT.write_text(before + _BEGIN + "\n".join(table) + "\n" + _END + after)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
