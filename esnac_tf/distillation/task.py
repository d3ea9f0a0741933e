"""What a model is for: how its outputs are read, and the metric by which it is judged."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from esnac_tf.distillation.output_masks import masks_of, with_masks
from esnac_tf.distillation.training_config import DIRECTIONS
from esnac_tf.errors import UserError, error_reason

# Below it, a probability counts as this: log(1e-7) is -16.
SMALLEST_PROBABILITY = 1e-7

# Words in the names of metrics of which less is better.
_ERRORS = ("loss", "error", "crossentropy", "divergence", "hinge", "poisson", "false", "cosh",
           "mse", "mae", "mape", "msle", "rmse")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class SearchMetric:
    """The one figure by which students are judged on held-out data.

    Attributes:
        name: "accuracy", "loss", or the name of a Keras metric.
        direction: "max" if more is better, "min" if less is.
        metric: A Keras metric, which every evaluation sets back; None for "accuracy", which is
            computed by itself, and for "loss".
        output: The name or position of the output it looks at; None if there is one only.
        loss: For "loss": the loss with the labels, one value per example.

    Example:
        >>> ACCURACY.quality(0.9)
        0.9
    """

    name: str
    direction: str = "max"
    metric: Any = None
    output: str | int | None = None
    loss: Any = None

    def quality(self, value: float) -> float:
        """How good a value is: the value itself, or 1 / value where less is better.

        So the quality of a student relative to its teacher's is value / teacher's value, or
        teacher's value / value. What is not above 0 where less is better counts as 1e-12.

        Example:
            >>> SearchMetric("loss", "min").quality(0.5)
            2.0
        """
        return value if self.direction == "max" else 1 / max(value, 1e-12)


ACCURACY = SearchMetric("accuracy")


@dataclasses.dataclass(frozen=True)
class Task:
    """What a model is for.

    Attributes:
        is_classifier: Whether the model has one output [B, C] with a score for each class and
            labels are class numbers [B]. Then losses see logits; else they see the outputs,
            float32, in the structure in which the model gives them.
        from_logits: Of a classifier, whether its outputs are logits; else they are
            probabilities p, and log(p) serve as logits.
        metric: What students are judged by.
        output_names: Names of the outputs, of a model that gives no dict.
    """

    is_classifier: bool = True
    from_logits: bool = True
    metric: SearchMetric = ACCURACY
    output_names: tuple[str, ...] = ()

    def scores(self, outputs: Any) -> Any:
        """A model's outputs as losses take them: see `is_classifier`."""
        if self.is_classifier:
            return to_logits(outputs, self.from_logits)
        return keras.tree.map_structure(_as_float32, outputs)


def class_scores(outputs: Any) -> tf.Tensor:
    """Returns a model's one output [B, C] as float32, whatever structure holds it.

    Args:
        outputs: What the model returned: a tensor, or a dict or list with one in it.

    Returns:
        The output, float32, shape [B, C].

    Raises:
        UserError: If there is not one output of rank 2.

    Example:
        >>> class_scores({"logits": tf.zeros([1, 2], tf.float16)}).dtype
        tf.float32
    """
    leaves = keras.tree.flatten(outputs)
    if len(leaves) != 1 or leaves[0].shape.rank != 2:
        shapes = ", ".join(str(leaf.shape) for leaf in leaves)
        raise UserError(f"A model must have one output of shape [B, C], received {shapes}.")
    return tf.cast(leaves[0], tf.float32)


def to_logits(outputs: Any, from_logits: bool) -> tf.Tensor:
    """Returns a classifier's output as logits.

    Formula:
        logits = log(clip(outputs, 1e-7, 1))    if the outputs are probabilities

    Args:
        outputs: Logits or probabilities, shape [B, C].
        from_logits: Whether the outputs are logits already.

    Returns:
        Logits, float32, shape [B, C].

    Raises:
        UserError: If the model has not one output of rank 2.

    Example:
        >>> to_logits(tf.constant([[1.0, 0.0]]), from_logits=False).numpy().round(1).tolist()
        [[0.0, -16.100000381469727]]
    """
    scores = class_scores(outputs)
    if from_logits:
        return scores
    return tf.math.log(tf.clip_by_value(scores, SMALLEST_PROBABILITY, 1.0))


def search_metric(metric: Any, direction: str = "auto") -> SearchMetric:
    """A metric as a user gives it.

    Args:
        metric: The name of a Keras metric, a `keras.metrics.Metric`, a function of
            (y_true, y_pred), or a dict with one entry that says which output it looks at.
        direction: "max", "min", or "auto": "min" if its name tells of an error or a loss.

    Raises:
        UserError: There is no such metric.

    Example:
        >>> search_metric("mean_absolute_error").direction
        'min'
        >>> search_metric({"mask": keras.metrics.MeanIoU(2)}).output
        'mask'
    """
    if direction not in DIRECTIONS:
        raise UserError(
            f"metric_direction must be one of {', '.join(DIRECTIONS)}, received {direction!r}."
        )
    output = None
    if isinstance(metric, Mapping):
        if len(metric) != 1:
            raise UserError(
                f"A metric of several outputs must name one, received {', '.join(metric)}.\n"
                'Give for instance metric={"mask": "mean_io_u"}, or metric="loss" for all.'
            )
        [(output, metric)] = metric.items()
    name = metric if isinstance(metric, str) else None
    if name in ("accuracy", "loss") and output is not None:
        raise UserError(
            f"The metric {name!r} is not one of a single output.\n"
            "Give metric='loss' for all outputs together, or a metric by its full name, such as "
            "'sparse_categorical_accuracy' or 'binary_accuracy'."
        )
    if name == "loss":
        return SearchMetric("loss", "max" if direction == "max" else "min")
    metric = _keras_metric(metric)
    name = name or metric.name
    if direction == "auto":
        function = getattr(getattr(metric, "_fn", None), "__name__", "")
        words = f"{name} {type(metric).__name__} {function}".lower()
        direction = "min" if any(word in words for word in _ERRORS) else "max"
    return SearchMetric(name, direction, metric, output)


def _keras_metric(metric: Any) -> keras.metrics.Metric:
    try:
        found = keras.metrics.get(metric)
        if isinstance(found, type):
            found = found()
    except ValueError:
        found = None
    except TypeError as error:
        raise UserError(
            f"The metric {metric!r} needs arguments: {error_reason(error)}.\n"
            "Give an object from Python, such as metric=keras.metrics.MeanIoU(num_classes=2)."
        ) from None
    if found is None:
        raise UserError(
            f"Unknown metric {metric!r}.\nGive 'accuracy', 'loss', the name of a Keras metric "
            "such as 'mean_absolute_error', or a keras.metrics.Metric."
        )
    if not isinstance(found, keras.metrics.Metric):
        name = getattr(found, "__name__", "metric")
        found = keras.metrics.MeanMetricWrapper(found, name=name)
    return found


def _as_float32(output: Any) -> Any:
    if not output.dtype.is_floating or output.dtype == tf.float32:
        return output
    return with_masks(tf.cast(output, tf.float32), masks_of(output))
