"""One model that is tried."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Case:
    """A model that is tried.

    Attributes:
        source: The title of its section.
        name: Its name there.
        build: Makes it: a functional model with random weights.
        values: For inputs by their names, what their elements are drawn from; other inputs are
            pictures, normal noise, or tokens.
        address: Where it is described; empty if it is nowhere.
    """

    source: str
    name: str
    build: Callable[[], Any]
    values: Mapping[str, Sequence[Any]] = dataclasses.field(default_factory=dict)
    address: str = ""
