"""The teacher's softened probabilities and the labels, weighted."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from esnac_tf.distillation.losses.cross_entropy import CrossEntropy
from esnac_tf.distillation.losses.soft_targets import SoftTargets
from esnac_tf.errors import UserError


@dataclasses.dataclass(frozen=True)
class SoftTargetsAndLabels:
    """Weighted mean of `soft_targets` and `cross_entropy` [1].

    Formula:
        loss = (1 - label_weight) * soft_targets + label_weight * cross_entropy

    Args:
        temperature: Softens both distributions of the first term; above 0.
        label_weight: Weight of the labels, in [0, 1]. Hinton et al. found a "considerably
            lower weight" on the labels best, hence 0.1.

    Raises:
        UserError: If an argument is out of its range.

    References:
        [1] Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015
            (arXiv 1503.02531), section 2.

    Example:
        >>> import numpy as np
        >>> logits = np.array([[0.0, 0.0]], "float32")
        >>> loss = SoftTargetsAndLabels(label_weight=0.5)(np.array([1]), logits, logits)
        >>> bool(abs(loss[0] - 0.5 * np.log(2)) < 1e-6)
        True
    """

    needs_teacher: ClassVar[bool] = True

    temperature: float = 4.0
    label_weight: float = 0.1

    def __post_init__(self) -> None:
        SoftTargets(self.temperature)
        if not 0 <= self.label_weight <= 1:
            raise UserError(f"label_weight must be in [0, 1], received {self.label_weight}.")

    def __call__(self, labels: Any, teacher_logits: Any, student_logits: Any) -> Any:
        """Returns losses [B] from labels [B] and two arrays of logits [B, C]."""
        soft = SoftTargets(self.temperature)(labels, teacher_logits, student_logits)
        hard = CrossEntropy()(labels, teacher_logits, student_logits)
        return (1 - self.label_weight) * soft + self.label_weight * hard
