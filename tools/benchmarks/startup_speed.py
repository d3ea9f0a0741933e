"""What a user waits for before a search begins."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import keras

from benchmarks.timing import Finding, alternate, ratio
from esnac_tf.graph.teacher import analyse
from esnac_tf.student import StudentBuilder


def commands(size: str) -> Iterator[Finding]:
    """--help as a whole process, beside a Python that imports NumPy alone."""

    def run(*arguments: str) -> None:
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)

    secs = alternate(
        {
            "help": lambda: run("-m", "esnac_tf.search", "--help"),
            "numpy": lambda: run("-c", "import numpy"),
        },
        rounds=9 if size == "full" else 5,
    )
    ordered = sorted(secs["help"])
    yield Finding("--help", ordered[len(ordered) // 2], "s", limit=0.7)
    yield ratio("--help / importing NumPy", secs["help"], secs["numpy"])


def large_models(size: str) -> Iterator[Finding]:
    """Reading a large model, and building a student, against Keras's copy of the model."""
    name = "EfficientNetV2L" if size == "full" else "MobileNetV2"
    model = getattr(keras.applications, name)(weights=None)
    graph = analyse(model)
    builder = StudentBuilder(model, graph)

    secs = alternate(
        {
            "clone": lambda: keras.models.clone_model(model),
            "parse": lambda: analyse(model),
            "build": builder.teacher,
        },
        rounds=3,
    )
    detail = f"{name}, {len(graph.nodes)} nodes"
    yield ratio("reading a model / clone_model", secs["parse"], secs["clone"], 2.0, detail=detail)
    yield ratio("building a student / clone_model", secs["build"], secs["clone"], 1.5)
