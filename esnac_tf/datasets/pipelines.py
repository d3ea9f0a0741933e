"""Arrays into batches: shuffled and varied for training, in order for evaluation.

The pictures lie in memory once, as they were stored; indices are shuffled, and every batch is
gathered, varied and turned into float32 on the CPU while the last one is computed on. All shapes
are fixed, so a training step is traced once. Shape letters: N pictures, B batch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from esnac_tf.datasets.splits import Array, channel_statistics, check_augmentation
from esnac_tf.datasets.structures import check_examples_are_finite
from esnac_tf.errors import UserError

PADDING = 4


class TrainingBatches:
    """The batches of a training set, anew for every epoch.

    The content of epoch e depends on nothing but the arguments here and e: a resumed run gets what
    an uninterrupted one would have got. Two epochs differ in their order, in their crops and flips,
    and in which N % batch_size pictures they leave out.

    Args:
        x: uint8 or numbers [N, ...], N at least 1.
        y: Class numbers [N].
        batch_size: At least 1. B is the smaller of it and N.
        augmentation: None, or "crop_flip" for pictures [N, H, W, C]: `crop_flip` below.
        fill: What "crop_flip" pads with: a number or C numbers in the units of `x`, for a teacher
            that normalises `Splits.normalization.mean`. None: the mean of every channel of `x`.
        seed: Any 64-bit integer.
        read_again: Reads the same from files: where there are such on other machines, too, a large
            training set need not be sent to them. It can be pickled.

    Attributes:
        batch_size: B.
        num_batches: How many batches an epoch has, N // B.
        read_again: As given.
        is_repeatable: True: an epoch gives the same whenever it is asked for.

    Raises:
        UserError: If the arguments don't fit each other, or `x` holds NaN or infinity.

    Example:
        >>> x, y = np.zeros([10, 8, 8, 3], np.uint8), np.arange(10)
        >>> batches = TrainingBatches(x, y, batch_size=4, augmentation="crop_flip", seed=1)
        >>> for epoch in range(2):
        ...     for images, labels in batches.epoch(epoch):
        ...         print(epoch, images.shape, images.dtype.name, labels.shape)
        0 (4, 8, 8, 3) float32 (4,)
        0 (4, 8, 8, 3) float32 (4,)
        1 (4, 8, 8, 3) float32 (4,)
        1 (4, 8, 8, 3) float32 (4,)
    """

    is_repeatable = True

    def __init__(
        self,
        x: Array,
        y: Array,
        batch_size: int,
        *,
        augmentation: str | None = None,
        fill: float | Sequence[float] | None = None,
        seed: int = 0,
        read_again: Callable[[], TrainingBatches] | None = None,
    ) -> None:
        _check(x, y, batch_size)
        check_augmentation(augmentation)
        if augmentation == "crop_flip":
            if x.ndim != 4:
                raise UserError(
                    "augmentation='crop_flip' needs pictures [N, H, W, C], "
                    f"received the shape {x.shape}."
                )
            if fill is None:
                fill = channel_statistics(x).mean
            if np.shape(fill) not in ((), (1,), (x.shape[-1],)):
                raise UserError(
                    f"fill must be one number or one for each of the {x.shape[-1]} channels, "
                    f"received the shape {np.shape(fill)}."
                )
        self.batch_size = min(batch_size, len(x))
        self.num_batches = len(x) // self.batch_size
        self.read_again = read_again
        self._seed = seed
        # tf.data computes on the CPU, wherever the model is.
        with tf.device("CPU:0"):
            self._x, self._y = _in_memory(x, y)
            self._fill = None if fill is None else tf.constant(fill, tf.float32)
        self._augment = augmentation == "crop_flip"
        # Traced once: the dataset of every epoch calls the same graph.
        self._make_batch = tf.function(
            self._gather,
            input_signature=[
                tf.TensorSpec([self.batch_size], tf.int32),
                tf.TensorSpec([2], tf.int64),
                tf.TensorSpec([], tf.int64),
            ],
            autograph=False,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """On its way to another process it is its arrays."""
        augmentation = "crop_flip" if self._augment else None
        fill = None if self._fill is None else self._fill.numpy()
        make = functools.partial(
            TrainingBatches,
            augmentation=augmentation,
            fill=fill,
            seed=self._seed,
            read_again=self.read_again,
        )
        return make, (*self.arrays, self.batch_size)

    @property
    def arrays(self) -> tuple[Array, Array]:
        """All examples [N, ...] as they lie in memory, and their class numbers int32 [N]."""
        return self._x.numpy(), self._y.numpy()

    def epoch(self, epoch: int) -> tf.data.Dataset:
        """The batches of one epoch.

        Args:
            epoch: From 0 up.

        Returns:
            `num_batches` elements (x float32 [B, ...], y int32 [B]). It may be given to
            `strategy.experimental_distribute_dataset`, B being the global batch size.

        Raises:
            ValueError: If `epoch` is negative.
        """
        if epoch < 0:
            raise ValueError(f"epoch must be at least 0, received {epoch}.")
        with tf.device("CPU:0"):
            seed = tf.constant([self._seed, epoch], tf.int64)
            order = tf.random.experimental.stateless_shuffle(tf.range(tf.shape(self._x)[0]), seed)
            indices = order[: self.num_batches * self.batch_size]
            indices = tf.reshape(indices, [self.num_batches, self.batch_size])
            dataset = tf.data.Dataset.from_tensor_slices((indices, tf.range(self.num_batches)))
            dataset = dataset.map(
                lambda rows, step: self._make_batch(rows, seed, tf.cast(step, tf.int64)),
                num_parallel_calls=tf.data.AUTOTUNE,
                deterministic=True,
            )
            return _finish(dataset)

    def _gather(
        self, indices: tf.Tensor, seed: tf.Tensor, step: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        x = tf.cast(tf.gather(self._x, indices), tf.float32)
        if self._augment:
            x = crop_flip(x, self._fill, tf.random.fold_in(seed, step))
        return x, tf.gather(self._y, indices)


def evaluation_batches(x: Array, y: Array, batch_size: int) -> tf.data.Dataset:
    """The batches of a validation or test set, in order, all of one shape.

    Args:
        x: uint8 or numbers [N, ...], N at least 1.
        y: Class numbers [N].
        batch_size: B, at least 1.

    Returns:
        ceil(N / B) elements (x float32 [B, ...], y int32 [B], weight float32 [B]). Weights are 1;
        the last batch is filled up with rows of zeros of weight 0. It may be iterated any number
        of times, and may be given to `strategy.experimental_distribute_dataset`.

    Raises:
        UserError: If the arguments don't fit each other, or `x` holds NaN or infinity.

    Example:
        >>> for x, y, weight in evaluation_batches(np.ones([3, 1]), np.array([4, 5, 6]), 2):
        ...     print(x.numpy().tolist(), y.numpy().tolist(), weight.numpy().tolist())
        [[1.0], [1.0]] [4, 5] [1.0, 1.0]
        [[1.0], [0.0]] [6, 0] [1.0, 0.0]
    """
    _check(x, y, batch_size)
    num_examples = len(x)
    num_batches = -(-num_examples // batch_size)
    with tf.device("CPU:0"):
        x_all, y_all = _in_memory(x, y)

        def gather(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            rows = step * batch_size + tf.range(batch_size)
            real = rows < num_examples
            rows = tf.minimum(rows, num_examples - 1)
            weight = tf.cast(real, tf.float32)
            column = tf.reshape(weight, [batch_size] + [1] * (x.ndim - 1))
            images = tf.cast(tf.gather(x_all, rows), tf.float32) * column
            return images, tf.gather(y_all, rows) * tf.cast(real, tf.int32), weight

        dataset = tf.data.Dataset.from_tensor_slices(tf.range(num_batches))
        dataset = dataset.map(gather, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        return _finish(dataset)


def crop_flip(x: tf.Tensor, fill: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Crops pictures at random after padding them, and flips half of them left to right.

    Every picture is padded by `PADDING` = 4 pixels on all sides with `fill`, cropped to its old
    size at a random place (81 places, equally likely), and then flipped with probability 1/2. All
    pictures of the batch are done at once, by gathering rows and then columns.

    Args:
        x: float32 [B, H, W, C], in any units.
        fill: float32, broadcast to [C], in the units of `x`. The paper pads with zeros after the
            normalisation; on raw pixels that is the mean of every channel.
        seed: Two integers [2]. Equal seeds give equal crops and flips.

    Returns:
        float32 [B, H, W, C].

    Example:
        >>> x = tf.ones([2, 8, 8, 3])
        >>> bool(tf.reduce_all(crop_flip(x, tf.constant(1.0), tf.constant([0, 0])) == x))
        True
    """
    batch, height, width, _ = x.shape
    seeds = tf.random.split(seed, 2)
    offsets = tf.random.stateless_uniform(
        [2, batch, 1], seeds[0], maxval=2 * PADDING + 1, dtype=tf.int32
    )
    flip = tf.random.stateless_uniform([batch, 1], seeds[1]) < 0.5
    rows = tf.range(height) + offsets[0] - PADDING
    columns = tf.where(flip, tf.range(width)[::-1], tf.range(width)) + offsets[1] - PADDING
    inside_rows = (rows >= 0) & (rows < height)
    inside_columns = (columns >= 0) & (columns < width)
    inside = inside_rows[:, :, tf.newaxis] & inside_columns[:, tf.newaxis, :]
    x = tf.gather(x, tf.clip_by_value(rows, 0, height - 1), axis=1, batch_dims=1)
    x = tf.gather(x, tf.clip_by_value(columns, 0, width - 1), axis=2, batch_dims=1)
    return tf.where(inside[..., tf.newaxis], x, fill)


def _check(x: Array, y: Array, batch_size: int) -> None:
    if x.ndim < 2 or y.ndim != 1 or len(x) != len(y) or len(x) == 0:
        raise UserError(
            "x and y must be [N, ...] and [N] with N at least 1, "
            f"received the shapes {x.shape} and {y.shape}."
        )
    if batch_size < 1:
        raise UserError(f"--batch_size must be at least 1, received {batch_size}.")
    check_examples_are_finite(x)


def _in_memory(x: Array, y: Array) -> tuple[tf.Tensor, tf.Tensor]:
    x = x if x.dtype == np.uint8 else x.astype(np.float32, copy=False)
    return tf.constant(x), tf.constant(y, tf.int32)


def _finish(dataset: tf.data.Dataset) -> tf.data.Dataset:
    options = tf.data.Options()
    # There are no files to share out among several machines: share out the batches.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return dataset.with_options(options).prefetch(tf.data.AUTOTUNE)
