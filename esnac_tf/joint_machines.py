"""Several machines: what they must agree on, and what the chief orders and all of them do."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from esnac_tf.architecture import ActionSet
from esnac_tf.config import SearchConfig
from esnac_tf.datasets.digests import held_out_digest, training_digest
from esnac_tf.datasets.given import require_arrays
from esnac_tf.distillation import TrainingConfig, TrainingOutcome, train
from esnac_tf.distillation.devices import check_divides
from esnac_tf.distillation.machines import (
    END,
    FULL,
    SEARCH,
    TEACHER,
    Machines,
    MachinesError,
    Order,
)
from esnac_tf.distillation.training import OnBatch, OnEpoch
from esnac_tf.errors import UserError, error_reason
from esnac_tf.purpose import find_purpose, named_settings
from esnac_tf.run_files import plain
from esnac_tf.teachers.loading import content_of, model_of
from esnac_tf.training_setup import TrainingSetup, prepare_training
from esnac_tf.trial import Trial

# Settings that machines need not share: the chief says how the full training is done.
_OF_CHIEF = ("distribute", "mixed_precision", "jit_compile")


def agree_on_search(
    machines: Machines, model: keras.Model, config: SearchConfig, setup: TrainingSetup
) -> None:
    """Tells the others of a search, as its chief, and waits until they have held it against theirs.

    Args:
        machines: The machines.
        model: The teacher as it was given.
        config: The settings.
        setup: What students are trained with.

    Raises:
        UserError: The data can't be divided among machines, or one of them has other settings or
            data.
    """
    agreed = agreement(machines, config, setup)
    content = np.frombuffer(content_of(model), np.uint8)
    machines.tell(Order(SEARCH, {"agreed": agreed}, [content]))
    machines.agree()


def full_training_order(
    students: Sequence[keras.Model], trials: Sequence[Trial], training: TrainingConfig
) -> Order:
    """What the others need to train students with the chief.

    Args:
        students: Students with the weights that their training begins with.
        trials: Their trials.
        training: How they are trained; on several machines never with XLA.
    """
    training = dataclasses.replace(training, jit_compile=False)
    values = {
        "actions": [trial.actions.to_json() for trial in trials],
        "training": dataclasses.asdict(training),
    }
    return Order(FULL, values, [weight for student in students for weight in student.get_weights()])


def follow_order(
    machines: Machines,
    order: Order,
    setup: TrainingSetup,
    seed: int,
    on_epoch: OnEpoch | None = None,
    on_batch: OnBatch | None = None,
) -> tuple[list[TrainingOutcome], list[keras.Model]]:
    """Trains students together with the other machines, which do the same at the same time.

    Args:
        machines: The machines.
        order: What the chief told, of the kind `FULL`.
        setup: The same teacher and data as on the other machines.
        seed: Seeds what is random in the students.
        on_epoch: As of `esnac_tf.distillation.train`.
        on_batch: Likewise.

    Returns:
        The outcomes, and the students with the weights of their best epochs.
    """
    weights = list(order.arrays)
    with machines.at_work():
        with machines.strategy.scope():
            teacher = setup.builder.teacher()
            actions = [ActionSet.from_json(values) for values in order.values["actions"]]
            students = [setup.builder.build(action) for action in actions]
        for student in students:
            count = len(student.get_weights())
            student.set_weights(weights[:count])
            del weights[:count]
        outcomes = train(
            students,
            setup.batches,
            setup.validation,
            TrainingConfig(**order.values["training"]),
            loss=setup.purpose.full_loss,
            teacher=teacher,
            strategy=machines.strategy,
            task=setup.purpose.task,
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
    train_teacher: Callable[[Order], None] | None = None,
) -> None:
    """Joins in the trainings of a search that the chief of several machines does.

    It ends when the chief's search does. The teacher comes from the chief.

    Args:
        machines: The machines, as one sees them that is not the chief.
        train: The chief's training data, as `search_students` takes it.
        validation: The chief's held-out data.
        config: The chief's settings.
        metric: As of `search_students`, and the chief's.
        loss: Likewise.
        distillation_loss: Likewise.
        train_teacher: Joins in the training of a named teacher.

    Raises:
        UserError: A machine is gone or has refused, settings or data are not the chief's, or can't
            be used.
    """
    config, objects = named_settings(config, metric, loss, distillation_loss)
    setup: TrainingSetup | None = None
    while (order := machines.hear()).kind != END:
        if order.kind == TEACHER and train_teacher is not None:
            train_teacher(order)
        elif order.kind == SEARCH:
            refusal = None
            try:
                model = _teacher(order)
                purpose = find_purpose(model, config, **objects)
                setup = prepare_training(model, train, validation, config, purpose)
                check_agreed(order, agreement(machines, config, setup))
            except UserError as error:
                refusal = error
            machines.agree(refusal)
        elif order.kind == FULL and setup is not None:
            follow_order(machines, order, setup, config.seed)
        else:
            raise MachinesError(
                f"The chief orders what this machine doesn't know: {order.kind}.\n"
                "All machines need the same version."
            )


def agreement(machines: Machines, config: SearchConfig, setup: TrainingSetup) -> Any:
    """What must be the same on all machines, as JSON values: settings and data.

    Args:
        machines: The machines.
        config: The settings.
        setup: What students are trained with.

    Raises:
        UserError: The data may come in another order on each machine, or not in equal parts.
    """
    batches, validation = setup.batches, setup.validation
    require_arrays(batches, "Several machines", "unset TF_CONFIG")
    check_divides(batches.batch_size, machines.strategy, "unset TF_CONFIG")
    held_out = held_out_digest(validation)
    if held_out != held_out_digest(validation):
        raise UserError(
            "The held-out data comes in another order each time, or varied.\n"
            "Several machines need it as arrays, or unset TF_CONFIG."
        )
    settings = {name: value for name, value in config.fixed().items() if name not in _OF_CHIEF}
    values = {"full_loss": config.full_loss, "data_sha256": training_digest(batches) + held_out}
    return plain({**settings, **setup.purpose.settings, **values})


def check_agreed(order: Order, here: Mapping[str, Any]) -> None:
    """Holds what is to be the same on all machines against the chief's.

    Args:
        order: The chief's, with that under "agreed".
        here: That of this machine.

    Raises:
        UserError: Something is not the same.

    Example:
        >>> check_agreed(Order(TEACHER, {"agreed": {"seed": 3}}), {"seed": 3})
    """
    chief = order.values["agreed"]
    for name, value in chief.items():
        if value != here.get(name):
            raise UserError(
                f"{name} is {value!r} on the chief and {here.get(name)!r} on this machine.\n"
                "Give all machines the same settings and the same data."
            )


def _teacher(order: Order) -> keras.Model:
    try:
        return model_of(np.asarray(order.arrays[0]).tobytes(), compiled=True)
    except Exception as error:  # Keras raises whatever a layer's from_config raises
        raise UserError(
            f"The chief's teacher can't be loaded on this machine: {error_reason(error)}.\n"
            "Layers of your own must be registered (keras.saving.register_keras_serializable) on "
            "every machine."
        ) from error
