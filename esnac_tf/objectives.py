"""Objectives: what the search maximises. One function each, found by its name.

A new one is a public function here that takes the student's and the teacher's `Measurement`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from esnac_tf.errors import UnknownNameError


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What was measured of a model.

    Attributes:
        num_params: Parameters, 1 or more.
        flops: Multiply-adds of one example.
        quality: The accuracy on held-out data, 0 to 1, or the quality of another metric
            (`esnac_tf.distillation.task.SearchMetric.quality`), above 0 for a teacher.
    """

    num_params: int
    flops: int
    quality: float


Objective = Callable[[Measurement, Measurement], float]


def params(student: Measurement, teacher: Measurement) -> float:
    """The paper's objective: few parameters at high accuracy.

        C = 1 - student.num_params / teacher.num_params
        f = C * (2 - C) * student.quality / teacher.quality

    Source: Cao, Wang and Kitani, ICLR 2019, equation 9 (after Ashok et al. 2018).

    Example:
        >>> params(Measurement(25, 0, 0.9), Measurement(100, 0, 0.9))
        0.9375
    """
    return _reward(student.num_params, teacher.num_params, student, teacher)


def flops(student: Measurement, teacher: Measurement) -> float:
    """Few multiply-adds at high accuracy: `params` with FLOPs in place of parameters.

    Example:
        >>> flops(Measurement(0, 25, 0.9), Measurement(0, 100, 0.9))
        0.9375
    """
    return _reward(student.flops, teacher.flops, student, teacher)


def names() -> list[str]:
    """All objectives.

    Example:
        >>> names()
        ['flops', 'params']
    """
    return sorted(_objectives())


def get(name: str) -> Objective:
    """The objective of a name.

    Raises:
        UnknownNameError: There is none.
    """
    if name not in _objectives():
        raise UnknownNameError("objective", name, names(), "esnac_tf/objectives.py")
    return _objectives()[name]


def _objectives() -> dict[str, Objective]:
    here = [
        value
        for name, value in globals().items()
        if callable(value)
        and not name.startswith("_")
        and getattr(value, "__module__", "") == __name__
    ]
    return {
        function.__name__: function
        for function in here
        if not isinstance(function, type) and function not in (names, get)
    }


def _reward(cost: int, teacher_cost: int, student: Measurement, teacher: Measurement) -> float:
    compression = 1 - cost / teacher_cost
    return compression * (2 - compression) * student.quality / teacher.quality
