"""The full training on several machines: what the chief orders, and what all of them do then."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from esnac_tf.architecture import ActionSet
from esnac_tf.config import SearchConfig
from esnac_tf.datasets.digests import data_digest
from esnac_tf.datasets.given import (
    given_evaluation_batches,
    given_training_batches,
    require_arrays,
)
from esnac_tf.distillation import TrainingConfig, TrainingOutcome, train
from esnac_tf.distillation.machines import Machines, Order, losses_told
from esnac_tf.distillation.training import Batches, OnBatch, OnEpoch
from esnac_tf.errors import UserError, error_reason
from esnac_tf.graph.teacher import analyse
from esnac_tf.purpose import Purpose, find_purpose, with_outputs
from esnac_tf.run_files import plain
from esnac_tf.student import StudentBuilder
from esnac_tf.teachers.loading import content_of, model_of
from esnac_tf.trial import Trial

FULL, END = "full training", "end"


def full_training_order(
    teacher: keras.Model,
    students: Sequence[keras.Model],
    trials: Sequence[Trial],
    training: TrainingConfig,
    agreed: Mapping[str, Any],
) -> Order:
    """What the others need to train students with the chief.

    Args:
        teacher: The teacher as it was given.
        students: Students with the weights that their training begins with.
        trials: Their trials.
        training: How they are trained; on several machines never with XLA.
        agreed: What must be the same on all machines, as JSON values.
    """
    training = dataclasses.replace(training, jit_compile=False)
    values = {
        "actions": [trial.actions.to_json() for trial in trials],
        "training": dataclasses.asdict(training),
        "agreed": dict(agreed),
    }
    content = np.frombuffer(content_of(teacher), np.uint8)
    weights = [weight for student in students for weight in student.get_weights()]
    return Order(FULL, values, [content, *weights])


def check_shared(batches: Batches) -> None:
    """Refuses training data that may come in another order on each machine.

    Raises:
        UserError: It came as a dataset.
    """
    require_arrays(batches, "Several machines", "unset TF_CONFIG")


def agreement(config: SearchConfig, purpose: Purpose, batches: Batches, validation: Any) -> Any:
    """What must be the same on all machines, as JSON values: settings and data."""
    chosen = {"mixed_precision", "jit_compile"}  # by the chief, which tells how it trains
    return plain(
        {
            **{name: value for name, value in config.fixed().items() if name not in chosen},
            **purpose.settings,
            "full_loss": config.full_loss,
            "data_sha256": data_digest(batches, validation),
        }
    )


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
    _, *weights = order.arrays
    with losses_told():
        with machines.strategy.scope():
            teacher = builder.teacher()
            actions = [ActionSet.from_json(values) for values in order.values["actions"]]
            students = [builder.build(action) for action in actions]
        for student in students:
            count = len(student.get_weights())
            student.set_weights(weights[:count])
            del weights[:count]
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
    machines: Machines,
    train: Any,
    validation: Any,
    config: SearchConfig,
    metric: Any = None,
    loss: Any = None,
    distillation_loss: Any = None,
) -> None:
    """Joins in the full training of a search that the chief of several machines does.

    It ends when the chief's search does. The teacher comes from the chief.

    Args:
        machines: The machines, as one sees them that is not the chief.
        train: The chief's training data, as `search_students` takes it.
        validation: The chief's held-out data.
        config: The chief's settings.
        metric: As of `search_students`, and the chief's.
        loss: Likewise.
        distillation_loss: Likewise.

    Raises:
        UserError: A machine is gone, settings or data are not the chief's, or can't be used.
    """
    while (order := machines.hear()).kind == FULL:
        model = _teacher(order)
        purpose = find_purpose(model, config, metric, loss, distillation_loss)
        size, labels = config.batch_size, (purpose.num_classes, purpose.task.is_classifier)
        batches = given_training_batches(train, size, config.seed, *labels)
        check_shared(batches)
        held_out = given_evaluation_batches(validation, size, *labels)
        _check_agreement(order, agreement(config, purpose, batches, held_out))
        x, *_ = next(iter(batches.epoch(0)))
        purpose = with_outputs(purpose, model(x, training=False))
        graph = analyse(model, config.channel_groups, config.protect)
        builder = StudentBuilder(model, graph, config.channel_importance)
        follow_order(machines, order, builder, batches, held_out, purpose, config.seed)


def _teacher(order: Order) -> keras.Model:
    try:
        return model_of(np.asarray(order.arrays[0]).tobytes())
    except Exception as error:  # Keras raises whatever a layer's from_config raises
        raise UserError(
            f"The chief's teacher can't be loaded on this machine: {error_reason(error)}.\n"
            "Layers of your own must be registered (keras.saving.register_keras_serializable) on "
            "every machine."
        ) from error


def _check_agreement(order: Order, here: Mapping[str, Any]) -> None:
    """Refuses to train with other settings or data than the chief's."""
    chief = order.values["agreed"]
    different = [name for name in chief if chief[name] != here.get(name)]
    if different:
        name = different[0]
        raise UserError(
            f"{name} is {chief[name]!r} on the chief and {here.get(name)!r} on this machine.\n"
            "Give all machines the same settings and the same data."
        )
