"""Digits: 1,797 grey pictures of 8 by 8 pixels that scikit-learn brings along.

Small enough to try the whole search in minutes, without a download.

Source: Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
Repository, 1998.
"""

from __future__ import annotations

import os

import numpy as np

from esnac_tf.datasets.splits import Source
from esnac_tf.errors import MissingExtraError, UserError

CLASS_NAMES = tuple(str(digit) for digit in range(10))

# The order in which scikit-learn has them goes writer by writer; this mixes them, always alike.
_SHUFFLE_SEED = 0
_TEST_FRACTION = 0.2


def read(data_dir: str | os.PathLike[str] | None = None) -> Source:
    """Reads the digits of scikit-learn, in a fixed random order, the last 20 % as test set.

    Args:
        data_dir: Must be None: the pictures come with scikit-learn.

    Returns:
        Pictures uint8 [N, 8, 8, 1], 0 to 16.

    Raises:
        MissingExtraError: If scikit-learn is not installed.
        UserError: If `data_dir` is given.

    Example:
        >>> source = read()
        >>> source.x_train.shape, source.x_test.shape
        ((1438, 8, 8, 1), (359, 8, 8, 1))
    """
    if data_dir is not None:
        raise UserError(
            f"--data_dir={os.fspath(data_dir)} has no meaning with --dataset=digits, "
            "which comes with scikit-learn.\nLeave --data_dir out."
        )
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtraError("--dataset=digits", "scikit-learn", "quickstart") from error
    bunch = load_digits()
    order = np.random.default_rng(_SHUFFLE_SEED).permutation(len(bunch.target))
    x = bunch.images[order, :, :, np.newaxis].astype(np.uint8)
    y = bunch.target[order].astype(np.int32)
    num_train = len(x) - round(_TEST_FRACTION * len(x))
    return Source(x[:num_train], y[:num_train], x[num_train:], y[num_train:], CLASS_NAMES)
