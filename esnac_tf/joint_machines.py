"""The full training on several machines: what the chief orders, and what all of them do then."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from esnac_tf.architecture import ActionSet
from esnac_tf.config import SearchConfig
from esnac_tf.datasets.given import given_evaluation_batches, given_training_batches
from esnac_tf.distillation import TrainingConfig, TrainingOutcome, train
from esnac_tf.distillation.machines import Machines, Order, losses_told
from esnac_tf.distillation.training import Batches, OnBatch, OnEpoch
from esnac_tf.graph.teacher import analyse
from esnac_tf.purpose import Purpose, find_purpose, with_outputs
from esnac_tf.student import StudentBuilder
from esnac_tf.trial import Trial

FULL, END = "full training", "end"


def full_training_order(
    teacher: keras.Model,
    students: Sequence[keras.Model],
    trials: Sequence[Trial],
    training: TrainingConfig,
) -> Order:
    """What the others need to train students with the chief.

    Args:
        teacher: The teacher.
        students: Students with the weights that their training begins with.
        trials: Their trials.
        training: How they are trained; on several machines never with XLA.
    """
    training = dataclasses.replace(training, jit_compile=False)
    values = {
        "actions": [trial.actions.to_json() for trial in trials],
        "training": dataclasses.asdict(training),
    }
    models = [teacher, *students]
    return Order(FULL, values, [weight for model in models for weight in model.get_weights()])


def follow_order(
    machines: Machines,
    order: Order,
    builder: StudentBuilder,
    batches: Batches,
    validation: tf.data.Dataset,
    purpose: Purpose,
    seed: int,
    on_epoch: OnEpoch | None = None,
    on_batch: OnBatch | None = None,
) -> tuple[list[TrainingOutcome], list[keras.Model]]:
    """Trains students together with the other machines, which do the same at the same time.

    Args:
        machines: The machines.
        order: What the chief told, of the kind `FULL`.
        builder: Builds students of the same teacher.
        batches: The same training data as on the other machines.
        validation: The same held-out data.
        purpose: What the teacher is for.
        seed: Seeds what is random in the students.
        on_epoch: As of `esnac_tf.distillation.train`.
        on_batch: Likewise.

    Returns:
        The outcomes, and the students with the weights of their best epochs.
    """
    with machines.strategy.scope():
        teacher = builder.teacher()
        actions = [ActionSet.from_json(values) for values in order.values["actions"]]
        students = [builder.build(action) for action in actions]
    weights: list[np.ndarray] = list(order.arrays)
    for model in (teacher, *students):
        count = len(model.get_weights())
        model.set_weights(weights[:count])
        del weights[:count]
    with losses_told():
        outcomes = train(
            students,
            batches,
            validation,
            TrainingConfig(**order.values["training"]),
            loss=purpose.full_loss,
            teacher=teacher,
            strategy=machines.strategy,
            task=purpose.task,
            on_epoch=on_epoch,
            on_batch=on_batch,
            seed=seed,
        )
    return outcomes, students


def assist(
    machines: Machines, model: keras.Model, train: Any, validation: Any, config: SearchConfig
) -> None:
    """Joins in the full training of a search that the chief of several machines does.

    Args:
        machines: The machines, as one sees them that is not the chief.
        model: The same teacher as the chief has; its weights don't matter.
        train: The same training data.
        validation: The same held-out data.
        config: The same settings.

    Raises:
        UserError: A machine is gone, or the model or the data can't be used.
    """
    purpose = find_purpose(model, config)
    graph = analyse(model, config.channel_groups, config.protect)
    builder = StudentBuilder(model, graph, config.channel_importance)
    size, labels = config.batch_size, (purpose.num_classes, purpose.task.is_classifier)
    batches = given_training_batches(train, size, config.seed, *labels)
    held_out = given_evaluation_batches(validation, size, *labels)
    x, *_ = next(iter(batches.epoch(0)))
    purpose = with_outputs(purpose, model(x, training=False))
    while (order := machines.hear()).kind == FULL:
        follow_order(machines, order, builder, batches, held_out, purpose, config.seed)
