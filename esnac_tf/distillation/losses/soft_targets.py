"""Divergence from the teacher's softened class probabilities."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import keras

from esnac_tf.errors import UserError


@dataclasses.dataclass(frozen=True)
class SoftTargets:
    """Kullback-Leibler divergence from the teacher's softened probabilities [1].

    Formula:
        p = softmax(teacher_logits / temperature)
        q = softmax(student_logits / temperature)
        loss = temperature**2 * sum(p * (log(p) - log(q)), axis=-1)

    The factor temperature**2 keeps the size of the gradients when the temperature changes.
    As temperature grows, the loss tends to C / 2 times `logit_mse` on centred logits.

    Its mean over a batch is that of `keras.distillation.LogitsDistillation(temperature)`,
    but from log-softmax: the Keras object clips probabilities at 1e-7, below which a
    student gets no gradient.

    Args:
        temperature: Softens both distributions; above 0. Usual are 2 to 10.

    Raises:
        UserError: If the temperature is not above 0.

    References:
        [1] Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015
            (arXiv 1503.02531), section 2.

    Example:
        >>> import numpy as np
        >>> logits = np.array([[1.0, 3.0]], "float32")
        >>> SoftTargets(temperature=4.0)(np.array([1]), logits, logits + 5.0).numpy().tolist()
        [0.0]
    """

    needs_teacher: ClassVar[bool] = True

    temperature: float = 4.0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise UserError(f"temperature must be above 0, received {self.temperature}.")

    def __call__(self, labels: Any, teacher_logits: Any, student_logits: Any) -> Any:
        """Returns losses [B] from labels [B] (not used) and two arrays of logits [B, C]."""
        log_p = keras.ops.log_softmax(keras.ops.divide(teacher_logits, self.temperature))
        log_q = keras.ops.log_softmax(keras.ops.divide(student_logits, self.temperature))
        divergence = keras.ops.sum(keras.ops.exp(log_p) * (log_p - log_q), axis=-1)
        return self.temperature**2 * divergence
