"""The surrogate against the floor: the time that its matrix products alone would take here."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.machine import OPERATIONS, lstm_operations, matrix_products
from benchmarks.timing import Finding, alternate, ratio
from esnac_tf import teachers
from esnac_tf.encoding import NUM_FEATURES, Encoder
from esnac_tf.graph.teacher import analyse
from esnac_tf.search_space.space import SearchSpace
from esnac_tf.surrogate import Surrogate, SurrogateConfig

# A step of training takes the products of a forward pass three times.
_PASSES = 3
TEACHER = "resnet34"


def space_of(teacher: str = TEACHER) -> SearchSpace:
    """The search space of a built-in teacher for CIFAR-10."""
    return SearchSpace(analyse(teachers.build(teacher, (32, 32, 3), 10)))


def encodings_of(space: SearchSpace, count: int, seed: int = 0) -> Any:
    """The encodings [M, T, F] of random students."""
    candidates = space.sample(count, np.random.default_rng(seed))
    return Encoder(space.graph).encode(candidates.removed, candidates.widths, candidates.skips)


def fit_step(size: str) -> Iterator[Finding]:
    """One gradient step of 8 kernels on 80 trials against the floor, and against PyTorch."""
    num_trials, rounds, steps = 80, (5 if size == "full" else 3), 4
    config = SurrogateConfig(max_steps=steps, tolerance=0.0, subset_probability=1.0)
    encodings = encodings_of(space_of(), num_trials)
    objectives = np.random.default_rng(0).random(num_trials)
    surrogate = Surrogate(NUM_FEATURES, config)
    operations = _PASSES * config.num_kernels * _operations(config, encodings)
    functions = {
        "products": matrix_products(),
        "fit": lambda: surrogate.fit(encodings, objectives, seed=0),
        "condition": lambda: surrogate.condition(encodings, objectives, seed=0),
    }
    with_torch = _torch_step(config, encodings)
    if with_torch is not None:
        functions["torch"] = with_torch
    secs = alternate(functions, rounds)
    floor = np.array(secs["products"]) * operations / OPERATIONS
    step = (np.array(secs["fit"]) - np.array(secs["condition"])) / steps
    rate = OPERATIONS / np.median(secs["products"]) / 1e9
    detail = f"{operations / 1e9:.0f} GFLOP, {rate:.0f} GFLOP/s"
    yield ratio("a gradient step of all kernels / its products", step, floor, 2.0, detail=detail)
    if with_torch is not None:
        yield ratio("the same / PyTorch nn.LSTM", step, secs["torch"], 1.0)


def scoring(size: str) -> Iterator[Finding]:
    """Scoring 8 x 1,000 candidates against the products of their forward pass."""
    num_candidates, rounds = (1000 if size == "full" else 128), 3
    config = SurrogateConfig()
    space = space_of()
    encoder = Encoder(space.graph)
    surrogate = Surrogate(NUM_FEATURES, config)
    surrogate.condition(encodings_of(space, 80), np.random.default_rng(0).random(80), seed=0)
    generator = np.random.default_rng(1)

    def draw() -> Any:
        pools = [space.sample(num_candidates, generator) for _ in range(config.num_kernels)]
        return np.stack([encoder.encode(p.removed, p.widths, p.skips) for p in pools])

    candidates = draw()
    operations = config.num_kernels * _operations(config, candidates[0])
    secs = alternate(
        {
            "products": matrix_products(),
            "draw": draw,
            "predict": lambda: surrogate.predict(candidates).mean().numpy(),
        },
        rounds,
    )
    floor = np.array(secs["products"]) * operations / OPERATIONS
    detail = f"8 x {num_candidates} candidates, {operations / 1e9:.0f} GFLOP"
    yield ratio("scoring / its products", secs["predict"], floor, 1.5, detail=detail)
    yield ratio("sampling and encoding / scoring", secs["draw"], secs["predict"], 0.05)


def tracing(size: str) -> Iterator[Finding]:
    """What is traced and compiled in the first step, and after."""
    space = space_of()
    config = SurrogateConfig(max_steps=2, tolerance=0.0)
    surrogate = Surrogate(NUM_FEATURES, config)
    steps = (9, 17, 41, 81, 161) if size == "full" else (9, 17, 41)
    first, traces = 0.0, []
    for number in steps:
        encodings = encodings_of(space, number)
        objectives = np.random.default_rng(number).random(number)
        start = time.perf_counter()
        surrogate.fit(encodings, objectives, seed=number)
        surrogate.predict(encodings_of(space, 64))
        if not traces:
            first = time.perf_counter() - start
        traces.append(surrogate.num_traces)
    again = Surrogate(NUM_FEATURES, config)
    del again
    yield Finding("the first search step, compiling included", first, "s", limit=10.0)
    more = traces[-1] - traces[0]
    yield Finding(f"traces after it, up to {steps[-1]} trials", more, "", limit=0)


def growth(size: str) -> Iterator[Finding]:
    """Seconds and memory over numbers of trials, layers and kernels."""
    base = {"N": 80, "T": 108, "K": 8}
    table = {"N": (20, 80, 320, 1280), "T": (46, 108, 415, 1041), "K": (1, 8, 32)}
    if size == "small":
        table = {"N": (20, 80), "T": (46, 108), "K": (1, 4)}
        base = {"N": 20, "T": 46, "K": 2}
    for letter, values in table.items():
        for value in values:
            sizes = {**base, letter: value}
            secs, steps = _one_size(**sizes), 2
            named = ", ".join(f"{name} = {number}" for name, number in sizes.items())
            for what, measured in secs.items():
                yield Finding(f"{what}, {named}", measured, "s")
            del steps
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    yield Finding("peak memory of all of it", peak, "GiB")


def _one_size(N: int, T: int, K: int) -> dict[str, float]:
    """Seconds of a gradient step and of predicting 64 candidates, compiled before."""
    generator = np.random.default_rng(0)
    encodings = (generator.random((N, T, NUM_FEATURES)) < 0.03).astype(np.float32)
    objectives = generator.random(N)
    surrogate = Surrogate(NUM_FEATURES, SurrogateConfig(num_kernels=K, max_steps=2, tolerance=0.0))
    secs = alternate(
        {
            "fit": lambda: surrogate.fit(encodings, objectives, seed=0),
            "condition": lambda: surrogate.condition(encodings, objectives, seed=0),
            "predict": lambda: surrogate.predict(encodings[:20]).mean().numpy(),
        },
        rounds=1,
    )
    return {
        "gradient step": (secs["fit"][0] - secs["condition"][0]) / 2,
        "embedding of all trials": secs["condition"][0],
        "prediction of 20 candidates": secs["predict"][0],
    }


def _operations(config: SurrogateConfig, encodings: Any) -> int:
    return lstm_operations(*encodings.shape, config.num_layers, config.hidden_size)


def _torch_step(config: SurrogateConfig, encodings: Any) -> Any:
    """A gradient step of the same networks in PyTorch; None if it is not installed."""
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(tf.config.threading.get_intra_op_parallelism_threads() or 0 or _cores())
    batch = torch.from_numpy(encodings)
    networks = [
        torch.nn.LSTM(
            encodings.shape[-1],
            config.hidden_size,
            config.num_layers,
            batch_first=True,
            bidirectional=True,
        )
        for _ in range(config.num_kernels)
    ]
    optimizers = [torch.optim.Adam(network.parameters()) for network in networks]

    def step() -> None:
        for network, optimizer in zip(networks, optimizers, strict=True):
            optimizer.zero_grad()
            outputs, _ = network(batch)
            embedded = torch.nn.functional.normalize(outputs.mean(dim=1), dim=-1)
            distances = torch.cdist(embedded, embedded)
            torch.exp(-50 * distances**2).mean().backward()
            optimizer.step()

    return step


def _cores() -> int:
    import os

    return len(os.sched_getaffinity(0))
