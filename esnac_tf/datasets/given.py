"""Data as `model.fit` takes it -> batches: arrays, a tf.data.Dataset or a PyDataset of batches.

Labels of classifiers become class numbers [B]; those of other models stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from esnac_tf.datasets.pipelines import TrainingBatches, evaluation_batches
from esnac_tf.datasets.structures import (
    StructuredBatches,
    check_examples_are_finite,
    check_weights,
    dataset_of,
    structured_evaluation_batches,
)
from esnac_tf.errors import UserError


class DatasetBatches:
    """The batches of a tf.data.Dataset, one pass an epoch.

    Only batches of the size of the first one are used, so that shapes are fixed.

    Args:
        dataset: Of batches (x [B, ...], y) or (x, y, weight [B]): y of a classifier [B], [B, 1] or
            one-hot [B, C].
        num_classes: C, as the model has it; None if it is not known.
        is_classifier: Whether labels are classes.

    Attributes:
        batch_size: B.
        num_batches: How many batches a pass has, None if that is not known.
        is_repeatable: False: whether an epoch gives the same again is the dataset's.

    Raises:
        UserError: The dataset is empty or has no end, its elements are neither, or in its first
            batch a class is out of range, an example not finite, or a weight negative.
    """

    is_repeatable = False

    def __init__(
        self,
        dataset: tf.data.Dataset,
        num_classes: int | None = None,
        is_classifier: bool = True,
        part: str = "training",
    ) -> None:
        self._dataset = _checked(dataset, num_classes, is_classifier)
        self.batch_size = _first_size(self._dataset, num_classes, is_classifier, part)
        count = int(self._dataset.cardinality().numpy())
        self.num_batches = count if count >= 0 else None

    def epoch(self, epoch: int) -> tf.data.Dataset:
        """The batches of an epoch; whether they differ from epoch to epoch is the dataset's."""
        size = self.batch_size

        def is_full(x: Any, y: Any, *weight: Any) -> tf.Tensor:
            return tf.equal(tf.shape(tf.nest.flatten(y)[0])[0], size)

        def fix(*batch: Any) -> Any:
            return tf.nest.map_structure(lambda t: tf.ensure_shape(t, [size, *t.shape[1:]]), batch)

        return self._dataset.filter(is_full).map(fix).prefetch(2)


def require_arrays(batches: Any, who: str, advice: str) -> None:
    """Refuses training data that came as a dataset: it can't be sent, and its order is its own.

    Args:
        batches: What `given_training_batches` gave.
        who: Who needs arrays, as the beginning of a sentence.
        advice: What else the user may do.

    Raises:
        UserError: It came as a dataset.

    Example:
        >>> batches = given_training_batches((np.zeros((10, 2)), np.zeros(10, int)), 4)
        >>> require_arrays(batches, "Other processes", "executor='local'")
    """
    if isinstance(batches, DatasetBatches):
        raise UserError(
            f"{who} need training data as arrays, received a dataset of batches.\n"
            f"Give (x, y) arrays, or {advice}."
        )


def given_training_batches(
    data: Any,
    batch_size: int,
    seed: int = 0,
    num_classes: int | None = None,
    is_classifier: bool = True,
    part: str = "training",
) -> TrainingBatches | DatasetBatches | StructuredBatches:
    """Training data as the user gives it, as batches.

    Args:
        data: (x, y) or (x, y, weight), arrays or structures of arrays that are shuffled anew in
            each epoch, or a tf.data.Dataset or keras.utils.PyDataset of such batches, or batches
            by epoch, which are returned as they are. Each example counts by its weight.
        batch_size: Of arrays; a dataset has its own.
        seed: Seed of shuffling.
        num_classes: C, as the model has it: labels must be in 0 .. C - 1, one-hot labels must
            have C columns. None checks neither.
        is_classifier: Whether labels are classes; else they are taken as they are.
        part: What the data is for, as errors tell it.

    Raises:
        UserError: The data is neither, its parts don't fit each other, the labels are out of range,
            examples are not finite, or weights negative. Of datasets the first batch is looked at.

    Example:
        >>> given_training_batches((np.zeros((10, 2)), np.zeros(10, int)), 4).num_batches
        2
    """
    if isinstance(data, (TrainingBatches, DatasetBatches, StructuredBatches)):
        return data
    if isinstance(data, keras.utils.PyDataset):
        data = dataset_of(data)
    if isinstance(data, tf.data.Dataset):
        return DatasetBatches(data, num_classes, is_classifier, part)
    x, y, weight = _arrays(data, num_classes, is_classifier, part)
    if is_classifier and _is_plain(x) and weight is None:
        return TrainingBatches(x, y, batch_size, seed=seed)
    return StructuredBatches(x, y, batch_size, seed, weight)


def given_evaluation_batches(
    data: Any,
    batch_size: int,
    num_classes: int | None = None,
    is_classifier: bool = True,
    part: str = "validation",
) -> tf.data.Dataset:
    """Held-out data as the user gives it, as batches (x, y, weight) of one shape.

    Args:
        data: (x, y) or (x, y, weight), arrays or structures of arrays, or a tf.data.Dataset or
            PyDataset of such batches. Batches are brought to the size of the first one, and the
            last is filled up with rows of weight 0; a dataset of (x, y, weight) that is so
            already is returned as it is.
        batch_size: Of arrays; a dataset has its own.
        num_classes: As for `given_training_batches`.
        is_classifier: Likewise.
        part: Likewise.

    Raises:
        UserError: The data is neither, its parts don't fit each other, the labels are out of range,
            examples are not finite, or weights negative. Of datasets the first batch is looked at.

    Example:
        >>> dataset = given_evaluation_batches((np.zeros((5, 2)), np.zeros(5, int)), 4)
        >>> [weight.numpy().tolist() for _, _, weight in dataset]
        [[1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 0.0, 0.0]]
    """
    if isinstance(data, keras.utils.PyDataset):
        data = dataset_of(data)
    if not isinstance(data, tf.data.Dataset):
        x, y, weight = _arrays(data, num_classes, is_classifier, part)
        if is_classifier and _is_plain(x) and weight is None:
            return evaluation_batches(x, y, batch_size)
        return structured_evaluation_batches(x, y, batch_size, weight)
    dataset = _checked(data, num_classes, is_classifier)
    size = _first_size(dataset, num_classes, is_classifier, part)
    spec = dataset.element_spec
    if len(spec) == 3 and all(part.shape[:1] == [size] for part in tf.nest.flatten(spec)):
        return dataset

    def pad(x: Any, y: Any, weight: Any = None) -> tuple[Any, Any, tf.Tensor]:
        rows = tf.shape(tf.nest.flatten(y)[0])[:1]
        weight = tf.ones(rows) if weight is None else tf.cast(weight, tf.float32)
        missing = size - rows[0]

        def fill(tensor: tf.Tensor) -> tf.Tensor:
            padded = tf.pad(tensor, [[0, missing], *[[0, 0]] * (len(tensor.shape) - 1)])
            return tf.ensure_shape(padded, [size, *tensor.shape[1:]])

        return tf.nest.map_structure(fill, (x, y, weight))

    return dataset.rebatch(size).map(pad).prefetch(2)


def _arrays(
    data: Any, num_classes: int | None, is_classifier: bool, part: str
) -> tuple[Any, Any, Any]:
    """x, y, and the weights [N] or None."""
    if isinstance(data, tuple) and len(data) == 3:
        weight = np.asarray(data[2])
        if weight.dtype.kind not in "biuf" or weight.ndim != 1:
            raise UserError(
                "Weights must be one number for each example, [N], received an array of shape "
                f"{weight.shape}.\nGive (x, y, weight) with such weights, or (x, y)."
            )
        check_weights(weight, f"The {part} data")
        x, y, _ = _arrays(data[:2], num_classes, is_classifier, part)
        return x, y, weight.astype(np.float32)
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise UserError(
            f"Expected data as (x, y) arrays or a tf.data.Dataset of batches, received "
            f"{type(data).__name__}.\nGive for instance train=(x_train, y_train)."
        )
    where = f"The {part} data"
    if not is_classifier:
        check_examples_are_finite(data[0], where)
        return data[0], data[1], None
    x = tuple(data[0]) if _is_list_of_arrays(data[0]) else data[0]
    if isinstance(x, Mapping) or _is_list_of_arrays(x):
        x = tf.nest.map_structure(np.asarray, x)
        check_examples_are_finite(x, where)
        return x, _class_number_array(np.asarray(data[1]), num_classes), None
    x, y = np.asarray(x), np.asarray(data[1])
    for name, array in (("x", x), ("y", y)):
        if array.dtype.kind not in "biuf":
            raise UserError(
                f"{name} must be an array of numbers of one shape, received the dtype "
                f"{array.dtype}.\nGive for instance train=(x_train, y_train)."
            )
    check_examples_are_finite(x, where)
    return x, _class_number_array(y, num_classes), None


def _is_list_of_arrays(x: Any) -> bool:
    return isinstance(x, (tuple, list)) and bool(x) and hasattr(x[0], "shape")


def _is_plain(x: Any) -> bool:
    """Whether the examples are one array."""
    return isinstance(x, np.ndarray)


def _class_number_array(y: Any, num_classes: int | None) -> Any:
    if y.ndim == 2:
        _check_columns(y.shape[1], num_classes)
        if y.shape[1] > 1:
            _check_one_hot(y)
        y = y[:, 0] if y.shape[1] == 1 else y.argmax(axis=1)
    y = y.astype(np.int64)
    _check_range(y, num_classes)
    return y


def _checked(
    dataset: tf.data.Dataset, num_classes: int | None, is_classifier: bool
) -> tf.data.Dataset:
    """The dataset, of a classifier with labels as class numbers [B].

    Its batches may have weights [B].
    """
    spec = dataset.element_spec
    if isinstance(spec, tuple) and len(spec) == 3:
        shape, dtype = (
            getattr(spec[2], "shape", tf.TensorShape(())),
            getattr(spec[2], "dtype", None),
        )
        if shape.rank not in (1, None) or dtype == tf.string:
            raise UserError(
                f"Weights must be one number for each example, [B], received {spec[2]}.\n"
                "Give batches (x, y, weight) of such weights, or (x, y)."
            )
    elif not isinstance(spec, tuple) or len(spec) != 2:
        raise UserError(
            f"Expected a tf.data.Dataset of (x, y) batches, received elements {spec}.\nBatch it."
        )
    if is_classifier and (not isinstance(spec[1], tf.TensorSpec) or (spec[1].shape.rank or 0) > 2):
        raise UserError(
            f"Labels must be class numbers [B] or one-hot [B, C], received {spec[1]}.\n"
            "Give batches of (x, y) with such labels."
        )
    if tf.nest.flatten(spec[1])[0].shape.rank == 0:
        raise UserError(
            "Expected a tf.data.Dataset of (x, y) batches, received single examples.\n"
            "Batch it: dataset.batch(128)."
        )
    if int(dataset.cardinality()) == tf.data.INFINITE_CARDINALITY:
        raise UserError(
            "The tf.data.Dataset has no end, so an epoch would have none.\n"
            "Leave repeat() out, or end it with take(number_of_batches)."
        )
    if not is_classifier:
        return dataset
    if spec[1].shape.rank == 2:
        _check_columns(spec[1].shape[1], num_classes)
    elif spec[1].dtype == tf.int32:
        return dataset

    def convert(x: Any, y: tf.Tensor, *weight: tf.Tensor) -> tuple[Any, ...]:
        if y.shape.rank == 2:
            y = y[:, 0] if y.shape[1] == 1 else tf.argmax(y, axis=1)
        return x, tf.cast(y, tf.int32), *weight

    return dataset.map(convert)


def _first_size(
    dataset: tf.data.Dataset, num_classes: int | None, is_classifier: bool, part: str
) -> int:
    """The size of the first batch, which is looked at."""
    for x, y, *weight in dataset.take(1):
        where = f"The first batch of the {part} data"
        check_examples_are_finite(x, where)
        for numbers in weight:
            check_weights(numbers, where)
        if is_classifier:
            _check_range(y.numpy(), num_classes)
        return int(tf.nest.flatten(y)[0].shape[0])
    raise UserError("The tf.data.Dataset is empty.\nGive one with at least one batch.")


def _check_columns(columns: int | None, num_classes: int | None) -> None:
    if None not in (columns, num_classes) and columns not in (1, num_classes):
        raise UserError(
            f"One-hot labels have {columns} columns, and the model has {num_classes} classes.\n"
            "Give data of the classes that the model was trained on."
        )


def _check_one_hot(y: Any) -> None:
    if y.size and not (np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all()):
        raise UserError(
            "Labels with several columns must be one-hot: a 1 in each row, else 0.\n"
            "For several labels at once or for numbers, give a loss, such as "
            "loss='binary_crossentropy' or 'mean_squared_error'."
        )


def _check_range(y: Any, num_classes: int | None) -> None:
    if y.size and num_classes is not None and not 0 <= y.min() <= y.max() < num_classes:
        raise UserError(
            f"Labels must be class numbers in 0 .. {num_classes - 1}, as the model has "
            f"{num_classes} classes, received {y.min()} .. {y.max()}.\n"
            "Give data of the classes that the model was trained on."
        )
