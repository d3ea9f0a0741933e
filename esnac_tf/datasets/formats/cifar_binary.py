"""The binary version of the CIFAR archives.

A file is a sequence of records without a header. A record is one label byte (CIFAR-100: two, the
coarse and the fine label) and 3 * 32 * 32 pixel bytes: the red, the green and the blue plane, each
row by row.

Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009, and the
description on https://www.cs.toronto.edu/~kriz/cifar.html.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np

from esnac_tf.datasets.formats import keras_download
from esnac_tf.datasets.splits import Array, Normalization, Source
from esnac_tf.errors import UserError

SIZE = 32
CHANNELS = 3

# What the paper normalises CIFAR pictures by, in units of 0 to 255. The deviations are smaller than
# those of all pixels (about 62), but published teachers were trained with these numbers.
NORMALIZATION = Normalization(
    mean=(0.4914 * 255, 0.4822 * 255, 0.4465 * 255),
    standard_deviation=(0.2023 * 255, 0.1994 * 255, 0.2010 * 255),
)


@dataclasses.dataclass(frozen=True)
class Archive:
    """How one of the archives is laid out.

    Args:
        folder: The folder that the archive unpacks to.
        train_files: The files with the training pictures, in order.
        test_files: The files with the test pictures.
        label_ranges: The number of values of every label byte of a record. The last byte is the
            label that is used.
        names_file: The text file with the names of the classes, one a line.

    Example:
        >>> Archive("cifar-100-binary", ("train.bin",), ("test.bin",), (20, 100),
        ...         "fine_label_names.txt").record_bytes
        3074
    """

    folder: str
    train_files: tuple[str, ...]
    test_files: tuple[str, ...]
    label_ranges: tuple[int, ...]
    names_file: str

    @property
    def record_bytes(self) -> int:
        """The length of a record in bytes."""
        return len(self.label_ranges) + CHANNELS * SIZE * SIZE

    @property
    def num_classes(self) -> int:
        """The number of values of the label that is used."""
        return self.label_ranges[-1]

    @property
    def description(self) -> str:
        """What a folder given as --data_dir must be or contain, for messages."""
        return f"the unpacked binary archive, {self.folder}, in it"


def read_source(
    name: str,
    data_dir: str | os.PathLike[str] | None,
    archive: Archive,
    class_names: tuple[str, ...],
) -> Source:
    """Reads one of the CIFAR data sets, from its unpacked archive or through Keras.

    Args:
        name: A module of `keras.datasets`, such as "cifar10".
        data_dir: The unpacked folder itself, or the folder that contains it. None downloads the
            data through Keras.
        archive: How the archive is laid out.
        class_names: A name for every class, where the archive has no file with the names.

    Returns:
        Pictures uint8 [N, 32, 32, 3], 0 to 255, with "crop_flip" as augmentation.

    Raises:
        UserError: If the files are missing or broken, or the download fails.

    Example:
        >>> toy = Archive("toy", ("train.bin",), ("test.bin",), (2,), "names.txt")
        >>> read_source("cifar10", "/no/such/folder", toy, ("cat", "dog"))
        Traceback (most recent call last):
            ...
        esnac_tf.errors.UserError: --data_dir=/no/such/folder is not a folder.
        Give a folder with the unpacked binary archive, toy, in it.
    """
    names_in_archive = None
    if data_dir is None:
        arrays = keras_download.download(name, archive.description)
    else:
        arrays, names_in_archive = read(data_dir, archive)
    return Source(
        *arrays,
        class_names=names_in_archive or class_names,
        augmentation="crop_flip",
        normalization=NORMALIZATION,
    )


def read(
    data_dir: str | os.PathLike[str], archive: Archive
) -> tuple[tuple[Array, Array, Array, Array], tuple[str, ...] | None]:
    """Reads an unpacked archive.

    Args:
        data_dir: The unpacked folder itself, or the folder that contains it.
        archive: How the archive is laid out.

    Returns:
        The arrays x_train uint8 [N, 32, 32, 3], y_train int32 [N], x_test and y_test; and the
        names of the classes, None where the file with the names is missing.

    Raises:
        UserError: If the folder or a file is missing, the size of a file is not a multiple of the
            record's, a label is out of range, or the number of names is wrong.

    Example:
        >>> import tempfile
        >>> toy = Archive("toy", ("train.bin",), ("test.bin",), (2,), "names.txt")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("train.bin", "test.bin"):
        ...         _ = Path(folder, name).write_bytes(bytes([1]) + bytes(3072))
        ...     (x_train, y_train, _, _), class_names = read(folder, toy)
        >>> x_train.shape, y_train.tolist(), class_names
        ((1, 32, 32, 3), [1], None)
    """
    folder = _find(data_dir, archive)
    x_train, y_train = _read_files(folder, archive.train_files, archive)
    x_test, y_test = _read_files(folder, archive.test_files, archive)
    names = _read_names(folder / archive.names_file, archive)
    return (x_train, y_train, x_test, y_test), names


def _find(data_dir: str | os.PathLike[str], archive: Archive) -> Path:
    root = Path(os.path.expanduser(data_dir))
    files = (*archive.train_files, *archive.test_files)
    if not root.is_dir():
        raise UserError(
            f"--data_dir={root} is not a folder.\nGive a folder with {archive.description}."
        )
    folder = root / archive.folder
    if not folder.is_dir():
        folder = root
        if root.name != archive.folder and not any((root / name).is_file() for name in files):
            raise UserError(
                f"--data_dir={root} has no {archive.folder} in it, nor its files.\n"
                f"Give a folder with {archive.description}."
            )
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"{folder} lacks {', '.join(missing)}.\nUnpack the archive {archive.folder} again."
        )
    return folder


def _read_files(folder: Path, names: tuple[str, ...], archive: Archive) -> tuple[Array, Array]:
    parts = [_read_file(folder / name, archive) for name in names]
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])


def _read_file(path: Path, archive: Archive) -> tuple[Array, Array]:
    try:
        content = np.fromfile(path, np.uint8)
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from error
    if content.size == 0 or content.size % archive.record_bytes:
        raise UserError(
            f"{path} is broken: expected a multiple of {archive.record_bytes} bytes (a record), "
            f"received {content.size} bytes.\nUnpack the archive {archive.folder} again."
        )
    records = content.reshape(-1, archive.record_bytes)
    for byte, num_values in enumerate(archive.label_ranges):
        labels = records[:, byte]
        if labels.max() >= num_values:
            first = int(np.argmax(labels >= num_values))
            raise UserError(
                f"{path} is broken: expected labels in 0 .. {num_values - 1}, received "
                f"{labels[first]} in record {first}.\nIs it from {archive.folder}?"
            )
    planes = records[:, len(archive.label_ranges) :].reshape(-1, CHANNELS, SIZE, SIZE)
    x = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
    return x, records[:, len(archive.label_ranges) - 1].astype(np.int32)


def _read_names(path: Path, archive: Archive) -> tuple[str, ...] | None:
    if not path.is_file():
        return None
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read {path} as text: {error}.") from error
    names = tuple(line.strip() for line in lines if line.strip())
    if len(names) != archive.num_classes:
        raise UserError(
            f"{path} is broken: expected {archive.num_classes} names, one a line, "
            f"received {len(names)}."
        )
    return names
