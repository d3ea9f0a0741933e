"""The custom classes and functions inside of Keras objects, for Keras to find by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import FunctionType
from typing import Any


def custom_objects(value: Any) -> dict[str, Any]:
    """Functions, and classes with a configuration, by name: all that are inside of a value.

    What is made anew of a configuration in a `keras.saving.CustomObjectScope` of them needs no
    registration.

    Args:
        value: A layer, loss, metric or optimizer, or lists and dicts of them; anything else has
            none inside.

    Example:
        >>> import keras
        >>> custom_objects(keras.losses.MeanSquaredError())["MeanSquaredError"].__name__
        'MeanSquaredError'
    """
    return dict(_walk(value, set()))


def _walk(value: Any, seen: set[int]) -> Iterator[tuple[str, Any]]:
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, FunctionType):
        yield value.__name__, value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _walk(part, seen)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _walk(part, seen)
    elif hasattr(type(value), "from_config"):
        yield type(value).__name__, type(value)
        yield from _walk(vars(value), seen)
