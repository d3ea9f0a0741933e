"""CIFAR-10: 50,000 + 10,000 colour pictures of 32 by 32 pixels in 10 classes.

Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

from __future__ import annotations

import os

from esnac_tf.datasets.formats import cifar_binary
from esnac_tf.datasets.splits import Source

ARCHIVE = cifar_binary.Archive(
    folder="cifar-10-batches-bin",
    train_files=tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
    test_files=("test_batch.bin",),
    label_ranges=(10,),
    names_file="batches.meta.txt",
)
CLASS_NAMES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip


def read(data_dir: str | os.PathLike[str] | None = None) -> Source:
    """Reads CIFAR-10.

    Args:
        data_dir: A folder that is or contains `cifar-10-batches-bin`, the unpacked binary version.
            None downloads it through Keras.

    Returns:
        Pictures uint8 [N, 32, 32, 3], 0 to 255, with "crop_flip" as augmentation.

    Raises:
        UserError: If the files are missing or broken, or the download fails.

    Example:
        >>> read("/no/such/folder")
        Traceback (most recent call last):
            ...
        esnac_tf.errors.UserError: --data_dir=/no/such/folder is not a folder.
        Give a folder with the unpacked binary archive, cifar-10-batches-bin, in it.
    """
    return cifar_binary.read_source("cifar10", data_dir, ARCHIVE, CLASS_NAMES)
