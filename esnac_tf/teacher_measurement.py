"""What the teacher is worth: measured once, kept in the run folder."""

from __future__ import annotations

import math

import keras
import tensorflow as tf

from esnac_tf.datasets.digests import data_digest, digest_of
from esnac_tf.display import Display
from esnac_tf.distillation import evaluate
from esnac_tf.distillation.training import Batches
from esnac_tf.errors import UserError
from esnac_tf.graph.cost import count_flops, count_params
from esnac_tf.objectives import Measurement
from esnac_tf.purpose import Purpose
from esnac_tf.quantities import count, metric_value
from esnac_tf.record import RunFolder
from esnac_tf.resuming import check_teacher


def measure_teacher(
    teacher: keras.Model,
    purpose: Purpose,
    batches: Batches,
    validation: tf.data.Dataset,
    distribution: tf.distribute.Strategy,
    run: RunFolder,
    display: Display,
) -> Measurement:
    """What is measured of the teacher; read from the run folder if it is there.

    Args:
        teacher: The teacher, built under the strategy's scope.
        purpose: What it is for.
        batches: Training data.
        validation: Held-out data, as `given_evaluation_batches` gives it.
        distribution: The strategy.
        run: The run folder: it remembers the figures, and what teacher and data they are of.
        display: Where the figures are told.

    Raises:
        UserError: The run folder holds a search with another teacher or other data, or the
            teacher's metric is not above 0, or not finite.
    """
    metric = purpose.task.metric
    recorded = run.teacher()
    digests = {
        "weights_sha256": digest_of(teacher.get_weights()),
        "data_sha256": data_digest(batches, validation),
    }
    check_teacher(run.path, digests)
    value = (recorded or {}).get(f"validation_{metric.name}")
    if not isinstance(value, (int, float)):  # not there, or changed by somebody
        [value] = evaluate([teacher], validation, distribution, purpose.task)
    num_params, flops = count_params(teacher), count_flops(teacher)
    measured = {
        "num_params": num_params,
        "flops": flops,
        "metric": metric.name,
        f"validation_{metric.name}": value,
        **digests,
    }
    if measured != recorded:
        run.write_teacher(measured)
    if not 0 < value < math.inf:
        raise UserError(
            f"The teacher {teacher.name!r} has the {metric.name} {value:g} on the held-out data, "
            f"with which no student can be compared.\n{_advice(value, purpose)}"
        )
    display.message(
        f"Teacher {teacher.name}: {count(num_params)} parameters, "
        f"validation {metric.name} {metric_value(metric.name, value)}."
    )
    if is_chance(value, purpose):
        display.warning(
            "That is hardly better than chance. Is the teacher trained, and on data in these "
            "units (see --input_scale)?"
        )
    return Measurement(num_params, flops, metric.quality(value))


def _advice(value: float, purpose: Purpose) -> str:
    """What may have made the teacher's metric a value that compares nothing."""
    told = "Give a trained model, and data in the units that it was trained on."
    if not math.isfinite(value):
        told += " Look for NaN among the labels, too."
    if purpose.settings["metric"] != "auto" or (value <= 0 and not purpose.task.is_classifier):
        name = purpose.task.metric.name
        told += f" Or the metric {name} does not fit the model: give one that is above 0."
    return told


def is_chance(value: float, purpose: Purpose) -> bool:
    """Whether an accuracy is hardly better than that of guessing, 1 / C.

    Hardly better: by less than a half of it, and by less than a tenth of what is missing to 1.
    Of other metrics nobody knows what guessing gives.
    """
    if purpose.num_classes is None or purpose.task.metric.name != "accuracy":
        return False
    chance = 1 / purpose.num_classes
    return value < chance + min(0.5 * chance, 0.1 * (1 - chance))
