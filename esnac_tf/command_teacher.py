"""The command line's teacher, from a file or by name, and the machines that train with it."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from esnac_tf import in_place, teachers
from esnac_tf.command_flags import FLAGS
from esnac_tf.display import Display
from esnac_tf.distillation import TrainingConfig
from esnac_tf.errors import UserError

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from esnac_tf.config import SearchConfig
    from esnac_tf.datasets import Splits
    from esnac_tf.datasets.pipelines import TrainingBatches
    from esnac_tf.distillation.machines import Machines
    from esnac_tf.tf_config import Role


def teacher_in_file(path: str) -> keras.Model:
    """The teacher in a file, compiled only where a student takes its place."""
    from esnac_tf.teachers.loading import load

    model = load(path, compiled=FLAGS.in_place, trusted=FLAGS.trust_teacher)
    if FLAGS.in_place:
        in_place.check_compiled(model)
    return model


def check_classes(model: keras.Model, splits: Splits) -> None:
    """Refuses a teacher that has another number of classes than the data.

    Raises:
        UserError: It has, or is no classifier.
    """
    from esnac_tf.graph.checks import check_classifier

    num_classes = check_classifier(model)
    if num_classes != splits.num_classes:
        raise UserError(
            f"The teacher {FLAGS.teacher} has {num_classes} classes, the data set {splits.name} "
            f"has {splits.num_classes}.\nGive the data set that the teacher was trained on."
        )


def trained_teacher_by_name(
    config: SearchConfig, splits: Splits, display: Display, machines: Machines | None
) -> keras.Model:
    """The teacher built by name, trained now or in an earlier search."""
    from esnac_tf.teacher_training import default_cache_dir, trained_teacher

    return trained_teacher(
        FLAGS.teacher,
        splits,
        _teacher_training(config),
        batch_size=config.batch_size,
        distribute=config.distribute,
        seed=config.seed,
        cache_dir=FLAGS.cache_dir or default_cache_dir(),
        display=display,
        weights=FLAGS.teacher_weights,
        machines=machines,
    )


def _teacher_training(config: SearchConfig) -> TrainingConfig:
    """How a teacher by name is trained."""
    epochs = FLAGS.teacher_epochs
    return TrainingConfig.teacher(
        epochs=epochs,
        learning_rate=FLAGS.teacher_learning_rate,
        learning_rate_drop_epochs=-(-epochs // 4),
        weight_decay=config.weight_decay,
        mixed_precision=bool(config.mixed_precision),
        jit_compile=bool(config.jit_compile),
    )


def join_machines(config: SearchConfig, here: Role, display: Display) -> Machines | None:
    """The machines of TF_CONFIG."""
    from esnac_tf.distillation.devices import check_divides
    from esnac_tf.distillation.machines import joined

    display.message(f"Waiting for the {here.num_machines} machines of TF_CONFIG.")
    machines = joined()
    if machines is not None:
        check_divides(config.batch_size, machines.strategy, "unset TF_CONFIG")
    return machines


def assist_chief(
    config: SearchConfig,
    splits: Splits,
    batches: TrainingBatches,
    validation: tf.data.Dataset,
    display: Display,
    machines: Machines,
) -> int:
    """Joins in the trainings of a search that the chief of several machines does."""
    from esnac_tf.joint_machines import assist
    from esnac_tf.teacher_training import assist_training

    display.message(f"One of {machines.num_machines} machines; the chief tells of the search.")
    train_teacher = functools.partial(
        assist_training,
        name=FLAGS.teacher,
        splits=splits,
        training=_teacher_training(config),
        batch_size=config.batch_size,
        seed=config.seed,
        display=display,
        machines=machines,
        weights=FLAGS.teacher_weights,
    )
    assist(machines, batches, validation, config, train_teacher=train_teacher)
    display.message("The search is finished.")
    return 0


def untrained_teacher(splits: Splits, weights: str | None = None) -> keras.Model:
    """The teacher built by name, not trained here."""
    shape, normalization = splits.x_train.shape[1:], splits.normalization
    return teachers.build(FLAGS.teacher, shape, splits.num_classes, normalization, weights)
