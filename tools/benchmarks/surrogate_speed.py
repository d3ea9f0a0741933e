"""The surrogate against the floor: the time that its matrix products alone would take here."""

from __future__ import annotations

import collections
import resource
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks import torch_lstm
from benchmarks.machine import OPERATIONS, lstm_operations, matrix_products
from benchmarks.timing import Finding, alternate, ratio
from esnac_tf import teachers
from esnac_tf.encoding import NUM_FEATURES, Encoder
from esnac_tf.graph.teacher import analyse
from esnac_tf.graph.widths import ParameterTable
from esnac_tf.search_space.space import SearchSpace
from esnac_tf.strategies.esnac import CHUNK_SIZE
from esnac_tf.surrogate import Surrogate, SurrogateConfig
from esnac_tf.surrogate.gaussian_process import leave_one_out_log_likelihood

# A step of training takes the products of a forward pass three times.
_PASSES = 3
TEACHER = "resnet34"


def space_of(teacher: str = TEACHER) -> SearchSpace:
    """The search space of a built-in teacher for CIFAR-10."""
    return SearchSpace(analyse(teachers.build(teacher, (32, 32, 3), 10)))


def encodings_of(space: SearchSpace, encoder: Encoder, count: int, seed: int = 0) -> Any:
    """The encodings [M, T, C] of random students."""
    candidates = space.sample(count, np.random.default_rng(seed))
    return encoder.encode(candidates.removed, candidates.widths, candidates.skips)


def fit_step(size: str) -> Iterator[Finding]:
    """One gradient step of 8 kernels on 80 trials against the floor, and against PyTorch."""
    num_trials, rounds, steps = 80, (7 if size == "full" else 3), 3
    config = SurrogateConfig(max_steps=steps, tolerance=0.0, subset_probability=1.0)
    space = space_of()
    encoder = Encoder(space.graph, only_used=True)
    encodings = encodings_of(space, encoder, num_trials)
    objectives = np.random.default_rng(0).random(num_trials)
    surrogate = Surrogate(NUM_FEATURES, config, columns=encoder.columns)
    operations = _PASSES * config.num_kernels * _operations(config, encodings)
    functions = {
        "products": matrix_products(),
        "fit": lambda: surrogate.fit(encodings, objectives, seed=0),
        "condition": lambda: surrogate.condition(encodings, objectives, seed=0),
    }
    with_torch = torch_lstm.gradient_step(
        {
            "num_kernels": config.num_kernels,
            "num_sequences": num_trials,
            "length": encodings.shape[1],
            "num_features": NUM_FEATURES,
            "num_layers": config.num_layers,
            "hidden_size": config.hidden_size,
        }
    )
    if with_torch is not None:
        functions["torch"] = with_torch
    secs = alternate(functions, rounds)
    floor = np.array(secs["products"]) * operations / OPERATIONS
    step = (np.array(secs["fit"]) - np.array(secs["condition"])) / steps
    rate = OPERATIONS / np.median(secs["products"]) / 1e9
    detail = f"{operations / 1e9:.0f} GFLOP at {rate:.0f} GFLOP/s"
    yield ratio("a gradient step of all kernels / its products", step, floor, 2.0, detail=detail)
    if with_torch is not None:
        yield ratio("the same / PyTorch nn.LSTM", step, secs["torch"], 1.0)


def whole_fit(size: str) -> Iterator[Finding]:
    """A warm fit in the tenth step of a search against 100 steps from scratch.

    Objectives are made up: parameters as they are, and an accuracy that falls with what is taken
    and differs from student to student. Held out are students that neither surrogate saw.
    """
    teacher = TEACHER if size == "full" else "resnet18(width=16)"
    model = teachers.build(teacher, (32, 32, 3), 10)
    graph = analyse(model)
    space = SearchSpace(graph)
    encoder = Encoder(graph, only_used=True)
    generator = np.random.default_rng(0)
    students = space.sample(160, generator)
    encodings = encoder.encode(students.removed, students.widths, students.skips)
    saved = 1 - ParameterTable(graph, model).count(students.removed, students.widths) / (
        model.count_params()
    )
    widths = students.widths / space.teacher().widths
    taken = students.removed.mean(axis=1) + 0.3 * (1 - widths).mean(axis=1) ** 2
    accuracy = 1 - taken + 0.05 * generator.normal(size=len(students))
    objectives = saved * (2 - saved) * np.clip(accuracy, 0.1, 1)
    known, step = 80, 8

    scratch = Surrogate(NUM_FEATURES, SurrogateConfig(tolerance=0.0), columns=encoder.columns)
    warm = Surrogate(NUM_FEATURES, SurrogateConfig(warm_steps=4), columns=encoder.columns)
    for number in range(step, known, step):
        warm.fit(encodings[:number], objectives[:number], number, warm_start=number > step)
    start = time.perf_counter()
    warm.fit(encodings[:known], objectives[:known], known, warm_start=True)
    middle = time.perf_counter()
    scratch.fit(encodings[:known], objectives[:known], known)
    secs = middle - start, time.perf_counter() - middle
    yield ratio("a fit from scratch / a warm one", secs[1:], secs[:1], 10.0, at_least=True)

    def likelihood(surrogate: Surrogate) -> float:
        predictive = surrogate.predict(encodings[known:])
        variance = predictive.variance() + surrogate.config.observation_noise_variance
        error = (objectives[known:] - predictive.mean()) ** 2
        return float(-0.5 * np.mean(np.log(2 * np.pi * variance) + error / variance))

    gain = likelihood(warm) - likelihood(scratch)
    detail = f"{likelihood(warm):.3f} against {likelihood(scratch):.3f}"
    name = "log likelihood of students not seen, warm minus from scratch"
    yield Finding(name, gain, "nats", limit=0.0, at_least=True, detail=detail)


def scoring(size: str) -> Iterator[Finding]:
    """Scoring 8 x 1,000 candidates against the products of their forward pass."""
    num_candidates, rounds = (1000, 5) if size == "full" else (256, 3)
    config = SurrogateConfig()
    space = space_of()
    encoder = Encoder(space.graph, only_used=True)
    surrogate = Surrogate(NUM_FEATURES, config, columns=encoder.columns)
    trials = encodings_of(space, encoder, 80)
    surrogate.condition(trials, np.random.default_rng(0).random(80), seed=0)
    generator = np.random.default_rng(1)

    def draw() -> Iterator[Any]:
        """Encodings of candidates in the chunks in which the search scores them."""
        pools = [space.sample(num_candidates, generator) for _ in range(config.num_kernels)]
        for start in range(0, num_candidates, CHUNK_SIZE):
            parts = [pool[start : start + CHUNK_SIZE] for pool in pools]
            yield np.stack([encoder.encode(p.removed, p.widths, p.skips) for p in parts])

    def predict() -> None:
        for chunk in chunks:
            surrogate.predict(chunk).mean().numpy()

    chunks = list(draw())
    operations = sum(_operations(config, pool) for chunk in chunks for pool in chunk)
    secs = alternate(
        {
            "products": matrix_products(),
            "draw": lambda: collections.deque(draw(), maxlen=0),
            "predict": predict,
        },
        rounds,
    )
    floor = np.array(secs["products"]) * operations / OPERATIONS
    detail = f"8 x {num_candidates} candidates, {operations / 1e9:.0f} GFLOP"
    yield ratio("scoring / its products", secs["predict"], floor, 1.5, detail=detail)
    yield ratio("sampling and encoding / scoring", secs["draw"], secs["predict"], 0.05)


def tracing(size: str) -> Iterator[Finding]:
    """What is traced in the first step of a search, and after."""
    space = space_of()
    encoder = Encoder(space.graph, only_used=True)
    config = SurrogateConfig(max_steps=2, tolerance=0.0)
    numbers = (9, 17, 41, 81, 161) if size == "full" else (9, 17, 41)
    surrogate = Surrogate(NUM_FEATURES, config, columns=encoder.columns)
    secs, traces = [], []
    for number in (numbers[0], *numbers):
        encodings = encodings_of(space, encoder, number)
        objectives = np.random.default_rng(number).random(number)
        start = time.perf_counter()
        surrogate.fit(encodings, objectives, seed=number)
        surrogate.predict(np.stack([encodings] * config.num_kernels))
        secs.append(time.perf_counter() - start)
        traces.append(surrogate.num_traces)
    yield Finding("tracing in the first step", secs[0] - secs[1], "s", limit=10.0)
    more = traces[-1] - traces[0]
    yield Finding(f"traces after it, up to {numbers[-1]} trials", more, "", limit=0)


def growth(size: str) -> Iterator[Finding]:
    """Seconds and memory over numbers of trials N, layers T and kernels K."""
    base = {"N": 80, "T": 108, "K": 8}
    table = {"N": (20, 80, 320, 1280), "T": (46, 108, 415, 1041), "K": (1, 8, 32)}
    if size == "small":
        table = {"N": (20, 80), "T": (46, 108), "K": (1, 4)}
        base = {"N": 20, "T": 46, "K": 2}
    for letter, values in table.items():
        for value in values:
            sizes = {**base, letter: value}
            named = ", ".join(f"{name} = {number}" for name, number in sizes.items())
            for what, secs in _growth_secs(*sizes.values()).items():
                yield Finding(f"{named}: {what}", secs, "s")
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            yield Finding(f"{named}: peak memory so far", peak, "GiB")


def _growth_secs(num_trials: int, length: int, num_kernels: int) -> dict[str, float]:
    """Seconds of a gradient step, of what of it is algebra, and of scoring 128 candidates."""
    generator = np.random.default_rng(0)
    encodings = (generator.random((num_trials, length, 98)) < 0.04).astype(np.float32)
    objectives = generator.random(num_trials)
    config = SurrogateConfig(num_kernels=num_kernels, max_steps=2, tolerance=0.0)
    surrogate = Surrogate(98, config)
    chosen = int(num_trials * config.subset_probability)
    points = tf.constant(generator.normal(size=(num_kernels, chosen, 128)))

    @tf.function
    def algebra() -> Any:
        with tf.GradientTape() as tape:
            tape.watch(points)
            matrix = surrogate.kernel.on_embeddings().matrix(points, points)
            likelihood = leave_one_out_log_likelihood(matrix, objectives[:chosen])
        return tape.gradient(likelihood, points)

    some = np.stack([encodings[generator.integers(num_trials, size=128)]] * num_kernels)
    secs = alternate(
        {
            "fit": lambda: surrogate.fit(encodings, objectives, seed=0),
            "condition": lambda: surrogate.condition(encodings, objectives, seed=0),
            "algebra": lambda: algebra().numpy(),
            "predict": lambda: surrogate.predict(some).mean().numpy(),
        },
        rounds=1,
    )
    return {
        "gradient step": (secs["fit"][0] - secs["condition"][0]) / 2,
        "algebra of it": secs["algebra"][0],
        "scoring 128 candidates for each kernel": secs["predict"][0],
    }


def _operations(config: SurrogateConfig, encodings: Any) -> int:
    """Of a forward pass of one kernel, with all features as the published method has them."""
    number, length, _ = encodings.shape
    return lstm_operations(number, length, NUM_FEATURES, config.num_layers, config.hidden_size)
