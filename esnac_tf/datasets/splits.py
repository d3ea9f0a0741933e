"""What a data set is, and how its training set is split.

The validation set is always taken from the end of the training set and never trained on during
the search; the test set is what the source calls so. Shape letters: N pictures, H height, W width,
C channels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from esnac_tf.errors import UserError

Array = npt.NDArray[Any]

AUGMENTATIONS = ("crop_flip",)

# A data set of at least this size gives the validation set that the paper takes from CIFAR.
_LARGE_TRAINING_SET = 50_000
_LARGE_VALIDATION_SET = 5_000
_VALIDATION_FRACTION = 0.1

# Pictures whose statistics are summed at once, so that no float64 copy of a whole set is made.
_CHUNK = 2048


class Normalization(NamedTuple):
    """The mean and the standard deviation of every channel, `(x - mean) / standard_deviation`.

    Args:
        mean: C numbers in the units of the stored pixels (0 to 255 for 8-bit pictures).
        standard_deviation: C positive numbers in the same units.

    Example:
        >>> mean, standard_deviation = Normalization((127.5,), (64.0,))
        >>> (255.0 - mean[0]) / standard_deviation[0]
        1.9921875
    """

    mean: tuple[float, ...]
    standard_deviation: tuple[float, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """What the reader of a data set returns: everything, before a validation set is split off.

    Args:
        x_train: uint8 or float32 [N, H, W, C] (any rank from 2 up, channels last).
        y_train: Integers [N] in 0 .. num_classes - 1.
        x_test: As `x_train`, with pictures of the same shape.
        y_test: As `y_train`.
        class_names: A name for every class, in the order of the labels.
        augmentation: None or "crop_flip" (see `pipelines.py`).
        normalization: None computes it from the pictures that are trained on.

    Example:
        >>> x, y = np.zeros([2, 8, 8, 1], np.uint8), np.array([0, 1])
        >>> Source(x, y, x, y, class_names=("cat", "dog")).augmentation is None
        True
    """

    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array
    class_names: tuple[str, ...]
    augmentation: str | None = None
    normalization: Normalization | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Splits:
    """A data set in three parts, ready to train on.

    Pixels are raw, as they were stored (0 to 255 for 8-bit pictures): what a model does to them
    first is part of the model. Batches turn them into float32.

    Args:
        name: The name or the path that was loaded.
        x_train: uint8 or float32 [N, H, W, C] (any rank from 2 up, channels last).
        y_train: int32 [N] in 0 .. num_classes - 1.
        x_validation: As `x_train`.
        y_validation: As `y_train`.
        x_test: As `x_train`.
        y_test: As `y_train`.
        num_classes: How many classes there are, at least 1.
        class_names: `num_classes` names in the order of the labels.
        augmentation: How training pictures are varied. None: not at all. "crop_flip": padded by 4
            pixels, cropped at random to the old size, flipped left to right half of the time. The
            paper pads with zeros after normalisation, which is `normalization.mean` in raw pixels.
        normalization: Mean and standard deviation of every channel, in raw pixel units.
        load_again: Reads the same from files with a path of their own, which other machines may
            have, too; it can be pickled. None: there are no such files.

    Raises:
        UserError: If the parts don't fit each other: numbers of pictures and labels, shapes of the
            pictures, labels out of range, names, an unknown augmentation.

    Example:
        >>> x, y = np.zeros([6, 8, 8, 1], np.uint8), np.array([0, 1, 0, 1, 0, 1])
        >>> splits = Splits("toy", x[:3], y[:3], x[3:4], y[3:4], x[4:], y[4:], 2, ("cat", "dog"),
        ...                 augmentation=None, normalization=Normalization((0.0,), (1.0,)))
        >>> len(splits.x_train), len(splits.x_validation), len(splits.x_test)
        (3, 1, 2)
    """

    name: str
    x_train: Array
    y_train: Array
    x_validation: Array
    y_validation: Array
    x_test: Array
    y_test: Array
    num_classes: int
    class_names: tuple[str, ...]
    augmentation: str | None
    normalization: Normalization
    load_again: Callable[[], Splits] | None = None

    def __post_init__(self) -> None:
        for part in ("train", "validation", "test"):
            x, y = getattr(self, f"x_{part}"), getattr(self, f"y_{part}")
            if y.ndim != 1 or len(x) != len(y):
                raise UserError(
                    f"x_{part} and y_{part} of {self.name} must be N pictures and N labels, "
                    f"received shapes {x.shape} and {y.shape}."
                )
            if x.ndim < 2 or x.shape[1:] != self.x_train.shape[1:]:
                raise UserError(
                    f"x_{part} of {self.name} must hold pictures of the shape in x_train, "
                    f"{self.x_train.shape[1:]}, and at least one dimension, "
                    f"received {x.shape[1:]}."
                )
            if len(y) and (y.min() < 0 or y.max() >= self.num_classes):
                raise UserError(
                    f"y_{part} of {self.name} must be in 0 .. {self.num_classes - 1}, "
                    f"received {y.min()} .. {y.max()}."
                )
        if len(self.class_names) != self.num_classes:
            raise UserError(
                f"{self.name} must have a name for each of its {self.num_classes} classes, "
                f"received {len(self.class_names)} names."
            )
        check_augmentation(self.augmentation)

    def classes_not_held_out(self) -> list[str]:
        """The names of classes that are trained on, and of which no example is held out.

        Example:
            >>> x, y = np.zeros([6, 8], np.float32), np.array([0, 0, 1, 1, 1, 1])
            >>> source = Source(x, y, x, y, class_names=("cat", "dog"))
            >>> hold_out("toy", source).classes_not_held_out()
            ['cat']
        """
        missing = np.setdiff1d(self.y_train, self.y_validation)
        return [self.class_names[label] for label in missing]


def check_augmentation(augmentation: str | None) -> None:
    """Refuses an augmentation that does not exist.

    Args:
        augmentation: None or one of `AUGMENTATIONS`.

    Raises:
        UserError: If it is anything else.

    Example:
        >>> check_augmentation("mixup")
        Traceback (most recent call last):
            ...
        esnac_tf.errors.UserError: augmentation must be None or one of: crop_flip, received 'mixup'.
    """
    if augmentation is not None and augmentation not in AUGMENTATIONS:
        raise UserError(
            f"augmentation must be None or one of: {', '.join(AUGMENTATIONS)}, "
            f"received {augmentation!r}."
        )


def hold_out(
    name: str,
    source: Source,
    train_examples: int | None = None,
    validation_examples: int | None = None,
) -> Splits:
    """Splits the end of the training set off as the validation set.

    Args:
        name: What the data set is called in messages and records.
        source: What a reader returned.
        train_examples: At least 1: the first so many of the rest are trained on. None: all.
        validation_examples: At least 1. None: 5,000 of 50,000 pictures and more, otherwise 10 %.

    Returns:
        The three parts. They share the memory of `source`.

    Raises:
        UserError: If more pictures are asked for than there are, or fewer than one.

    Example:
        >>> x, y = np.arange(20, dtype=np.uint8).reshape(10, 2), np.arange(10) % 2
        >>> splits = hold_out("toy", Source(x, y, x, y, ("even", "odd")), train_examples=6)
        >>> len(splits.x_train), len(splits.x_validation), splits.x_validation.tolist()
        (6, 1, [[18, 19]])
    """
    total = len(source.x_train)
    if total < 2 or len(source.x_test) < 1:
        raise UserError(
            f"{name} has {total} training and {len(source.x_test)} test pictures.\n"
            "Expected at least 2 for training and validation, and 1 for the test."
        )
    if validation_examples is None:
        small = max(1, round(total * _VALIDATION_FRACTION))
        validation_examples = _LARGE_VALIDATION_SET if total >= _LARGE_TRAINING_SET else small
    _check_number("--validation_examples", validation_examples, total - 1, name, total)
    rest = total - validation_examples
    if train_examples is None:
        train_examples = rest
    _check_number("--train_examples", train_examples, rest, name, total, validation_examples)

    x_train = source.x_train[:train_examples]
    return Splits(
        name=name,
        x_train=x_train,
        y_train=source.y_train[:train_examples].astype(np.int32),
        x_validation=source.x_train[rest:],
        y_validation=source.y_train[rest:].astype(np.int32),
        x_test=source.x_test,
        y_test=source.y_test.astype(np.int32),
        num_classes=len(source.class_names),
        class_names=source.class_names,
        augmentation=source.augmentation,
        normalization=source.normalization or channel_statistics(x_train),
    )


def _check_number(
    flag: str, value: int, most: int, name: str, total: int, validation_examples: int | None = None
) -> None:
    is_integer = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not (is_integer and 1 <= value <= most):
        kept = "one" if validation_examples is None else f"{validation_examples}"
        for_what = "training" if validation_examples is None else "validation"
        raise UserError(
            f"{flag} must be a whole number in 1 .. {most}, received {value!r}.\n"
            f"{name} has {total} training pictures, and at least {kept} must be left "
            f"for {for_what}."
        )


def channel_statistics(x: Array) -> Normalization:
    """Computes the mean and the standard deviation of every channel.

    mean = x.mean(axis=(0, 1, 2)), standard_deviation = x.std(axis=(0, 1, 2)), in float64 and
    without a float64 copy of all of `x`.

    Args:
        x: Numbers [N, H, W, C] (any rank from 2 up, channels last), N at least 1.

    Returns:
        C means and C standard deviations, in the units of `x`. A channel that is constant gets the
        standard deviation 1, so that dividing by it is harmless.

    Example:
        >>> channel_statistics(np.array([[0, 7], [2, 7]], np.uint8))
        Normalization(mean=(1.0, 7.0), standard_deviation=(1.0, 1.0))
    """
    # Summed over the pictures first: the values of a picture lie side by side, which is fast.
    shape = x.shape[1:]
    total = np.zeros(shape)
    for start in range(0, len(x), _CHUNK):
        total += x[start : start + _CHUNK].sum(axis=0, dtype=np.float64)
    mean = (total / len(x)).reshape(-1, shape[-1]).mean(axis=0)
    total = np.zeros(shape)
    for start in range(0, len(x), _CHUNK):
        difference = x[start : start + _CHUNK] - mean
        total += np.square(difference, out=difference).sum(axis=0)
    deviation = np.sqrt((total / len(x)).reshape(-1, shape[-1]).mean(axis=0))
    # Rounding leaves a constant channel a tiny deviation that would blow it up.
    deviation[deviation <= 1e-6 * np.maximum(1.0, np.abs(mean))] = 1.0
    return Normalization(tuple(mean.tolist()), tuple(deviation.tolist()))
