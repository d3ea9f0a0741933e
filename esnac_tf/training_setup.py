"""What students are trained with: the teacher as it was read, and data that was held against it."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import tensorflow as tf

from esnac_tf.config import SearchConfig
from esnac_tf.datasets.given import given_evaluation_batches, given_training_batches
from esnac_tf.distillation.training import Batches
from esnac_tf.graph.checks import check_examples, check_searchable
from esnac_tf.graph.teacher import TeacherGraph, analyse
from esnac_tf.purpose import Purpose, check_labels, with_outputs
from esnac_tf.student import StudentBuilder


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingSetup:
    """What students are trained with.

    Attributes:
        purpose: What the teacher is for.
        graph: What was read of it.
        builder: Builds its students.
        batches: Training data.
        validation: Held-out data.
        outputs: The teacher's, for the first batch of the training data.
    """

    purpose: Purpose
    graph: TeacherGraph
    builder: StudentBuilder
    batches: Batches
    validation: tf.data.Dataset
    outputs: Any


def prepare_training(
    model: keras.Model, train: Any, validation: Any, config: SearchConfig, purpose: Purpose
) -> TrainingSetup:
    """Reads the teacher, and holds the data against it.

    Args:
        model: As for `esnac_tf.search_students`.
        train: Likewise.
        validation: Likewise.
        config: Likewise.
        purpose: What the teacher is for, as `find_purpose` says.

    Raises:
        UserError: The model or the data can't be used.
    """
    graph = analyse(model, config.channel_groups, config.protect)
    check_searchable(graph)
    size, labels = config.batch_size, (purpose.num_classes, purpose.task.is_classifier)
    batches = given_training_batches(train, size, config.seed, *labels)
    held_out = given_evaluation_batches(validation, size, *labels)
    first_epoch = batches.epoch(0)
    check_examples(model, first_epoch, "training")
    check_examples(model, held_out, "validation")
    x, y, *_ = next(iter(first_epoch))
    outputs = model(x, training=False)
    purpose = with_outputs(purpose, outputs)
    check_labels(purpose, outputs, y)
    builder = StudentBuilder(model, graph, config.channel_importance)
    return TrainingSetup(purpose, graph, builder, batches, held_out, outputs)
