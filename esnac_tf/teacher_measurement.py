"""What the teacher is worth: measured once, kept in the run folder."""

from __future__ import annotations

import keras
import tensorflow as tf

from esnac_tf.datasets.digests import data_digest, digest_of
from esnac_tf.display import Display
from esnac_tf.distillation import evaluate_accuracy
from esnac_tf.distillation.training import Batches
from esnac_tf.errors import UserError
from esnac_tf.graph.cost import count_flops, count_params
from esnac_tf.objectives import Measurement
from esnac_tf.quantities import count, percent
from esnac_tf.record import RunFolder
from esnac_tf.resuming import check_teacher


def measure_teacher(
    teacher: keras.Model,
    num_classes: int,
    batches: Batches,
    validation: tf.data.Dataset,
    distribution: tf.distribute.Strategy,
    run: RunFolder,
    display: Display,
) -> Measurement:
    """What is measured of the teacher; read from the run folder if it is there.

    Args:
        teacher: The teacher, built under the strategy's scope.
        num_classes: C.
        batches: Training data.
        validation: Held-out data, as `given_evaluation_batches` gives it.
        distribution: The strategy.
        run: The run folder: it remembers the figures, and what teacher and data they are of.
        display: Where the figures are told.

    Raises:
        UserError: The run folder holds a search with another teacher or other data, or the
            teacher classifies nothing right.
    """
    recorded = run.teacher()
    digests = {
        "weights_sha256": digest_of(teacher.get_weights()),
        "data_sha256": data_digest(batches, validation),
    }
    check_teacher(run.path, digests)
    if recorded is None:
        [accuracy] = evaluate_accuracy([teacher], validation, distribution)
        recorded = {
            "num_params": count_params(teacher),
            "flops": count_flops(teacher),
            "validation_accuracy": accuracy,
            **digests,
        }
        run.write_teacher(recorded)
    accuracy = recorded["validation_accuracy"]
    if accuracy <= 0:
        raise UserError(
            f"The teacher {teacher.name!r} classifies no held-out example right.\n"
            "Give a trained model, and data in the units that it was trained on."
        )
    display.message(
        f"Teacher {teacher.name}: {count(recorded['num_params'])} parameters, "
        f"validation accuracy {percent(accuracy)}."
    )
    if is_chance(accuracy, num_classes):
        display.warning(
            "That is hardly better than chance. Is the teacher trained, and on data in these "
            "units (see --input_scale)?"
        )
    return Measurement(recorded["num_params"], recorded["flops"], accuracy)


def is_chance(accuracy: float, num_classes: int) -> bool:
    """Whether an accuracy is hardly better than that of guessing, 1 / C.

    Hardly better: by less than a half of it, and by less than a tenth of what is missing to 1.

    Example:
        >>> is_chance(0.12, num_classes=10), is_chance(0.3, num_classes=10)
        (True, False)
        >>> is_chance(0.53, num_classes=2), is_chance(0.6, num_classes=2)
        (True, False)
    """
    chance = 1 / num_classes
    return accuracy < chance + min(0.5 * chance, 0.1 * (1 - chance))
