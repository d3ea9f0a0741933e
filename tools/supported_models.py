#!/usr/bin/env python3
"""Tries models that others' code builds: reads them, copies them, and makes random students.

    python tools/supported_models.py                                    all of them: hours
    python tools/supported_models.py --only='^(ResNet50|Xception)'      those whose names match
    python tools/supported_models.py --source=keras-hub                 those of one source
    python tools/supported_models.py --output=docs/supported_models.md  writes the tables, too

The models are those of the modules in `tools/model_zoo`. Each is tried in a process of its own
with limits of time and memory, so that none takes the others with it. Results are appended to
the file of `--json`, a JSON object a line; what has passed there is not tried again, so an
interrupted run goes on. Ends with 1 if any model in the file has failed.

A model passes if
- the student with no action gives its outputs, with random weights and measured statistics;
- a random student of about half its parameters has as many as foretold, runs, trains for a step
  with a finite loss, gives the same after saving and loading, and as a SavedModel;
- that student has fewer parameters.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import pathlib
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from model_examination import examine, randomized
from model_zoo.case import Case

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Modules of model_zoo, in the order of the document.
SOURCES = ("keras_applications", "keras_hub_backbones", "code_examples")

Key = tuple[str, str]


def main(arguments: Sequence[str]) -> int:
    """Tries the models and writes the tables; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="regular expression for the models' names")
    parser.add_argument("--source", default="", help="regular expression for their sources' titles")
    parser.add_argument("--json", default="runs/supported_models.jsonl", help="file of the results")
    parser.add_argument("--output", help="Markdown file for the tables")
    parser.add_argument("--timeout_secs", type=float, default=1800, help="for one model")
    parser.add_argument("--memory_gib", type=float, default=14, help="for one model")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        source, name = options.child
        return run_child((source, name), options.memory_gib)
    path = pathlib.Path(options.json)
    path.parent.mkdir(parents=True, exist_ok=True)
    cases = all_cases()
    earlier = read_results(path)
    wanted = [
        case
        for key, case in cases.items()
        if re.search(options.only, case.name)
        and re.search(options.source, case.source)
        and not earlier.get(key, {}).get("passed")
    ]
    missing = missing_packages()
    for case in wanted:
        if case.source in missing:
            continue
        result = try_model((case.source, case.name), options.timeout_secs, options.memory_gib)
        with path.open("a") as file:
            file.write(json.dumps(result) + "\n")
        print(" ".join(cells(result, case)), flush=True)
    for source in sorted({case.source for case in wanted} & missing.keys()):
        print(f"Left out all of {source}. Install it: pip install {missing[source]}")
    found = read_results(path)
    results = {key: found[key] for key in cases if key in found}
    print(total(list(results.values())))
    if options.output:
        pathlib.Path(options.output).write_text(document(results, cases))
    return int(not all(result["passed"] for result in results.values()))


def sources() -> list[Any]:
    """The modules that give cases; imports Keras."""
    return [importlib.import_module(f"model_zoo.{name}") for name in SOURCES]


def all_cases() -> dict[Key, Case]:
    """Every case by its source and name."""
    return {(case.source, case.name): case for source in sources() for case in source.cases()}


def missing_packages() -> dict[str, str]:
    """Distributions that are not installed, by the titles of the sources that need them."""
    installed = {distribution.name for distribution in importlib.metadata.distributions()}
    return {
        source.TITLE: source.PACKAGE
        for source in sources()
        if source.PACKAGE is not None and source.PACKAGE not in installed
    }


# The parent.


def try_model(key: Key, timeout_secs: float, memory_gib: float) -> dict[str, Any]:
    """Examines a model in a process of its own; what that told, and why it ended early."""
    command = [sys.executable, __file__, f"--memory_gib={memory_gib}", "--child", *key]
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "CUDA_VISIBLE_DEVICES": "",
    }
    start = time.monotonic()
    reason = None
    with tempfile.TemporaryFile("w+") as told, tempfile.TemporaryFile("w+") as errors:
        try:
            code = subprocess.run(
                command, env=environment, stdout=told, stderr=errors, timeout=timeout_secs
            ).returncode
            if code < 0:
                reason = f"ended by {signal.Signals(-code).name}"
            elif code:
                errors.seek(0)
                lines = [line.strip() for line in errors if line.strip()]
                reason = lines[-1] if lines else f"exit code {code}"
        except subprocess.TimeoutExpired:
            reason = f"not done after {timeout_secs:.0f} s"
        told.seek(0)
        result: dict[str, Any] = {"source": key[0], "name": key[1]}
        for line in told:
            if line.startswith("{"):
                result.update(json.loads(line))
    if reason is not None:
        result["reason"] = f"{result.get('step', 'start')}: {reason}"
    result["passed"] = result.get("step") == "done"
    result["duration_secs"] = round(time.monotonic() - start, 1)
    return result


def read_results(path: pathlib.Path) -> dict[Key, dict[str, Any]]:
    """The last result of each model in a file; none where there is no file.

    Results without a source are of keras.applications, and say apart from the name whether the
    network has its top: so they were written when there was no other source.
    """
    lines = path.read_text().splitlines() if path.exists() else []
    results = {}
    for result in map(json.loads, lines):
        result.setdefault("source", "keras.applications")
        if not result.pop("top", True):
            result["name"] += " without top"
        results[result["source"], result["name"]] = result
    return results


def cells(result: dict[str, Any], case: Case) -> list[str]:
    """The row of a model."""

    def number(key: str) -> str:
        return f"{result[key]:,}" if key in result else "-"

    ratio = f"{100 * result['ratio']:.1f} %" if "ratio" in result else "-"
    return [
        f"[{case.name}]({case.address})" if case.address else case.name,
        number("num_params"),
        number("layers"),
        number("groups"),
        number("removable"),
        number("skip_pairs"),
        ratio,
        "pass" if result["passed"] else result["reason"].replace("|", "\\|"),
    ]


def total(results: Sequence[dict[str, Any]]) -> str:
    """The line under a table."""
    return f"{sum(result['passed'] for result in results)} of {len(results)} pass."


def document(results: dict[Key, dict[str, Any]], cases: dict[Key, Case]) -> str:
    """The tables of all results as Markdown, a section for each source that has any."""
    import keras
    import tensorflow as tf

    sections = []
    for source in sources():
        of_source = {key: result for key, result in results.items() if key[0] == source.TITLE}
        if of_source:
            rows = [cells(result, cases[key]) for key, result in of_source.items()]
            parts = [heading(source), source.DESCRIPTION, table(rows)]
            sections += [*parts, total(list(of_source.values()))]
    tried = "\n\n".join(sections)
    return f"""# Supported models

Models that others' code builds, tried with `tools/supported_models.py` on
TensorFlow {tf.__version__} and Keras {keras.__version__}: random weights and inputs,
`channel_groups="dependency"`. Channel groups are those that can shrink; the random student's size
is its share of the model's parameters.

A model passes if the student with no action gives its outputs, and a random student of about
half its parameters is as large as foretold, runs, trains, and gives the same after saving and
loading, and as a SavedModel. Where no student has fewer parameters, all else passes: such a model
is in layers of its own, which are not narrowed, and none of which can be removed.

{tried}
"""


def heading(source: Any) -> str:
    """The heading of a source, with the version of what it needs."""
    if source.PACKAGE is None or source.TITLE in missing_packages():
        return f"## {source.TITLE}"
    return f"## {source.TITLE} {importlib.metadata.version(source.PACKAGE)}"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of `cells` as Markdown."""
    heads = (
        "model|parameters|layers|channel groups|removable layers|skip pairs|random student|result"
    )
    lines = [heads.split("|"), ["---", *["--:"] * 6, "---"], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


# The child.


def run_child(key: Key, memory_gib: float) -> int:
    """Examines a model and tells the results on stdout, a JSON object a line; the exit code."""
    limit = int(memory_gib * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))

    def report(**values: Any) -> None:
        print(json.dumps(values), flush=True)

    try:
        report(step="building the model")
        import keras

        keras.utils.set_random_seed(0)  # a model that passes, passes again
        case = all_cases()[key]
        with tempfile.TemporaryDirectory() as folder:
            examine(randomized(case.build(), case.values), case.values, folder, report)
    except Exception as error:
        print(f"{type(error).__name__}: {reason_of(error)[:200]}", file=sys.stderr)
        return 1
    return 0


def reason_of(error: BaseException) -> str:
    """What an error says, in a line.

    Where Keras can't revive an object, it says at the end why.
    """
    causes: list[BaseException] = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    lines = [line for cause in causes for line in str(cause).strip().splitlines()]
    mark = "Exception encountered: "
    reasons = [line.removeprefix(mark) for line in lines if line.startswith(mark)]
    return (reasons or lines or [""])[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
