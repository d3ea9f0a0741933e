"""The networks of keras.applications, with and without their tops."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from model_zoo.case import Case

TITLE = "keras.applications"
DESCRIPTION = "Every network, with logits of 10 classes and without its top, on small pictures."
PACKAGE = None

# Sides of a picture, from small to large: the first that a network takes is used.
SIDES = (64, 75, 96, 128, 224, 331)
NUM_CLASSES = 10


def cases() -> list[Case]:
    """Every network twice."""
    return [
        Case(
            TITLE,
            name if top else f"{name} without top",
            functools.partial(small_network, constructor, top),
        )
        for name, constructor in constructors().items()
        for top in (True, False)
    ]


def constructors() -> dict[str, Callable[..., Any]]:
    """The model functions of keras.applications by name, sorted."""
    import keras

    package = keras.applications
    modules = [package, *(module for _, module in inspect.getmembers(package, inspect.ismodule))]
    found = {
        name: function
        for module in modules
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if not name.startswith("_") and "include_top" in inspect.signature(function).parameters
    }
    return dict(sorted(found.items()))


def small_network(constructor: Callable[..., Any], top: bool) -> Any:
    """A network with random weights, for the smallest pictures of `SIDES` that it takes."""
    settings: dict[str, Any] = {"weights": None, "include_top": top}
    if top:  # logits, as a softmax of random weights hides differences
        settings.update(classes=NUM_CLASSES, classifier_activation=None)
    failure: ValueError | None = None
    for side in SIDES:
        try:
            return constructor(input_shape=(side, side, 3), **settings)
        except ValueError as error:
            failure = error
    raise failure or ValueError("no side")
