#!/usr/bin/env python3
"""Tries every network of keras.applications: reads it, copies it, and makes a random student.

    python tools/supported_models.py                                    all of them: hours
    python tools/supported_models.py --only='^(ResNet50|Xception)'      those whose names match
    python tools/supported_models.py --output=docs/supported_models.md  writes the table, too

Each network, with and without its top, is tried in a process of its own with limits of time and
memory, so that none takes the others with it. Results are appended to the file of `--json`, a
JSON object a line; what has passed there is not tried again, so an interrupted run goes on.
Ends with 1 if any network in the file has failed.

A network passes if
- the student with no action gives its outputs, with random weights and measured statistics;
- a random student of about half its parameters has as many as foretold, runs, trains for a step
  with a finite loss, gives the same after saving and loading, and as a SavedModel.
"""

from __future__ import annotations

import argparse
import inspect
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
from collections.abc import Callable, Iterator, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Sides of a picture, from small to large: the first that a network takes is used.
SIDES = (64, 75, 96, 128, 224, 331)
NUM_CLASSES = 10
NUM_CANDIDATES = 500
NUM_PICTURES = 4
# Of the largest output: the student computes what its teacher does, a SavedModel what TensorFlow
# makes of it.
COPY_TOLERANCE = 1e-6
EXPORT_TOLERANCE = 1e-3

Report = Callable[..., None]


def main(arguments: Sequence[str]) -> int:
    """Tries the networks and writes the table; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="regular expression for the networks' names")
    parser.add_argument("--json", default="runs/supported_models.jsonl", help="file of the results")
    parser.add_argument("--output", help="Markdown file for the table")
    parser.add_argument("--timeout_secs", type=float, default=1800, help="for one network")
    parser.add_argument("--memory_gib", type=float, default=14, help="for one network")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        name, top = options.child
        return run_child(name, top == "top", options.memory_gib)
    path = pathlib.Path(options.json)
    path.parent.mkdir(parents=True, exist_ok=True)
    cases = [(name, top) for name in constructors() for top in (True, False)]
    for name, top in cases:
        if not re.search(options.only, name) or read_results(path).get((name, top), {}).get(
            "passed"
        ):
            continue
        result = try_network(name, top, options.timeout_secs, options.memory_gib)
        with path.open("a") as file:
            file.write(json.dumps(result) + "\n")
        print(" ".join(cells(result)), flush=True)
    results = [read_results(path)[case] for case in cases if case in read_results(path)]
    print(total(results))
    if options.output:
        pathlib.Path(options.output).write_text(document(results))
    return int(not all(result["passed"] for result in results))


def constructors() -> dict[str, Callable[..., Any]]:
    """The model functions of keras.applications by name, sorted."""
    import keras

    package = keras.applications
    modules = [package, *(module for _, module in inspect.getmembers(package, inspect.ismodule))]
    found = {
        name: function
        for module in modules
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if not name.startswith("_") and "include_top" in inspect.signature(function).parameters
    }
    return dict(sorted(found.items()))


# The parent.


def try_network(name: str, top: bool, timeout_secs: float, memory_gib: float) -> dict[str, Any]:
    """Examines a network in a process of its own; what that told, and why it ended early."""
    command = [sys.executable, __file__, f"--memory_gib={memory_gib}"]
    command += ["--child", name, "top" if top else "no_top"]
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
        result: dict[str, Any] = {"name": name, "top": top}
        for line in told:
            if line.startswith("{"):
                result.update(json.loads(line))
    if reason is not None:
        result["reason"] = f"{result.get('step', 'start')}: {reason}"
    result["passed"] = result.get("step") == "done"
    result["duration_secs"] = round(time.monotonic() - start, 1)
    return result


def read_results(path: pathlib.Path) -> dict[tuple[str, bool], dict[str, Any]]:
    """The last result of each network in a file; none where there is no file."""
    lines = path.read_text().splitlines() if path.exists() else []
    results = [json.loads(line) for line in lines]
    return {(result["name"], result["top"]): result for result in results}


def cells(result: dict[str, Any]) -> list[str]:
    """The row of a network."""

    def number(key: str) -> str:
        return f"{result[key]:,}" if key in result else "-"

    ratio = f"{100 * result['ratio']:.0f} %" if "ratio" in result else "-"
    return [
        result["name"] + ("" if result["top"] else " without top"),
        number("num_params"),
        number("layers"),
        number("groups"),
        number("removable"),
        number("skip_pairs"),
        ratio,
        "pass" if result["passed"] else result["reason"].replace("|", "\\|"),
    ]


def total(results: Sequence[dict[str, Any]]) -> str:
    """The last line of the table."""
    return f"{sum(result['passed'] for result in results)} of {len(results)} pass."


def document(results: Sequence[dict[str, Any]]) -> str:
    """The table of all results as Markdown."""
    import keras
    import tensorflow as tf

    heads = (
        "model|parameters|layers|channel groups|removable layers|skip pairs|random student|result"
    )
    rows = [heads.split("|"), ["---", *["--:"] * 6, "---"], *map(cells, results)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"""# Supported models

Every network of `keras.applications`, tried with `tools/supported_models.py` on
TensorFlow {tf.__version__} and Keras {keras.__version__}: random weights, logits of {NUM_CLASSES}
classes, small pictures, `channel_groups="dependency"`. Channel groups are those that can shrink;
the random student's size is its share of the network's parameters.

A network passes if the student with no action gives its outputs, and a random student of about
half its parameters is as large as foretold, runs, trains, and gives the same after saving and
loading, and as a SavedModel.

{table}

{total(results)}
"""


# The child.


def run_child(name: str, top: bool, memory_gib: float) -> int:
    """Examines a network and tells the results on stdout, a JSON object a line; the exit code."""
    limit = int(memory_gib * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))

    def report(**values: Any) -> None:
        print(json.dumps(values), flush=True)

    try:
        report(step="building the network")
        with tempfile.TemporaryDirectory() as folder:
            examine(randomized(small_network(constructors()[name], top)), folder, report)
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        print(f"{type(error).__name__}: {lines[0][:300]}", file=sys.stderr)
        return 1
    return 0


def small_network(constructor: Callable[..., Any], top: bool) -> Any:
    """A network with random weights, for the smallest pictures of `SIDES` that it takes."""
    settings: dict[str, Any] = {"weights": None, "include_top": top}
    if top:  # logits, as a softmax of random weights hides differences
        settings.update(classes=NUM_CLASSES, classifier_activation=None)
    failure: ValueError | None = None
    for side in SIDES:
        try:
            return constructor(input_shape=(side, side, 3), **settings)
        except ValueError as error:
            failure = error
    raise failure or ValueError("no side")


def randomized(model: Any) -> Any:
    """The model with random scales and shifts, and statistics near to those of its activations.

    Untrained networks have scales of 1 and shifts of 0, so a mistake with them would not show;
    and outputs would vanish or explode if the statistics were random.
    """
    import keras
    import numpy as np

    generator = np.random.default_rng(0)
    for weight in model.weights:
        name = weight.path.rsplit("/", 1)[-1]
        if name in ("gamma", "beta", "bias"):
            center, spread = (1.0, 0.5) if name == "gamma" else (0.0, 0.1)
            weight.assign(generator.uniform(center - spread, center + spread, weight.shape))
    norms = [layer for layer in layers_of(model) if hasattr(layer, "moving_variance")]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    keras.utils.set_random_seed(0)
    model(pictures_for(model), training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.moving_variance.assign(
            norm.moving_variance * generator.uniform(0.8, 1.25, norm.moving_variance.shape)
        )
    return model


def layers_of(model: Any) -> Iterator[Any]:
    """The layers of a model, those of nested models included."""
    for layer in model.layers:
        yield layer
        if hasattr(layer, "layers"):
            yield from layers_of(layer)


def pictures_for(model: Any) -> Any:
    """Random pictures with values from 0 to 255."""
    import numpy as np

    shape = (NUM_PICTURES, *model.input_shape[1:])
    return np.random.default_rng(1).uniform(0, 255, shape).astype("float32")


def examine(teacher: Any, folder: str, report: Report) -> None:
    """Does with a model all that this project does but for the search.

    Args:
        teacher: A model with one input and one output.
        folder: A folder to write in.
        report: Is told what is found, and as `step` what is done next; "done" at the end.

    Raises:
        AssertionError: Something is not as it should be. Other exceptions are failures, too.
    """
    import keras
    import numpy as np
    import tensorflow as tf

    from esnac_tf import exporters
    from esnac_tf.architecture import ActionSet
    from esnac_tf.graph.cost import count_params
    from esnac_tf.graph.teacher import analyse
    from esnac_tf.graph.widths import ParameterTable
    from esnac_tf.search_space.space import SearchSpace
    from esnac_tf.student import StudentBuilder

    pictures = pictures_for(teacher)

    def outputs_of(model: Any) -> Any:
        return np.asarray(model(pictures, training=False))

    report(step="reading the graph")
    graph = analyse(teacher, "dependency")
    num_params = count_params(teacher)
    report(
        num_params=num_params,
        layers=len(graph.architecture.layers),
        groups=len(graph.width_groups),
        removable=len(graph.removals),
        skip_pairs=len(graph.skip_pairs),
    )

    report(step="no action")
    builder = StudentBuilder(teacher, graph)
    expected = outputs_of(teacher)
    assert np.isfinite(expected).all(), "the network's outputs are not finite"
    assert np.ptp(expected, axis=0).any(), "the network's outputs are the same for all pictures"
    difference = relative_difference(expected, outputs_of(builder.build(ActionSet())))
    report(difference=difference)
    assert difference <= COPY_TOLERANCE, f"outputs differ by {difference:.1e}"

    report(step="drawing a student")
    table, foretold, actions = ParameterTable(graph, teacher), num_params, ActionSet()
    for max_shrinkage in (1.0, 0.5, 0.25):
        space = SearchSpace(graph, max_shrinkage)
        candidates = space.sample(NUM_CANDIDATES, np.random.default_rng(0))
        counts = table.count(candidates.removed, candidates.widths)
        best = int(np.argmin(abs(counts / num_params - 0.5)))
        if abs(counts[best] / num_params - 0.5) < abs(foretold / num_params - 0.5):
            foretold, actions = int(counts[best]), space.to_actions(candidates)[best]
    report(ratio=foretold / num_params, actions=actions.to_json())

    report(step="building the student")
    student = builder.build(actions)
    found = count_params(student)
    assert found == foretold, f"{found:,} parameters, foretold {foretold:,}"

    report(step="running the student")
    outputs = outputs_of(student)
    assert outputs.shape == expected.shape, f"shape {outputs.shape}, not {expected.shape}"
    assert np.isfinite(outputs).all(), "outputs are not finite"

    report(step="training the student")
    student.compile(keras.optimizers.SGD(1e-6), "mse", run_eagerly=True)
    loss = float(student.train_on_batch(pictures, np.zeros_like(outputs)))
    assert np.isfinite(loss), f"the loss is {loss}"
    outputs = outputs_of(student)

    report(step="saving and loading")
    path = os.path.join(folder, "student.keras")
    student.save(path)
    loaded = keras.saving.load_model(path, compile=False)
    difference = relative_difference(outputs, outputs_of(loaded))
    assert difference <= COPY_TOLERANCE, f"outputs differ by {difference:.1e}"

    report(step="exporting")
    exported = exporters.get("saved_model").export(student, pathlib.Path(folder) / "student")
    served = tf.saved_model.load(str(exported))
    difference = relative_difference(outputs, np.asarray(served.serve(pictures)))
    report(export_difference=difference)
    assert difference <= EXPORT_TOLERANCE, f"outputs differ by {difference:.1e}"
    report(step="done")


def relative_difference(expected: Any, received: Any) -> float:
    """The largest difference as a share of the largest value."""
    import numpy as np

    return float(np.abs(expected - received).max() / max(float(np.abs(expected).max()), 1e-30))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
