"""Where the pictures come from: one file a data set, found by its name in the flag.

A data set is a module of this folder with `read(data_dir) -> Source`; `--dataset=cifar10` reads
`cifar10.py`. A path in place of a name reads an `.npz` file or a folder of pictures. The parsers
of file formats are in `formats/`, what turns arrays into batches is in `pipelines.py`.

Importing this package does not import TensorFlow.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import os
from pathlib import Path

from esnac_tf.datasets.splits import Normalization, Source, Splits, hold_out
from esnac_tf.errors import UserError
from esnac_tf.families import Family

__all__ = ["FAMILY", "Normalization", "Source", "Splits", "load", "names"]

FAMILY = Family(
    "dataset",
    __name__,
    frozenset({"digests", "given", "pipelines", "splits", "stored", "structures"}),
)


def names() -> list[str]:
    """Lists the data sets that `load` knows by name.

    Returns:
        The names in alphabetical order.

    Example:
        >>> "cifar10" in names()
        True
    """
    return FAMILY.names()


def load(
    name: str | os.PathLike[str],
    *,
    data_dir: str | os.PathLike[str] | None = None,
    train_examples: int | None = None,
    validation_examples: int | None = None,
    seed: int = 0,
) -> Splits:
    """Reads a data set and splits it into training, validation and test pictures.

    Args:
        name: One of `names()`, or the path of an `.npz` file (see `formats/npz.py`) or of a folder
            of pictures (see `formats/image_folder.py`). A name wins over a path of the same
            spelling; write `./digits` for a folder called digits.
        data_dir: The folder with the files of a named data set. None downloads them.
        train_examples: At least 1: only the first so many pictures are trained on. None: all that
            the validation set leaves.
        validation_examples: At least 1: the last so many pictures of the training set become the
            validation set. None: 5,000 of a training set of 50,000 and more, otherwise 10 %.
        seed: Any integer. Orders the pictures of a folder, and those of an `.npz` file that comes
            in the order of its classes. The named data sets do not depend on it.

    Returns:
        The three parts, raw as they were stored: nothing is scaled or normalised.

    Raises:
        UnknownNameError: If `name` is neither a known name nor a path.
        UserError: If files are missing or broken, or more pictures are asked for than there are.
        MissingExtraError: If the data set needs a package that is not installed.

    Example:
        >>> splits = load("digits", train_examples=1000)
        >>> splits.x_train.shape, splits.x_validation.shape, splits.x_test.shape
        ((1000, 8, 8, 1), (144, 8, 8, 1), (359, 8, 8, 1))
    """
    name = path = os.fspath(name)
    if name in names():
        source = FAMILY.module(name).read(data_dir)
    else:
        source = _read_path(name, data_dir, seed)
        path = os.path.abspath(os.path.expanduser(name))
    splits = hold_out(name, source, train_examples, validation_examples)
    if data_dir is None and name in names():  # downloaded, or part of a package
        return splits
    again = functools.partial(
        load,
        path,
        data_dir=data_dir and os.path.abspath(os.path.expanduser(data_dir)),
        train_examples=train_examples,
        validation_examples=validation_examples,
        seed=seed,
    )
    return dataclasses.replace(splits, load_again=again)


def _read_path(name: str, data_dir: str | os.PathLike[str] | None, seed: int) -> Source:
    path = Path(os.path.expanduser(name))
    is_file, is_folder = os.path.isfile(path), name != "" and os.path.isdir(path)
    if not (is_file or is_folder):
        if name.endswith(".npz") or "/" in name or os.sep in name:
            raise UserError(
                f"--dataset={name} does not exist.\n"
                f"Expected an .npz file, a folder of pictures or one of: {', '.join(names())}."
            )
        FAMILY.check(name)
    if is_file and path.suffix.lower() != ".npz":
        raise UserError(
            f"--dataset={name} is a file of a kind that is not read, received {path.suffix!r}.\n"
            f"Expected an .npz file, a folder of pictures or one of: {', '.join(names())}."
        )
    if data_dir is not None:
        raise UserError(
            f"--data_dir={os.fspath(data_dir)} has no meaning with --dataset={name}, "
            "which is a path itself.\nLeave --data_dir out."
        )
    reader = "npz" if is_file else "image_folder"
    return importlib.import_module(f"{__name__}.formats.{reader}").read(path, seed)
