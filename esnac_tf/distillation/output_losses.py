"""Losses of models with outputs of any shape and number: Keras losses, one value per example."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import keras
import tensorflow as tf

from esnac_tf.errors import UserError


@dataclasses.dataclass(frozen=True)
class LabelLoss:
    """The loss with the labels, of all outputs together.

    Formula:
        loss = sum over outputs of weight * mean(keras_loss(label, output)) over all axes but B

    Args:
        loss: A Keras loss, its name, a function of (y_true, y_pred), or a list or dict of these
            in the structure of the outputs; None in it leaves an output out.
        weights: Likewise a list or dict of numbers; None: 1 each.

    Example:
        >>> labels, outputs = tf.zeros((2, 3)), tf.ones((2, 3))
        >>> LabelLoss("mean_squared_error")(labels, None, outputs).numpy().tolist()
        [1.0, 1.0]
    """

    needs_teacher: ClassVar[bool] = False

    loss: Any
    weights: Any = None

    def __call__(self, labels: Any, teacher_outputs: Any | None, student_outputs: Any) -> Any:
        """Returns losses [B] from labels and the student's outputs."""
        return _total(self.loss, self.weights, labels, student_outputs)


@dataclasses.dataclass(frozen=True)
class OutputLoss:
    """The loss between the teacher's and the student's outputs.

    Formula:
        loss = sum over outputs of mean(keras_loss(teacher_output, output)) over all axes but B

    Args:
        loss: As for `LabelLoss`; the mean squared error by default.

    Example:
        >>> outputs = {"a": tf.zeros((2, 3)), "b": tf.ones((2, 1))}
        >>> OutputLoss()(None, outputs, outputs).numpy().tolist()
        [0.0, 0.0]
    """

    needs_teacher: ClassVar[bool] = True

    loss: Any = "mean_squared_error"

    def __call__(self, labels: Any, teacher_outputs: Any, student_outputs: Any) -> Any:
        """Returns losses [B] from two structures of outputs; labels are not used."""
        return _total(self.loss, None, teacher_outputs, student_outputs)


def _total(loss: Any, weights: Any, targets: Any, outputs: Any) -> Any:
    """The weighted sum over outputs of losses [B]."""
    names, values = named_parts(outputs)
    losses = parts_for(loss, names, "loss")
    given = parts_for(targets, names, "label") if len(names) > 1 else [_only(targets)]
    scales = parts_for(weights, names, "loss weight")
    total: Any = 0.0
    for one, target, value, scale in zip(losses, given, values, scales, strict=True):
        if one is not None:
            part = _per_example(one, target, value)
            total += part if scale is None else part * scale
    if isinstance(total, float):
        raise UserError("No output has a loss.\nGive one, such as loss='mean_squared_error'.")
    return total


def named_parts(outputs: Any) -> tuple[list[str | int], list[Any]]:
    """The outputs with their names: keys of a dict, positions of a list, 0 of a tensor.

    Example:
        >>> named_parts({"mask": 1, "box": 2})
        (['mask', 'box'], [1, 2])
        >>> named_parts(3)
        ([0], [3])
    """
    if isinstance(outputs, Mapping):
        return list(outputs), list(outputs.values())
    if isinstance(outputs, (list, tuple)):
        return list(range(len(outputs))), list(outputs)
    return [0], [outputs]


def parts_for(given: Any, names: Sequence[str | int], what: str) -> list[Any]:
    """What is given for each output: by name, by position, or the same for all.

    Raises:
        UserError: A name is not that of an output, or there are more or fewer.
    """
    if isinstance(given, Mapping):
        if not set(given) <= set(names):
            raise UserError(
                f"Each {what} must be given for an output, received {', '.join(map(str, given))}.\n"
                f"The model's outputs are {', '.join(map(str, names))}."
            )
        return [given.get(name) for name in names]
    if isinstance(given, (list, tuple)):
        if len(given) != len(names):
            raise UserError(
                f"The model has {len(names)} outputs, received {len(given)} of what is their "
                f"{what}.\nGive one for each, or a dict by the outputs' names."
            )
        return list(given)
    return [given] * len(names)


def _only(targets: Any) -> Any:
    values = named_parts(targets)[1]
    return values[0] if len(values) == 1 else targets


def _per_example(loss: Any, target: Any, output: Any) -> Any:
    """The loss of each example, [B]: the mean over all axes but the first."""
    found = keras.losses.get(loss) if isinstance(loss, str) else loss
    function = found.call if isinstance(found, keras.losses.Loss) else found
    target = tf.convert_to_tensor(target)
    if target.shape.rank == output.shape.rank - 1 and output.shape[-1] == 1:
        target = target[..., tf.newaxis]
    values = tf.cast(function(target, output), tf.float32)
    return tf.reduce_mean(values, axis=list(range(1, values.shape.rank or 0)))
