"""CIFAR-100: 50,000 + 10,000 colour pictures of 32 by 32 pixels in 100 (fine) classes.

Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

from __future__ import annotations

import os

from esnac_tf.datasets.formats import cifar_binary
from esnac_tf.datasets.splits import Source

ARCHIVE = cifar_binary.Archive(
    folder="cifar-100-binary",
    train_files=("train.bin",),
    test_files=("test.bin",),
    label_ranges=(20, 100),  # The coarse label comes first; the fine one is used.
    names_file="fine_label_names.txt",
)
CLASS_NAMES = (
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle",
    "bottle", "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle",
    "caterpillar", "cattle", "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch",
    "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish", "forest", "fox",
    "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion",
    "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom",
    "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree",
    "plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road",
    "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake",
    "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone",
    "television", "tiger", "tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale",
    "willow_tree", "wolf", "woman", "worm",
)  # fmt: skip


def read(data_dir: str | os.PathLike[str] | None = None) -> Source:
    """Reads CIFAR-100 with its fine labels.

    Args:
        data_dir: A folder that is or contains `cifar-100-binary`, the unpacked binary version.
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
        Give a folder with the unpacked binary archive, cifar-100-binary, in it.
    """
    return cifar_binary.read_source("cifar100", data_dir, ARCHIVE, CLASS_NAMES)
