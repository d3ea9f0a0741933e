"""Examples of several arrays, labels of any shape, PyDatasets -> batches.

Shape letters: N examples, B batch.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from esnac_tf.errors import UserError


class StructuredBatches:
    """The batches of arrays in any structure, shuffled anew for every epoch.

    As `TrainingBatches` of single arrays: the content of an epoch depends on the arguments and
    the epoch alone.

    Args:
        x: Arrays [N, ...] in the structure that the model takes: a dict, a list, or one array.
        y: Arrays [N, ...] likewise.
        batch_size: At least 1. B is the smaller of it and N.
        seed: Any 64-bit integer.
        weight: How much each example counts, [N]; None: all alike.

    Attributes:
        batch_size: B.
        num_batches: How many batches an epoch has, N // B.
        is_repeatable: True: an epoch gives the same whenever it is asked for.

    Raises:
        UserError: The arrays have different N.

    Example:
        >>> batches = StructuredBatches({"a": np.zeros((5, 2))}, np.zeros((5, 3)), batch_size=2)
        >>> for x, y in batches.epoch(0):
        ...     print(x["a"].shape, y.shape)
        (2, 2) (2, 3)
        (2, 2) (2, 3)
    """

    is_repeatable = True

    def __init__(self, x: Any, y: Any, batch_size: int, seed: int = 0, weight: Any = None) -> None:
        with tf.device("CPU:0"):
            given = (x, y) if weight is None else (x, y, weight)
            self._parts, num_examples = _tensors(given)
        self.batch_size = min(batch_size, num_examples)
        self.num_batches = num_examples // self.batch_size
        self._seed, self._num_examples = seed, num_examples

    def __reduce__(self) -> tuple[Any, ...]:
        """On its way to another process it is its arrays."""
        x, y, *weight = tf.nest.pack_sequence_as(self._parts, self.arrays)
        return StructuredBatches, (x, y, self.batch_size, self._seed, *weight)

    @property
    def arrays(self) -> list[np.ndarray]:
        """All examples, labels and weights [N, ...], one array after the other."""
        parts = tf.nest.flatten(self._parts)
        return [p.numpy().astype("S") if p.dtype == tf.string else p.numpy() for p in parts]

    def epoch(self, epoch: int) -> tf.data.Dataset:
        """The batches of one epoch, (x, y) or (x, y, weight) with arrays [B, ...].

        Args:
            epoch: From 0 up.
        """
        seed = [self._seed, epoch]
        order = tf.random.experimental.stateless_shuffle(tf.range(self._num_examples), seed)
        indices = order[: self.num_batches * self.batch_size]
        indices = tf.reshape(indices, [self.num_batches, self.batch_size])

        def gather(rows: tf.Tensor) -> Any:
            return tf.nest.map_structure(lambda part: tf.gather(part, rows), self._parts)

        return _finish(tf.data.Dataset.from_tensor_slices(indices).map(gather))


def structured_evaluation_batches(
    x: Any, y: Any, batch_size: int, weight: Any = None
) -> tf.data.Dataset:
    """The batches of a validation or test set, in order, all of one shape.

    Args:
        x: As for `StructuredBatches`.
        y: Likewise.
        batch_size: B, at least 1.
        weight: Likewise.

    Returns:
        ceil(N / B) elements (x, y, weight [B]); the last is filled up with rows of weight 0.

    Raises:
        UserError: The arrays have different N.

    Example:
        >>> for x, y, weight in structured_evaluation_batches(np.zeros(3), np.zeros(3), 2):
        ...     print(weight.numpy().tolist())
        [1.0, 1.0]
        [1.0, 0.0]
    """
    with tf.device("CPU:0"):
        parts, num_examples = _tensors((x, y) if weight is None else (x, y, weight))

    def gather(step: tf.Tensor) -> Any:
        rows = step * batch_size + tf.range(batch_size)
        is_row = tf.cast(rows < num_examples, tf.float32)
        rows = tf.minimum(rows, num_examples - 1)
        x, y, *weights = tf.nest.map_structure(lambda part: tf.gather(part, rows), parts)
        return x, y, tf.cast(weights[0], tf.float32) * is_row if weights else is_row

    steps = tf.data.Dataset.range(-(-num_examples // batch_size), output_type=tf.int32)
    return _finish(steps.map(gather))


def dataset_of(batches: keras.utils.PyDataset) -> tf.data.Dataset:
    """A `keras.utils.PyDataset` as a tf.data.Dataset that asks it for its batches in order.

    Its `on_epoch_end` is called at the end of each pass, as `fit` does.

    Raises:
        UserError: It has no end, or its batches are not tuples.
    """
    number = batches.num_batches
    if number is None:
        raise UserError(
            "The PyDataset has no end, so an epoch would have none.\n"
            "Give it a method __len__ that returns the number of its batches."
        )
    first = batches[0]
    if not isinstance(first, tuple):
        raise UserError(
            f"The PyDataset must give batches (x, y), received {type(first).__name__}.\n"
            "Return a tuple from __getitem__."
        )

    def spec(part: Any) -> tf.TensorSpec:
        tensor = tf.convert_to_tensor(part)
        return tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype)

    def every() -> Any:
        for index in range(number):
            yield batches[index]
        batches.on_epoch_end()

    signature = tf.nest.map_structure(spec, first)
    dataset = tf.data.Dataset.from_generator(every, output_signature=signature)
    return dataset.apply(tf.data.experimental.assert_cardinality(number))


def check_examples_are_finite(x: Any, where: str = "The data") -> None:
    """Refuses examples with NaN or infinity, which no training recovers from.

    Args:
        x: Arrays or tensors [N, ...], in any structure.
        where: What they are, as the beginning of a sentence.

    Raises:
        UserError: There is such a number.

    Example:
        >>> check_examples_are_finite({"a": np.array([[1.0], [np.nan]])})
        Traceback (most recent call last):
            ...
        esnac_tf.errors.UserError: The data holds NaN or infinity, first in example 1.
        Leave such examples out, or put numbers there: np.nan_to_num(x) does.
    """
    for part in tf.nest.flatten(x):
        array = np.asarray(part)
        if array.dtype.kind != "f" or not array.size:
            continue
        if not (np.isfinite(array.min()) and np.isfinite(array.max())):  # needs no second array
            bad = ~np.isfinite(array).reshape(array.shape[0] if array.ndim else 1, -1).all(axis=1)
            raise UserError(
                f"{where} holds NaN or infinity, first in example {int(bad.argmax())}.\n"
                "Leave such examples out, or put numbers there: np.nan_to_num(x) does."
            )


def check_weights(weight: Any, where: str = "The data") -> None:
    """Refuses weights of examples that are negative, NaN or infinite.

    Args:
        weight: Numbers [N].
        where: What holds them, as the beginning of a sentence.

    Raises:
        UserError: There is such a weight.

    Example:
        >>> check_weights(np.array([1.0, -2.0]))
        Traceback (most recent call last):
            ...
        esnac_tf.errors.UserError: The data gives example 1 the weight -2.0.
        Weights must be finite and at least 0; 0 leaves an example out.
    """
    weight = np.asarray(weight).reshape(-1)
    bad = ~(np.isfinite(weight) & (weight >= 0))
    if bad.any():
        first = int(bad.argmax())
        raise UserError(
            f"{where} gives example {first} the weight {weight[first]}.\n"
            "Weights must be finite and at least 0; 0 leaves an example out."
        )


def _tensors(parts: Any) -> tuple[Any, int]:
    """Tensors of (x, y, ...) of arrays, float64 as float32, and N."""

    def tensor(part: Any) -> tf.Tensor:
        array = np.asarray(part)
        if array.dtype.kind not in "biufSU" or array.ndim < 1:
            raise UserError(
                f"Data must be arrays of numbers of one shape, received {type(part).__name__} "
                f"of the dtype {array.dtype}.\nGive for instance train=(x_train, y_train)."
            )
        return tf.constant(array.astype(np.float32) if array.dtype == np.float64 else array)

    # tf.data makes one tensor of a list, and none of a tuple.
    parts = tuple(tuple(part) if isinstance(part, list) else part for part in parts)
    parts = tf.nest.map_structure(tensor, parts)
    lengths = {int(part.shape[0]) for part in tf.nest.flatten(parts)}
    if len(lengths) != 1 or 0 in lengths:
        raise UserError(
            "All arrays of the data must have one number of examples, at least 1, received "
            f"{', '.join(map(str, sorted(lengths)))}.\nGive for instance train=(x_train, y_train)."
        )
    return parts, lengths.pop()


def _finish(dataset: tf.data.Dataset) -> tf.data.Dataset:
    options = tf.data.Options()
    # There are no files to share out among several machines: share out the batches.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return dataset.with_options(options).prefetch(2)
