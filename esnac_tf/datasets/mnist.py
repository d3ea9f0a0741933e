"""MNIST: 60,000 + 10,000 grey pictures of 28 by 28 pixels of handwritten digits.

Source: LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document
recognition", 1998.
"""

from __future__ import annotations

import os

from esnac_tf.datasets.formats import idx
from esnac_tf.datasets.splits import Source

CLASS_NAMES = tuple(str(digit) for digit in range(10))


def read(data_dir: str | os.PathLike[str] | None = None) -> Source:
    """Reads MNIST.

    Args:
        data_dir: The folder with the four IDX files. None downloads the data through Keras.

    Returns:
        Pictures uint8 [N, 28, 28, 1], 0 to 255.

    Raises:
        UserError: If the files are missing or broken, or the download fails.

    Example:
        >>> read("/no/such/folder")
        Traceback (most recent call last):
            ...
        esnac_tf.errors.UserError: --data_dir=/no/such/folder is not a folder.
        Give a folder with the IDX files (train-images-idx3-ubyte and so on, also as .gz) in it.
    """
    return idx.read_source("mnist", data_dir, CLASS_NAMES)
