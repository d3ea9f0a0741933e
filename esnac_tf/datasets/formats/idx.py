"""The IDX files of MNIST and the data sets that copy its layout.

A file is two zero bytes, a byte for the type (8: unsigned bytes), a byte for the number of
dimensions, every dimension as a big-endian 32-bit integer, then the values, the last dimension
running fastest. Any file may be compressed with gzip.

Source: LeCun, Cortes and Burges, "The MNIST database of handwritten digits".
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path

import numpy as np

from esnac_tf.datasets.formats import keras_download
from esnac_tf.datasets.splits import Array, Source
from esnac_tf.errors import UserError

SIZE = 28
NUM_CLASSES = 10
DESCRIPTION = "the IDX files (train-images-idx3-ubyte and so on, also as .gz) in it"

_UNSIGNED_BYTE = 8


def read_source(
    name: str, data_dir: str | os.PathLike[str] | None, class_names: tuple[str, ...]
) -> Source:
    """Reads a data set with the layout of MNIST, from its files or through Keras.

    Args:
        name: A module of `keras.datasets`, such as "mnist".
        data_dir: The folder with the four IDX files. None downloads the data through Keras.
        class_names: A name for every class, in the order of the labels.

    Returns:
        Pictures uint8 [N, 28, 28, 1], 0 to 255.

    Raises:
        UserError: If the files are missing or broken, or the download fails.

    Example:
        >>> read_source("mnist", "/no/such/folder", ("zero", "one"))
        Traceback (most recent call last):
            ...
        esnac_tf.errors.UserError: --data_dir=/no/such/folder is not a folder.
        Give a folder with the IDX files (train-images-idx3-ubyte and so on, also as .gz) in it.
    """
    if data_dir is None:
        return Source(*keras_download.download(name, DESCRIPTION), class_names)
    return Source(*read(data_dir), class_names)


def read(data_dir: str | os.PathLike[str]) -> tuple[Array, Array, Array, Array]:
    """Reads the four files of MNIST or of a data set with the same layout.

    Args:
        data_dir: The folder with train-images-idx3-ubyte, train-labels-idx1-ubyte,
            t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, each possibly with .gz.

    Returns:
        x_train uint8 [N, 28, 28, 1], y_train int32 [N], x_test and y_test.

    Raises:
        UserError: If the folder or a file is missing, or a file is broken.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for part in ("train", "t10k"):
        ...         pictures = struct.pack(">4B3I", 0, 0, 8, 3, 2, 28, 28) + bytes(2 * 28 * 28)
        ...         labels = struct.pack(">4BI", 0, 0, 8, 1, 2) + bytes([3, 9])
        ...         _ = Path(folder, f"{part}-images-idx3-ubyte").write_bytes(pictures)
        ...         _ = Path(folder, f"{part}-labels-idx1-ubyte").write_bytes(labels)
        ...     x_train, y_train, x_test, y_test = read(folder)
        >>> x_train.shape, y_train.tolist()
        ((2, 28, 28, 1), [3, 9])
    """
    root = Path(os.path.expanduser(data_dir))
    if not root.is_dir():
        raise UserError(f"--data_dir={root} is not a folder.\nGive a folder with {DESCRIPTION}.")
    return (*_read_part(root, "train"), *_read_part(root, "t10k"))


def _read_part(root: Path, part: str) -> tuple[Array, Array]:
    pictures_path = _find(root, f"{part}-images", 3)
    labels_path = _find(root, f"{part}-labels", 1)
    pictures, labels = _parse(pictures_path, 3), _parse(labels_path, 1)
    if pictures.shape[1:] != (SIZE, SIZE):
        raise UserError(
            f"{pictures_path} is broken: expected pictures of {SIZE} by {SIZE} pixels, "
            f"received {pictures.shape[1]} by {pictures.shape[2]}."
        )
    if len(pictures) != len(labels):
        raise UserError(
            f"{labels_path} does not belong to {pictures_path.name}: expected {len(pictures)} "
            f"labels, received {len(labels)}."
        )
    if labels.max() >= NUM_CLASSES:
        raise UserError(
            f"{labels_path} is broken: expected labels in 0 .. {NUM_CLASSES - 1}, "
            f"received {labels.max()}."
        )
    return pictures[..., np.newaxis], labels.astype(np.int32)


def _find(root: Path, stem: str, rank: int) -> Path:
    # Some mirrors write the name with a dot.
    for name in (f"{stem}-idx{rank}-ubyte", f"{stem}.idx{rank}-ubyte"):
        for path in (root / name, root / f"{name}.gz"):
            if path.is_file():
                return path
    raise UserError(
        f"--data_dir={root} has no {stem}-idx{rank}-ubyte and no {stem}-idx{rank}-ubyte.gz.\n"
        f"Give a folder with {DESCRIPTION}."
    )


def _parse(path: Path, rank: int) -> Array:
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"Cannot read {path}: {error}.\nDownload it again.") from error
    header_bytes = 4 + 4 * rank
    magic = bytes([0, 0, _UNSIGNED_BYTE, rank])
    if content[:4] != magic or len(content) < header_bytes:
        raise UserError(
            f"{path} is broken: expected an IDX file that begins with {magic.hex(' ')}, "
            f"received {content[:4].hex(' ') or 'nothing'}.\nDownload it again."
        )
    shape = struct.unpack(f">{rank}I", content[4:header_bytes])
    expected, received = math.prod(shape), len(content) - header_bytes
    if expected != received or shape[0] == 0:
        raise UserError(
            f"{path} is broken: expected {expected} bytes for the shape {shape} in its head, "
            f"received {received}.\nDownload it again."
        )
    return np.frombuffer(content, np.uint8, offset=header_bytes).reshape(shape)
