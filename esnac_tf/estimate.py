"""What a search would be and cost, before it starts: the dry run."""

from __future__ import annotations

import time

import keras
import numpy as np

from esnac_tf.config import SearchConfig
from esnac_tf.distillation.successive_halving import student_epochs
from esnac_tf.distillation.training import Batches
from esnac_tf.graph.checks import check_classifier, check_examples, check_searchable
from esnac_tf.graph.cost import count_flops, count_params
from esnac_tf.graph.teacher import analyse
from esnac_tf.graph.widths import ParameterTable
from esnac_tf.quantities import count, duration, operations
from esnac_tf.search_setup import search_space
from esnac_tf.student import StudentBuilder

# A training step takes a forward pass and a backward pass of about twice its work.
_PASSES_OF_A_STEP = 3
# How many random students are built to learn what a student costs.
_NUM_BUILT = 4


def describe_search(
    model: keras.Model, config: SearchConfig, batches: Batches, teacher_epochs: int = 0
) -> list[str]:
    """Describes teacher, search space and cost of a search.

    The cost counts multiply-adds: the teacher's forward pass, and three times the mean forward
    pass of a few random students, which are built for it. The least time assumes the rate
    of the teacher's forward pass, measured here on one batch. It is not the time of the search: it
    leaves out the surrogate, building and compiling, and all that a step does beside arithmetic,
    which is most of the time for small models.

    Args:
        model: The teacher.
        config: The settings.
        batches: The training data.
        teacher_epochs: Epochs for which the teacher is trained first; 0 if it is trained.

    Returns:
        Lines to print.

    Raises:
        UserError: The model can't be searched, or the data does not fit it.
    """
    check_classifier(model)
    graph = analyse(model, config.channel_groups, config.protect)
    check_searchable(graph)
    check_examples(model, batches.epoch(0), "training")
    space = search_space(graph, model, config)
    num_params, flops = count_params(model), count_flops(model)
    num_edges = sum(len(node.predecessors) for node in graph.nodes)
    sample = space.sample(1000, np.random.default_rng(config.seed))
    sizes = ParameterTable(graph, model).count(sample.removed, sample.widths)
    low, median, high = np.percentile(1 - sizes / num_params, [10, 50, 90])
    groups = ", ".join(f"{group.name}: {group.width}" for group in graph.width_groups)
    lines = [
        f"Teacher {model.name}: {len(graph.nodes)} layers, {num_edges} edges, "
        f"{count(num_params)} parameters, {operations(flops)}FLOPs.",
        f"Removable layers: {len(graph.removals)}. "
        f"Possible skip connections: {len(graph.skip_pairs)}.",
        f"Channel groups and widths: {groups or 'none'}.",
        f"Search space: at most 10^{space.log10_size:.0f} students. Random students have "
        f"{1 - median:.1%} of the teacher's parameters (80 % of them {1 - high:.1%} to "
        f"{1 - low:.1%}).",
    ]
    x, *_ = next(iter(batches.epoch(0)))
    examples = int(x.shape[0])
    num_batches = getattr(batches, "num_batches", None)
    if not num_batches:
        return [*lines, "Cost: not known, as the number of batches is not."]
    builder = StudentBuilder(model, graph, config.channel_importance)
    students = [builder.build(actions) for actions in space.to_actions(sample[:_NUM_BUILT])]
    student = float(np.mean([count_flops(built) for built in students])) * _PASSES_OF_A_STEP
    per_epoch = num_batches * examples
    epochs = student_epochs(config.num_kernels, config.search_epochs, config.halving_factor)
    # The teacher computes each epoch once at least.
    search_work = (config.num_steps * epochs * student + config.search_epochs * flops) * per_epoch
    teacher_passes = 0 if config.full_loss == "cross_entropy" else flops
    full_work = config.full_epochs * per_epoch * (config.num_best * student + teacher_passes)
    secs_per_operation = _forward_secs(model, x) / (examples * flops)
    if teacher_epochs:
        teacher_work = teacher_epochs * per_epoch * flops * _PASSES_OF_A_STEP
        lines.append(
            f"Training of the teacher, if none is kept: {teacher_work:.1e} multiply-adds, "
            f"{_least(teacher_work * secs_per_operation)}."
        )
    return [
        *lines,
        f"Search: {config.num_steps * config.num_kernels} students, "
        f"{search_work:.1e} multiply-adds, {_least(search_work * secs_per_operation)}.",
        f"Full training: {config.num_best} students, {full_work:.1e} multiply-adds, "
        f"{_least(full_work * secs_per_operation)}.",
        "This is not the time that it will take, but the least: bare arithmetic at the rate of the "
        "teacher's forward pass here. Building and compiling students (seconds each), the "
        "surrogate and each step's overhead come on top; small models take many times as long.",
    ]


def _least(secs: float) -> str:
    return f"at least about {duration(secs)}"


def _forward_secs(model: keras.Model, x: np.ndarray) -> float:
    """Seconds of a forward pass of a batch: the better of two after one that compiles."""
    model.predict_on_batch(x)
    times = []
    for _ in range(2):
        start = time.perf_counter()
        model.predict_on_batch(x)
        times.append(time.perf_counter() - start)
    return min(times)
