"""Which students of a step are trained to the end: early discarding."""

from __future__ import annotations

import math
from collections.abc import Mapping


def rungs(num_students: int, num_epochs: int, factor: int) -> dict[int, int]:
    """After which epochs students are discarded, and how many go on.

    Formula:
        the last rung is after epoch E // factor, the one before after E // factor ** 2, ...
        after the i-th rung ceil(K / factor ** i) students go on, as long as that is 1 or more

    Args:
        num_students: K, 1 or more.
        num_epochs: E, 1 or more.
        factor: 1 or more; 1 discards none.

    Returns:
        The number of students that go on, by the epoch, counted from 1, after which the others
        end; epochs in rising order.

    References:
        [1] Jamieson, Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter
            Optimization", AISTATS 2016.

    Example:
        >>> rungs(num_students=8, num_epochs=10, factor=2)
        {1: 4, 2: 2, 5: 1}
        >>> rungs(num_students=8, num_epochs=3, factor=2)
        {1: 4}
    """
    if factor < 2:
        return {}
    epochs: list[int] = []
    size = num_students
    epoch = num_epochs // factor
    while size >= factor and epoch:
        epochs.insert(0, epoch)
        size, epoch = size // factor, epoch // factor
    return {
        epoch: math.ceil(num_students / factor**cut) for cut, epoch in enumerate(epochs, start=1)
    }


def student_epochs(num_students: int, num_epochs: int, factor: int) -> int:
    """For how many epochs students are trained, all together.

    Args:
        num_students: As for `rungs`.
        num_epochs: Likewise.
        factor: Likewise.

    Example:
        >>> student_epochs(8, 10, 1), student_epochs(8, 10, 2)
        (80, 23)
    """
    total, trained, active = 0, 0, num_students
    for epoch, num_kept in rungs(num_students, num_epochs, factor).items():
        total += active * (epoch - trained)
        trained, active = epoch, num_kept
    return total + active * (num_epochs - trained)


def discarded(scores: Mapping[int, float], num_kept: int) -> list[int]:
    """Those with the lowest scores, so many that `num_kept` stay; of equal ones the later.

    Args:
        scores: By the student's index; more is better.
        num_kept: How many stay.

    Example:
        >>> discarded({0: 0.5, 2: 0.9, 3: 0.5}, num_kept=2)
        [3]
    """
    ranked = sorted(scores, key=lambda index: (-scores[index], index))
    return ranked[num_kept:]
