"""Distillation losses: one file a loss, the file's name is the loss's name.

To add one, write `losses/my_loss.py` with a frozen dataclass `MyLoss` that has

- `needs_teacher: ClassVar[bool]`: whether `teacher_logits` may not be None;
- `__call__(labels, teacher_logits, student_logits)`, as in `DistillationLoss`.

Its fields are the loss's options. The contract test over this folder then tests it unedited.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Protocol

from esnac_tf.errors import UserError
from esnac_tf.families import Family

__all__ = ["FAMILY", "DistillationLoss", "get", "names"]

FAMILY = Family("distillation loss", __name__)


class DistillationLoss(Protocol):
    """What every loss in this folder is.

    A loss gives one value per example and never reduces, because the sum over a *global*
    batch split among replicas can only be formed from single values. (The objects of
    `keras.distillation` reduce to a scalar inside `compute_loss`, so they don't serve here;
    the tests hold these losses against them.)
    """

    needs_teacher: ClassVar[bool]

    def __call__(self, labels: Any, teacher_logits: Any | None, student_logits: Any, /) -> Any:
        """Returns the losses of a batch.

        Args:
            labels: Class indices, integers in [0, C), shape [B].
            teacher_logits: float32, shape [B, C]; None only if `needs_teacher` is False.
            student_logits: float32, shape [B, C].

        Returns:
            One loss per example, float32, shape [B].
        """
        ...


def names() -> list[str]:
    """Returns the names of all losses, sorted, without importing any of them.

    Example:
        >>> "logit_mse" in names()
        True
    """
    return FAMILY.names()


def get(name: str, **options: Any) -> DistillationLoss:
    """Returns the loss of that name.

    Args:
        name: One of `names()`.
        **options: The loss's options, as its class documents them.

    Returns:
        A loss to be called with labels, teacher logits and student logits.

    Raises:
        UnknownNameError: If no loss has this name.
        UserError: If the loss has no such option, or the option is out of its range.

    Example:
        >>> get("soft_targets", temperature=2.0)
        SoftTargets(temperature=2.0)
    """
    module = FAMILY.module(name)
    loss_class = getattr(module, "".join(word.capitalize() for word in name.split("_")))
    fields = [field.name for field in dataclasses.fields(loss_class)]
    unknown = sorted(set(options) - set(fields))
    if unknown:
        raise UserError(
            f"The distillation loss {name!r} has no option {', '.join(unknown)}.\n"
            f"Its options: {', '.join(fields) or 'none'}."
        )
    loss: DistillationLoss = loss_class(**options)
    return loss
