"""Losses of models with outputs of any shape and number: Keras losses, one value per example."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import keras
import tensorflow as tf

from esnac_tf.distillation.output_masks import mask_of, masked
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
        output_names: Names of the outputs of a model that gives no dict.

    What the mask of an output leaves out does not count, nor what the loss itself leaves out
    (`ignore_class`): the losses of the rest are scaled so that the mean over the batch is theirs.

    Example:
        >>> labels, outputs = tf.zeros((2, 3)), tf.ones((2, 3))
        >>> LabelLoss("mean_squared_error")(labels, None, outputs).numpy().tolist()
        [1.0, 1.0]
    """

    needs_teacher: ClassVar[bool] = False

    loss: Any
    weights: Any = None
    output_names: tuple[str, ...] = ()

    def __call__(self, labels: Any, teacher_outputs: Any | None, student_outputs: Any) -> Any:
        """Returns losses [B] from labels and the student's outputs."""
        return _total(self.loss, self.weights, labels, student_outputs, self.output_names)


@dataclasses.dataclass(frozen=True)
class OutputLoss:
    """The loss between the teacher's and the student's outputs.

    Formula:
        loss = sum over outputs of mean(keras_loss(teacher_output, output)) over all axes but B

    Masks of the student's outputs weigh as in `LabelLoss`.

    Args:
        loss: As for `LabelLoss`; the mean squared error by default.
        output_names: Likewise.

    Example:
        >>> outputs = {"a": tf.zeros((2, 3)), "b": tf.ones((2, 1))}
        >>> OutputLoss()(None, outputs, outputs).numpy().tolist()
        [0.0, 0.0]
    """

    needs_teacher: ClassVar[bool] = True

    loss: Any = "mean_squared_error"
    output_names: tuple[str, ...] = ()

    def __call__(self, labels: Any, teacher_outputs: Any, student_outputs: Any) -> Any:
        """Returns losses [B] from two structures of outputs; labels are not used."""
        return _total(self.loss, None, teacher_outputs, student_outputs, self.output_names)


def _total(loss: Any, weights: Any, targets: Any, outputs: Any, output_names: Sequence[str]) -> Any:
    """The weighted sum over outputs of losses [B]."""
    names, values = named_parts(outputs, output_names)
    losses = parts_for(loss, names, "loss")
    given = parts_for(targets, names, "label") if len(names) > 1 else [_only(targets)]
    scales = parts_for(weights, names, "loss weight")
    total: Any = 0.0
    for name, one, target, value, scale in zip(names, losses, given, values, scales, strict=True):
        if one is not None:
            if target is None:
                raise UserError(
                    f"The output {name!r} has a loss, but no label.\n"
                    "Give labels for it, or a dict of losses by outputs that leaves it out."
                )
            part = _per_example(one, target, value)
            total += part if scale is None else part * scale
    if isinstance(total, float):
        raise UserError("No output has a loss.\nGive one, such as loss='mean_squared_error'.")
    return total


def named_parts(
    outputs: Any, output_names: Sequence[str] = ()
) -> tuple[list[str | int], list[Any]]:
    """The outputs with their names: keys of a dict; else those given, or positions.

    Example:
        >>> named_parts({"mask": 1, "box": 2})
        (['mask', 'box'], [1, 2])
        >>> named_parts(3)
        ([0], [3])
    """
    if isinstance(outputs, Mapping):
        return list(outputs), list(outputs.values())
    values = list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]
    if len(output_names) == len(values):
        return list(output_names), values
    return list(range(len(values))), values


def parts_for(given: Any, names: Sequence[str | int], what: str) -> list[Any]:
    """What is given for each output: by name, by position, or the same for all.

    Raises:
        UserError: A name is not that of an output, or there are more or fewer.
    """
    if isinstance(given, Mapping):
        positions = range(len(names))
        given = {names[key] if key in positions else key: part for key, part in given.items()}
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
    if target.dtype != tf.string:  # as Keras does before it calls a loss
        target = tf.cast(target, output.dtype)
    if target.shape.rank == output.shape.rank - 1 and output.shape[-1] == 1:
        target = target[..., tf.newaxis]
    values = function(target, output)
    masks = [mask for mask in (mask_of(output), mask_of(values)) if mask is not None]
    values = tf.cast(values, tf.float32)
    if masks:
        values = masked(values, tf.reduce_all(tf.stack(masks), axis=0))
    if values.shape.rank == 0:  # a mean over all: each example's share is the whole
        return tf.fill(tf.shape(output)[:1], values)
    return tf.reduce_mean(values, axis=list(range(1, values.shape.rank or 0)))
