"""Mean squared error between the student's and the teacher's logits."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import keras


@dataclasses.dataclass(frozen=True)
class LogitMse:
    """Mean squared error to the teacher's logits: what ESNAC trains its candidates with.

    Formula:
        loss = mean((teacher_logits - student_logits) ** 2, axis=-1)

    Its mean over a batch is what
    `keras.distillation.LogitsDistillation(temperature=1.0, loss="mse")` returns.

    A logit vector is only defined up to a constant. Where models end in a softmax, `train`
    rebuilds logits as log(p), which is one choice of that constant; the loss then differs
    from the one on the logits before the softmax, though both are 0 at the same students.

    References:
        [1] Ba, Caruana, "Do Deep Nets Really Need to be Deep?", NeurIPS 2014, equation 1.
        [2] Cao, Wang, Kitani, "Learnable Embedding Space for Efficient Neural Architecture
            Compression", ICLR 2019, section 4.

    Example:
        >>> import numpy as np
        >>> teacher, student = np.array([[1.0, 3.0]]), np.array([[0.0, 0.0]])
        >>> LogitMse()(np.array([1]), teacher, student).numpy().tolist()
        [5.0]
    """

    needs_teacher: ClassVar[bool] = True

    def __call__(self, labels: Any, teacher_logits: Any, student_logits: Any) -> Any:
        """Returns losses [B] from labels [B] (not used) and two arrays of logits [B, C]."""
        return keras.losses.mean_squared_error(teacher_logits, student_logits)
