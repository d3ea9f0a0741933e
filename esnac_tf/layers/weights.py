"""What lies along the axes of a layer's weights: the channels of which role, and how."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from types import EllipsisType
from typing import Any


@dataclasses.dataclass(frozen=True)
class Axis:
    """An axis of a weight along which the channels of one role lie.

        length = channels * repeat * blocks / groups

    Attributes:
        role: The layer's name for a set of channels that it takes or creates, such as "in".
        repeat: How many entries in a row belong to each channel.
        blocks: How many blocks lie one after the other, each with all channels (the gates of
            an LSTM).
        groups: In how many parts the channels are split, each of which has the axis for itself
            (a grouped convolution).
    """

    role: str
    repeat: int = 1
    blocks: int = 1
    groups: int = 1


# What Keras calls a weight that its layer gave no name.
_NAMELESS = re.compile(r"variable(_\d+)?")

# What lies along each axis of a weight: a role's name stands for `Axis(role)`, None for an axis
# that no action changes, `...` for all leading axes that none changes.
WeightAxes = tuple[Axis | str | EllipsisType | None, ...]


def expand_axes(axes: WeightAxes, rank: int) -> tuple[Axis | None, ...]:
    """Weight axes of a weight of `rank` axes, with `...` and roles written out.

    Example:
        >>> expand_axes((..., "out"), 3)
        (None, None, Axis(role='out', repeat=1, blocks=1, groups=1))
    """
    written = [Axis(axis) if isinstance(axis, str) else axis for axis in axes]
    named = [axis for axis in written if not isinstance(axis, EllipsisType)]
    return (*[None] * (rank - len(named)), *named)


def axes_of(known: Mapping[str, WeightAxes], weight: Any) -> tuple[Axis | None, ...]:
    """The axes of a Keras variable; those of a weight that is not known never change."""
    return expand_axes(known.get(weight_key(known, weight), (...,)), len(weight.shape))


def weight_key(known: Mapping[str, WeightAxes], weight: Any) -> str:
    """The name under which a layer's handler knows a weight; else its own name.

    It is the end of the weight's path: where parts of a layer have weights of one name, such as
    "query/kernel" and "value/kernel", the handler's names tell them apart. A weight that was
    given no name is the only one that the handler knows.

    Example:
        >>> import keras
        >>> layer = keras.layers.Dense(2, name="top")
        >>> layer.build((None, 3))
        >>> weight_key({"kernel": ("in", "out")}, layer.kernel)
        'kernel'
    """
    path = f"/{weight.path}"
    found = [name for name in known if path.endswith(f"/{name}")]
    name = weight_name(weight)
    if not found and len(known) == 1 and _NAMELESS.fullmatch(name):
        return next(iter(known))
    return max(found, key=len, default=name)


def weight_name(weight: Any) -> str:
    """The name of a Keras variable inside its layer, such as "kernel"."""
    return str(weight.path).rsplit("/", 1)[-1]
