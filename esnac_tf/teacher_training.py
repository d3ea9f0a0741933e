"""Teachers by name: built, trained where they have no weights, and kept for the next search."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from esnac_tf import exporters, teachers
from esnac_tf.datasets import Splits
from esnac_tf.datasets.digests import digest_of
from esnac_tf.datasets.pipelines import evaluation_batches
from esnac_tf.datasets.stored import training_batches
from esnac_tf.display import Display
from esnac_tf.distillation import TrainingConfig, get_strategy, losses, train
from esnac_tf.distillation.checkpoint import kept_training
from esnac_tf.distillation.devices import check_divides
from esnac_tf.distillation.machines import TEACHER, Machines, Order
from esnac_tf.errors import UserError
from esnac_tf.joint_machines import check_agreed
from esnac_tf.teachers.loading import load
from esnac_tf.training_progress import training_progress

# What must be the same on several machines: the file's name changes with all that matters.
_TEACHER = "the name of the teacher's file"


def trained_teacher(
    name: str,
    splits: Splits,
    training: TrainingConfig,
    *,
    batch_size: int,
    distribute: str,
    seed: int,
    cache_dir: str | os.PathLike[str],
    display: Display,
    weights: str | None = None,
    machines: Machines | None = None,
) -> keras.Model:
    """A named teacher, trained on the training part of a data set.

    It is trained once: the file in the cache is named by all settings and data that the weights
    depend on, and by the versions that trained it. Where that file is broken, it is trained
    again.

    Args:
        name: The teacher's name, with arguments if any, such as "resnet18(width=16)".
        splits: The data.
        training: How to train.
        batch_size: Examples in a batch.
        distribute: As in `esnac_tf.config.SearchConfig`.
        seed: Seed of weights and shuffling.
        cache_dir: Where trained teachers are kept.
        display: Where progress is shown.
        weights: What the training begins with, as in `esnac_tf.teachers.build`.
        machines: Those that train it together, if this is the chief of several; the others call
            `assist_training`.

    Returns:
        The teacher with the weights of its best epoch.

    Raises:
        UserError: The teacher does not fit the data, its training failed, or the cache can't
            be written.
    """
    stem = _file_stem(name, splits, training, batch_size, seed, weights)
    path = pathlib.Path(cache_dir) / f"{stem}.keras"
    if path.is_file():
        try:
            model = load(path)
        except UserError as error:
            reason = str(error).splitlines()[0]
            display.message(f"The kept teacher can't be read and is trained again. {reason}")
        else:
            display.message(f"Teacher {name} is taken from {path}.")
            return model
    strategy = get_strategy(distribute) if machines is None else machines.strategy
    if machines is not None:
        _require_writable(path.parent)  # now, when the others do not wait yet
        check_divides(min(batch_size, len(splits.x_train)), strategy, "unset TF_CONFIG")
        machines.tell(Order(TEACHER, {"agreed": {_TEACHER: stem}}))
        machines.agree()
    with contextlib.nullcontext() if machines is None else machines.at_work():
        model = _built(name, splits, strategy, seed, weights)
        _require_writable(path.parent)
        kept = None if machines else path.with_suffix(".training.npz")
        _train(name, model, splits, training, batch_size, strategy, seed, display, kept)
    exporters.get("keras").export(model, path.with_suffix(""))
    if kept is not None:
        kept.unlink(missing_ok=True)
    display.message(f"Teacher {name} is kept in {path}.")
    return model if machines is None else load(path)  # without the other machines


def assist_training(
    order: Order,
    name: str,
    splits: Splits,
    training: TrainingConfig,
    *,
    batch_size: int,
    seed: int,
    display: Display,
    machines: Machines,
    weights: str | None = None,
) -> None:
    """Trains a named teacher with the chief of several machines.

    Args:
        order: The chief's.
        name: As of `trained_teacher`, like all that follows.
        splits: Likewise.
        training: Likewise.
        batch_size: Likewise.
        seed: Likewise.
        display: Likewise.
        machines: The machines.
        weights: Likewise.

    Raises:
        UserError: Settings or data are not the chief's, the training failed, or a machine is gone.
    """
    refusal, strategy = None, machines.strategy
    try:
        stem = _file_stem(name, splits, training, batch_size, seed, weights)
        check_agreed(order, {_TEACHER: stem})
    except UserError as error:
        refusal = error
    machines.agree(refusal)
    with machines.at_work():
        model = _built(name, splits, strategy, seed, weights)
        _train(name, model, splits, training, batch_size, strategy, seed, display)


def _built(
    name: str,
    splits: Splits,
    strategy: tf.distribute.Strategy,
    seed: int,
    weights: str | None,
) -> keras.Model:
    keras.utils.set_random_seed(seed)
    with strategy.scope():
        return teachers.build(
            name, splits.x_train.shape[1:], splits.num_classes, splits.normalization, weights
        )


def _train(
    name: str,
    model: keras.Model,
    splits: Splits,
    training: TrainingConfig,
    batch_size: int,
    strategy: tf.distribute.Strategy,
    seed: int,
    display: Display,
    kept: pathlib.Path | None = None,
) -> None:
    batches = training_batches(splits, batch_size, seed)
    validation = evaluation_batches(splits.x_validation, splits.y_validation, batch_size)
    display.message(
        f"Training teacher {name} for {training.epochs} epochs on {len(splits.x_train):,} examples."
    )
    progress = training_progress(display, "Teacher", training.epochs, batches)
    with progress as (on_epoch, on_batch), kept_training(kept, [name]) as checkpoint:
        [outcome] = train(
            [model],
            batches,
            validation,
            training,
            loss=losses.get("cross_entropy"),
            strategy=strategy,
            on_epoch=on_epoch,
            on_batch=on_batch,
            checkpoint=checkpoint,
            seed=seed,
        )
    if outcome.failure is not None:
        raise UserError(
            f"The training of teacher {name!r} failed: {outcome.failure}.\n"
            "Lower --teacher_learning_rate, or give --teacher_weights."
        )


def default_cache_dir() -> pathlib.Path:
    """Where trained teachers are kept: $ESNAC_TF_CACHE, else ~/.cache/esnac_tf."""
    chosen = os.environ.get("ESNAC_TF_CACHE")
    return (
        pathlib.Path(chosen).expanduser() if chosen else pathlib.Path.home() / ".cache" / "esnac_tf"
    )


def _require_writable(folder: pathlib.Path) -> None:
    """Makes the cache and writes to it: a mistake is told before hours of training, not after."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(
            f"Cannot keep the teacher in {folder}: {error.strerror or error}.\n"
            "Make room there and check its permissions, or choose another --cache_dir."
        ) from error


def _file_stem(
    name: str,
    splits: Splits,
    training: TrainingConfig,
    batch_size: int,
    seed: int,
    weights: str | None,
) -> str:
    """A file name that changes with all settings and data that the weights depend on.

    They do not depend on the number of devices, but for rounding.
    """
    # By name: the root offers `compress`, so a plain import of it would count as one upwards.
    version = importlib.import_module("esnac_tf").__version__
    settings: Mapping[str, Any] = {
        "teacher": name,
        "training": repr(training),
        "batch_size": batch_size,
        "seed": seed,
        "weights": weights,
        "data": digest_of((splits.x_train, splits.y_train)),
        "validation": digest_of((splits.x_validation, splits.y_validation)),
        "num_classes": splits.num_classes,
        "augmentation": splits.augmentation,
        "normalization": repr(splits.normalization),
        "versions": (version, keras.__version__, tf.__version__),
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    readable = "".join(character if character.isalnum() else "_" for character in name)
    data = pathlib.Path(splits.name).stem
    return f"{readable.strip('_')}_{data}_{digest}"
