"""Cross entropy with the labels: no teacher."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import keras


@dataclasses.dataclass(frozen=True)
class CrossEntropy:
    """Cross entropy with the labels: trains teachers, and students without one.

    Formula:
        loss = -log_softmax(student_logits)[labels]

    ESNAC's full training of the best students uses this loss [1].

    References:
        [1] Cao, Wang, Kitani, "Learnable Embedding Space for Efficient Neural Architecture
            Compression", ICLR 2019, section 4.

    Example:
        >>> import numpy as np
        >>> loss = CrossEntropy()(np.array([1]), None, np.array([[0.0, 0.0]], "float32"))
        >>> loss.numpy().round(4).tolist() == [np.log(2).astype("float32").round(4)]
        True
    """

    needs_teacher: ClassVar[bool] = False

    def __call__(self, labels: Any, teacher_logits: Any | None, student_logits: Any) -> Any:
        """Returns losses [B] from labels [B] and student logits [B, C]."""
        return keras.losses.sparse_categorical_crossentropy(
            labels, student_logits, from_logits=True
        )
