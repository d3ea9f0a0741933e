"""A data set of your own as a folder of pictures.

Either `DIR/train/<class>/*.png` and `DIR/test/<class>/*.png`, or only `DIR/<class>/*.png`, of which
20 % become the test set. BMP, GIF (the first frame), JPEG and PNG are read. Hidden files and
folders, and files of other kinds, are skipped.

All pictures must have one size. They are not resized here: a resize would hide from you that the
teacher sees stretched pictures. Alpha channels are dropped; where colour and grey pictures are
mixed, the grey ones become colour.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from esnac_tf.datasets.splits import Array, Source
from esnac_tf.errors import UserError

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png")

_TEST_FRACTION = 0.2
_LAYOUT = "Expected DIR/train/CLASS/ and DIR/test/CLASS/, or DIR/CLASS/, with pictures"


def read(path: str | os.PathLike[str], seed: int = 0) -> Source:
    """Reads a folder of class folders.

    Args:
        path: The folder. Its classes are the names of the class folders in alphabetical order.
        seed: Any integer. Shuffles the training pictures, and chooses the test pictures where
            there is no folder `test`.

    Returns:
        The data set; pictures uint8 [N, H, W, C] with C = 1 (all are grey) or 3.

    Raises:
        UserError: If there are fewer than two classes, a class without pictures, a class in
            `test` that is not in `train`, a picture that cannot be read, or pictures of different
            sizes.

    Example:
        >>> import tempfile, tensorflow as tf
        >>> png = tf.io.encode_png(np.zeros([8, 8, 3], np.uint8)).numpy()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png", "dog/3.png"):
        ...         Path(folder, name).parent.mkdir(exist_ok=True)
        ...         _ = Path(folder, name).write_bytes(png)
        ...     source = read(folder)
        >>> source.class_names, source.x_train.shape, source.x_test.shape
        (('cat', 'dog'), (4, 8, 8, 3), (1, 8, 8, 3))
    """
    root = Path(path)
    has_train, has_test = (root / "train").is_dir(), (root / "test").is_dir()
    if has_train != has_test:
        here, lacking = ("train", "test") if has_train else ("test", "train")
        raise UserError(f"{root} has a folder {here} but no folder {lacking}.\n{_LAYOUT}.")
    if not has_train:
        class_names = _class_names(root)
        x, y = _read_pictures(_list_pictures(root, class_names))
        order = np.random.default_rng(seed).permutation(len(x))
        num_train = len(x) - max(1, round(_TEST_FRACTION * len(x)))
        train, test = order[:num_train], order[num_train:]
        return Source(x[train], y[train], x[test], y[test], class_names)

    class_names = _class_names(root / "train")
    unknown = sorted(set(_folders(root / "test")) - set(class_names))
    if unknown:
        raise UserError(
            f"{root / 'test'} has the class {unknown[0]!r}, which {root / 'train'} has not.\n"
            f"Expected classes of: {', '.join(class_names[:20])}."
        )
    test_names = [name for name in class_names if (root / "test" / name).is_dir()]
    train_pictures = _list_pictures(root / "train", class_names)
    test_pictures = [
        (file, class_names.index(test_names[label]))
        for file, label in _list_pictures(root / "test", test_names)
    ]
    # Read in one go, so that both have one size and one number of channels.
    x, y = _read_pictures(train_pictures + test_pictures)
    num_train = len(train_pictures)
    order = np.random.default_rng(seed).permutation(num_train)
    return Source(x[order], y[order], x[num_train:], y[num_train:], class_names)


def _folders(root: Path) -> list[str]:
    return sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def _class_names(root: Path) -> tuple[str, ...]:
    names = _folders(root)
    if len(names) < 2:
        raise UserError(f"{root} has {len(names)} class folders, expected at least 2.\n{_LAYOUT}.")
    return tuple(names)


def _list_pictures(root: Path, class_names: Iterable[str]) -> list[tuple[Path, int]]:
    pictures = []
    for label, name in enumerate(class_names):
        files = sorted(
            file
            for file in (root / name).iterdir()
            if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
        )
        if not files:
            raise UserError(
                f"{root / name} has no pictures.\n"
                f"Expected at least one file with a suffix of: {', '.join(SUFFIXES)}."
            )
        pictures += [(file, label) for file in files]
    return pictures


def _read_pictures(pictures: list[tuple[Path, int]]) -> tuple[Array, Array]:
    decoded = [_decode(file) for file, _ in pictures]
    for (file, _), picture in zip(pictures, decoded, strict=True):
        if picture.shape[:2] != decoded[0].shape[:2]:
            height, width = picture.shape[:2]
            first_height, first_width = decoded[0].shape[:2]
            raise UserError(
                f"{file} is {width} by {height} pixels (width by height), "
                f"but {pictures[0][0]} is {first_width} by {first_height}.\n"
                "Expected pictures of one size: resize them first."
            )
    channels = max(picture.shape[2] for picture in decoded)
    x = np.empty([len(decoded), *decoded[0].shape[:2], channels], np.uint8)
    for row, picture in zip(x, decoded, strict=True):
        row[...] = picture  # A grey picture is repeated over the channels.
    return x, np.array([label for _, label in pictures], np.int32)


def _decode(file: Path) -> Array:
    """Decodes a picture to uint8 [H, W, C], C = 1 or 3."""
    import tensorflow as tf

    try:
        picture = tf.io.decode_image(file.read_bytes(), expand_animations=False).numpy()
    except (OSError, tf.errors.OpError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is broken"
        raise UserError(
            f"{file} cannot be read as a picture: {reason}.\n"
            "Expected a BMP, GIF, JPEG or PNG file: mend or remove it."
        ) from error
    return picture[..., :1] if picture.shape[-1] <= 2 else picture[..., :3]
