"""Training batches of a data set, which can be read again wherever its files are."""

from __future__ import annotations

import functools
from collections.abc import Callable

from esnac_tf.datasets.pipelines import TrainingBatches
from esnac_tf.datasets.splits import Array, Splits


def scaled(x: Array, scale: float) -> Array:
    """Pixels divided by a number; as they are for 1, else float32.

    Example:
        >>> import numpy as np
        >>> scaled(np.array([0, 255], np.uint8), 255.0)
        array([0., 1.], dtype=float32)
    """
    return x if scale == 1 else (x / scale).astype("float32")


def training_batches(
    splits: Splits, batch_size: int, seed: int = 0, scale: float = 1.0
) -> TrainingBatches:
    """The training batches of a data set; another process may read them itself.

    Args:
        splits: The data set.
        batch_size: B, at least 1.
        seed: Seed of their order and of what varies pictures.
        scale: What pixels are divided by, above 0.

    Example:
        >>> from esnac_tf import datasets
        >>> training_batches(datasets.load("digits", train_examples=1000), 128).num_batches
        7
    """
    load = splits.load_again
    return TrainingBatches(
        scaled(splits.x_train, scale),
        splits.y_train,
        batch_size,
        augmentation=splits.augmentation,
        fill=[mean / scale for mean in splits.normalization.mean],
        seed=seed,
        read_again=load and functools.partial(_read, load, batch_size, seed, scale),
    )


def _read(load: Callable[[], Splits], batch_size: int, seed: int, scale: float) -> TrainingBatches:
    return training_batches(load(), batch_size, seed, scale)
