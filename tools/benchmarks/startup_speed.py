"""What a user waits for before a search begins."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Iterator

import keras
import numpy as np

from benchmarks.cifar10 import DATA_DIR, cifar10_flags
from benchmarks.timing import Finding, alternate, ratio
from esnac_tf.graph.teacher import analyse
from esnac_tf.search_space.space import SearchSpace
from esnac_tf.student import StudentBuilder


def commands(size: str) -> Iterator[Finding]:
    """--help as a whole process, beside a Python that imports NumPy alone."""
    secs = alternate(
        {
            "help": lambda: _run("-m", "esnac_tf.search", "--help"),
            "numpy": lambda: _run("-c", "import numpy"),
        },
        rounds=9 if size == "full" else 5,
    )
    yield Finding("--help", statistics.median(secs["help"]), "s", limit=0.7)
    yield ratio("--help / importing NumPy", secs["help"], secs["numpy"])


def dry_run(size: str) -> Iterator[Finding]:
    """--dry_run of a search of ResNet-18 as a whole process.

    On CIFAR-10 if $ESNAC_TF_CIFAR10_DIR names the folder that holds it, else on the digits, which
    are far less data; then there is no bar.
    """
    cifar10 = cifar10_flags()
    flags = [*(cifar10 or ["--dataset=digits"]), "--teacher=resnet18", "--dry_run"]
    secs = alternate(
        {"search": lambda: _run("-m", "esnac_tf.search", *flags)},
        rounds=7 if size == "full" else 3,
    )
    yield Finding(
        "--dry_run of resnet18",
        statistics.median(secs["search"]),
        "s",
        limit=15.0 if cifar10 else None,
        detail="CIFAR-10" if cifar10 else f"digits, as {DATA_DIR} is not set",
    )


def large_models(size: str) -> Iterator[Finding]:
    """Reading a large model, and building a student, against Keras's copy of the model."""
    for name in ("EfficientNetV2L", "NASNetLarge") if size == "full" else ("MobileNetV2",):
        yield from _against_clone(name)


def _against_clone(name: str) -> Iterator[Finding]:
    model = getattr(keras.applications, name)(weights=None)
    graph = analyse(model)
    builder = StudentBuilder(model, graph)
    # The most of a model that a student of no special kind keeps: all layers, channels gone.
    space = SearchSpace(graph, max_shrinkage=0.25, removal_probabilities=(0.0,))
    [actions] = space.to_actions(space.sample(1, np.random.default_rng(0)))

    secs = alternate(
        {
            "clone": lambda: keras.models.clone_model(model),
            "parse": lambda: analyse(model),
            "build": lambda: builder.build(actions),
        },
        rounds=3,
    )
    detail = f"{name}, {len(graph.nodes)} nodes"
    parse, build, clone = secs["parse"], secs["build"], secs["clone"]
    yield ratio("reading a model / clone_model", parse, clone, 2.0, detail=detail)
    yield ratio("building a student / clone_model", build, clone, 1.5, detail=detail)


def _run(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
