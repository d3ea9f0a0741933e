"""What of an evaluator travels to another process, and the evaluator made of it there."""

from __future__ import annotations

import dataclasses
import io
import json
import pathlib
import pickle
import uuid
import zipfile
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from esnac_tf.datasets.digests import digest_of
from esnac_tf.datasets.given import require_arrays
from esnac_tf.datasets.pipelines import TrainingBatches
from esnac_tf.distillation import get_strategy
from esnac_tf.distillation.student_groups import StudentGroup
from esnac_tf.distillation.teacher_targets import TeacherTargets
from esnac_tf.errors import UserError, error_reason
from esnac_tf.evaluation import Evaluator
from esnac_tf.graph.parsing import named_layers
from esnac_tf.graph.teacher import TeacherGraph
from esnac_tf.student import StudentBuilder
from esnac_tf.teachers.loading import content_of, model_of

# What is the same on both sides.
_SHARED = ("teacher_measurement", "objective", "config", "loss", "task", "seed")


# What is not sent where it may be read there.
_LARGE_BYTES = 2**27


class DataMissingError(UserError):
    """Training data that should have been read from files on this machine, and can't be."""


@dataclasses.dataclass(frozen=True)
class FileBatches:
    """Training data that lies in files, on this machine and perhaps on others.

    Attributes:
        read: Reads it.
        digest: Of what it must be.
    """

    read: Callable[[], TrainingBatches]
    digest: str

    def batches(self) -> TrainingBatches:
        """Reads the data.

        Raises:
            DataMissingError: It is not there, or is not the same.
        """
        try:
            batches = self.read()
        except (UserError, OSError) as error:
            raise DataMissingError(str(error)) from None
        if digest_of(batches.arrays) != self.digest:
            raise DataMissingError("The training data on this machine is not the search's.")
        return batches


@dataclasses.dataclass(frozen=True)
class Parcel:
    """An evaluator on its way: everything in it can be pickled.

    Attributes:
        name: Of this parcel alone.
        teacher: The content of the teacher's `.keras` file.
        custom_objects: Classes and functions that the rest only names.
        graph: What was read of the teacher.
        channel_importance: How kept channels are chosen.
        batches: Training data, or how it is read from files that may be there as well.
        validation: Held-out data, arrays [number of batches, B, ...] as (x, y, weight).
        keeps_targets: Whether the teacher's outputs are kept from one search step to the next.
        shared: The evaluator's other fields, pickled: some need the custom objects.
    """

    name: str
    teacher: bytes
    custom_objects: dict[str, Any]
    graph: TeacherGraph
    channel_importance: str
    batches: Any
    validation: Any
    keeps_targets: bool
    shared: bytes


def check_travels(evaluator: Evaluator, dumps: Callable[[Any], bytes] = pickle.dumps) -> None:
    """Refuses what can't be sent to another process.

    Args:
        evaluator: The evaluator.
        dumps: Pickles.

    Raises:
        UserError: The training data is a tf.data.Dataset, or the metric or the loss is a function
            that Keras does not know.
    """
    require_arrays(_batches(evaluator), "Other processes", "executor='local'")
    try:
        pickle.loads(_shared(evaluator, dumps))
    except Exception as error:  # whatever Keras and pickle raise
        raise UserError(
            f"The metric or the loss can't be sent to other processes: {error_reason(error)}.\n"
            "Register functions and classes of your own with "
            "keras.saving.register_keras_serializable, or give executor='local'."
        ) from error


def may_be_read(evaluator: Evaluator) -> bool:
    """Whether the training data is large and other machines may have its files."""
    batches = _batches(evaluator)
    if getattr(batches, "read_again", None) is None:
        return False
    return sum(array.nbytes for array in batches.arrays) >= _LARGE_BYTES


def pack(
    evaluator: Evaluator,
    dumps: Callable[[Any], bytes] = pickle.dumps,
    *,
    with_data: bool = True,
) -> Parcel:
    """Makes a parcel of an evaluator that `check_travels` lets pass.

    Args:
        evaluator: The evaluator.
        dumps: Pickles.
        with_data: Whether the training data is in it; else only how it is read there, for those of
            which it `may_be_read`.
    """
    batches = _batches(evaluator)
    if not with_data:
        batches = FileBatches(batches.read_again, digest_of(batches.arrays))
    builder = evaluator.builder
    rows = [tf.nest.map_structure(lambda part: part.numpy(), row) for row in evaluator.validation]
    content, shared = content_of(builder.model), _shared(evaluator, dumps)
    return Parcel(
        uuid.uuid4().hex,
        content,
        _custom_objects(builder.model, content, shared),
        builder.graph,
        builder.channel_importance,
        batches,
        tf.nest.map_structure(lambda *parts: np.stack(parts), *rows),
        isinstance(evaluator.batches, TeacherTargets),
        shared,
    )


def unpack(parcel: Parcel, folder: pathlib.Path) -> Evaluator:
    """Makes an evaluator that trains on the devices of this process.

    Args:
        parcel: The parcel.
        folder: Where the teacher's outputs are kept.

    Raises:
        DataMissingError: The training data must be read on this machine, and can't be.
    """
    batches = parcel.batches
    if isinstance(batches, FileBatches):
        batches = batches.batches()
    keras.saving.get_custom_objects().update(parcel.custom_objects)
    builder = StudentBuilder(model_of(parcel.teacher), parcel.graph, parcel.channel_importance)
    strategy = get_strategy("auto")
    shared = pickle.loads(parcel.shared)
    teacher = None
    if shared["loss"].needs_teacher:
        with strategy.scope():
            teacher = builder.teacher()
    if parcel.keeps_targets:
        batches = TeacherTargets(
            batches,
            teacher,
            shared["task"],
            strategy,
            folder,
            shared["config"].jit_compile,
            logging.warning,
        )
        teacher = None
    with tf.device("CPU:0"):
        validation = tf.data.Dataset.from_tensor_slices(parcel.validation)
    return Evaluator(
        builder=builder,
        groups=[StudentGroup(strategy, teacher)],
        batches=batches,
        validation=validation,
        **shared,
    )


def _batches(evaluator: Evaluator) -> Any:
    batches = evaluator.batches
    return batches.batches if isinstance(batches, TeacherTargets) else batches


def _shared(evaluator: Evaluator, dumps: Callable[[Any], bytes]) -> bytes:
    return dumps({name: getattr(evaluator, name) for name in _SHARED})


def _custom_objects(model: keras.Model, content: bytes, shared: bytes) -> dict[str, Any]:
    """Layers of the user's own by their names, and what is registered of what the rest names."""
    classes = {type(layer) for layer in named_layers(model).values()}
    own = {kind.__name__: kind for kind in classes if kind.__module__.split(".")[0] != "keras"}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        config = archive.read("config.json").decode()
    registered = keras.saving.get_custom_objects()
    named = {
        name: value
        for name, value in registered.items()
        if json.dumps(name) in config or name.encode() in shared
    }
    return {**own, **named}
