"""What is known of a student in training: its epochs so far, its best weights, its failure."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from esnac_tf.distillation.checkpoint import Checkpoint
from esnac_tf.distillation.joint_step import JointStep
from esnac_tf.distillation.training_outcome import EpochRecord, TrainingOutcome


@dataclasses.dataclass
class StudentProgress:
    """What is known of one student so far.

    Attributes:
        best_weights: Those of its best epoch; at first those it came with.
        history: Its finished epochs.
        failure: None, or in one line why it was given up.
        is_discarded: Whether others went on in its place.

    Example:
        >>> StudentProgress([np.zeros(3)]).is_active
        True
    """

    best_weights: list[np.ndarray]
    history: list[EpochRecord] = dataclasses.field(default_factory=list)
    failure: str | None = None
    is_discarded: bool = False

    @property
    def is_active(self) -> bool:
        """Whether it is trained on."""
        return self.failure is None and not self.is_discarded

    def outcome(self) -> TrainingOutcome:
        """What its training came to so far."""
        return TrainingOutcome.from_history(self.history, self.failure)

    def to_json(self) -> dict[str, Any]:
        """All but the weights."""
        history = [dataclasses.asdict(record) for record in self.history]
        return {"history": history, "failure": self.failure, "is_discarded": self.is_discarded}

    @classmethod
    def from_json(cls, values: dict[str, Any], best_weights: list[np.ndarray]) -> StudentProgress:
        """What `to_json` gave, with weights."""
        history = [EpochRecord(**record) for record in values["history"]]
        return cls(best_weights, history, values["failure"], values["is_discarded"])


def keep(
    checkpoint: Checkpoint, epoch: int, students: Sequence[StudentProgress], step: JointStep
) -> None:
    """Keeps a training after an epoch, if it is time.

    Args:
        checkpoint: Where.
        epoch: The epoch, counted from 1.
        students: What is known of the students.
        step: Trains them.

    Raises:
        KeyboardInterrupt: An interruption waited for it.
        UserError: It can't be written.
    """
    values = {"epoch": epoch, "students": [student.to_json() for student in students]}

    def arrays() -> list[np.ndarray]:
        best = [weight for student in students for weight in student.best_weights]
        return [*best, *(variable.numpy() for variable in _changing(students, step))]

    checkpoint.after_epoch(values, arrays)


def restore(checkpoint: Checkpoint, students: list[StudentProgress], step: JointStep) -> int:
    """Takes in what a checkpoint has kept.

    Args:
        checkpoint: Where from.
        students: What is known of the students; replaced.
        step: Trains them.

    Returns:
        The epoch after which it was kept; 0: there is nothing.
    """
    loaded = checkpoint.load()
    if loaded is None:
        return 0
    values, arrays = loaded
    kept = []
    try:
        for student, own in zip(students, values["students"], strict=True):
            count = len(student.best_weights)
            kept.append(StudentProgress.from_json(own, arrays[:count]))
            del arrays[:count]
    except (KeyError, TypeError):
        return 0  # of another version
    variables = _changing(kept, step)
    if [array.shape for array in arrays] != [tuple(variable.shape) for variable in variables]:
        return 0
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
    students[:] = kept
    step.set_active([student.is_active for student in students])
    return int(values["epoch"])


def _changing(students: Sequence[StudentProgress], step: JointStep) -> list[keras.Variable]:
    """All that the training of those changes that are trained on."""
    active = [index for index, student in enumerate(students) if student.is_active]
    return [variable for index in active for variable in step.variables(index)]
