"""What a teacher is for, from the model itself and from what the user says: its task and losses."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import warnings
from collections.abc import Mapping
from typing import Any

import keras

from esnac_tf.config import SearchConfig
from esnac_tf.distillation import losses
from esnac_tf.distillation.losses import DistillationLoss
from esnac_tf.distillation.output_losses import LabelLoss, OutputLoss, named_parts, parts_for
from esnac_tf.distillation.task import ACCURACY, SearchMetric, Task, search_metric
from esnac_tf.errors import UserError, error_reason
from esnac_tf.graph.checks import are_probabilities
from esnac_tf.graph.parsing import functional_model

# Names of the losses with the labels of a classifier that need no other labels than class numbers.
_CLASS_LOSSES = ("auto", "cross_entropy")


@dataclasses.dataclass(frozen=True)
class Purpose:
    """What a teacher is for.

    Attributes:
        task: Its outputs, and the metric.
        num_classes: C of a classifier; else None.
        search_loss: The loss of the search.
        full_loss: The loss of the full training.
        settings: Metric and losses as JSON values, for the run folder.
    """

    task: Task
    num_classes: int | None
    search_loss: DistillationLoss
    full_loss: DistillationLoss
    settings: dict[str, Any]


def named_settings(
    config: SearchConfig, metric: Any = None, loss: Any = None, distillation_loss: Any = None
) -> tuple[SearchConfig, dict[str, Any]]:
    """Settings in which names have their place, and what is no name, for `find_purpose`.

    Args:
        config: Settings.
        metric: A name, or what else a metric may be; None: as the settings say.
        loss: Likewise.
        distillation_loss: Likewise.

    Example:
        >>> huber = keras.losses.Huber()
        >>> config, objects = named_settings(SearchConfig(), metric="loss", loss=huber)
        >>> config.metric, list(objects)
        ('loss', ['loss'])
    """
    asked = {"metric": metric, "loss": loss, "distillation_loss": distillation_loss}
    names: dict[str, Any] = {n: value for n, value in asked.items() if isinstance(value, str)}
    objects = {
        name: value for name, value in asked.items() if name not in names and value is not None
    }
    return dataclasses.replace(config, **names), objects


def find_purpose(
    model: keras.Model,
    config: SearchConfig,
    metric: Any = None,
    loss: Any = None,
    distillation_loss: Any = None,
) -> Purpose:
    """What a teacher is for.

    A model with one output [B, C] of 2 or more scores is a classifier, unless a loss is given:
    its metric is the accuracy, its losses are those of `esnac_tf.distillation.losses`. Any other
    model is trained with the loss given, or that it is compiled with, and judged by the metric
    given, or else by that loss; the search distils by the mean squared error between its
    outputs and the teacher's, or by the distillation loss given.

    Args:
        model: The teacher.
        config: Settings; `metric`, `loss` and `distillation_loss` in it are names.
        metric: Instead of the name a `keras.metrics.Metric`, a function, or a dict with one
            entry by the name of an output.
        loss: Instead of the name a Keras loss, a function, or a list or dict by outputs.
        distillation_loss: Likewise.

    Raises:
        UserError: There is no loss, or a name is not known.

    Example:
        >>> inputs = keras.Input((4,))
        >>> teacher = keras.Model(inputs, keras.layers.Dense(1)(inputs))
        >>> teacher.compile(loss="mean_squared_error")
        >>> find_purpose(teacher, SearchConfig()).task.metric.name
        'loss'
    """
    metric = config.metric if metric is None else metric
    loss = config.loss if loss is None else loss
    settings = {
        "metric": _described(metric),
        "metric_direction": config.metric_direction,
        "loss": _described(loss),
        "distillation_loss": _described(
            config.distillation_loss if distillation_loss is None else distillation_loss
        ),
    }
    num_classes = _num_classes(model)
    names = tuple(functional_model(model).output_names)
    is_class_loss = isinstance(loss, str) and loss in _CLASS_LOSSES
    if loss == "auto" and model.compiled and not _compares_classes(model):
        is_class_loss = False
    if num_classes is not None and is_class_loss and distillation_loss is None:
        if isinstance(metric, str) and metric in ("auto", "accuracy"):
            chosen = ACCURACY
        else:
            chosen = search_metric(metric, config.metric_direction)
            if "Categorical" in type(chosen.metric).__name__:
                _require_sparse(chosen)
            if chosen.name == "loss":
                chosen = dataclasses.replace(chosen, loss=losses.get("cross_entropy"))
        return Purpose(
            Task(True, True, chosen, names),
            num_classes,
            losses.get(config.distillation_loss),
            losses.get(config.full_loss),
            settings,
        )
    label_loss = _label_loss(model, loss)
    if isinstance(metric, str) and metric in ("auto", "loss"):
        chosen = SearchMetric("loss", "min", loss=label_loss)
    else:
        if metric == "accuracy":
            metric = _accuracy_of(model, label_loss.loss)
        elif isinstance(metric, Mapping) and list(metric.values()) == ["accuracy"]:
            [output] = metric
            metric = {output: _accuracy_of(model, label_loss.loss, output)}
        chosen = search_metric(metric, config.metric_direction)
    return Purpose(
        Task(False, True, chosen, names),
        None,
        OutputLoss(_output_loss(config, distillation_loss), names),
        label_loss,
        settings,
    )


def with_outputs(purpose: Purpose, outputs: Any) -> Purpose:
    """The purpose of a classifier whose outputs on examples may show to be probabilities."""
    if not purpose.task.is_classifier:
        return purpose
    from_logits = not are_probabilities(outputs)
    return dataclasses.replace(
        purpose, task=dataclasses.replace(purpose.task, from_logits=from_logits)
    )


def check_labels(purpose: Purpose, outputs: Any, y: Any) -> None:
    """Tries the losses of a model that is no classifier on its outputs for a batch.

    Raises:
        UserError: They can't be computed from these labels and the model's outputs.
    """
    if purpose.task.is_classifier:
        return
    outputs = purpose.task.scores(outputs)
    try:
        purpose.full_loss(y, None, outputs)
        purpose.search_loss(y, outputs, outputs)
    except UserError:
        raise
    except Exception as error:
        names = ", ".join(map(str, named_parts(outputs)[0]))
        raise UserError(
            f"The loss can't be computed from the labels and the outputs ({names}): "
            f"{error_reason(error)}\nGive labels as `fit` takes them, and a loss that fits them."
        ) from error


def _num_classes(model: keras.Model) -> int | None:
    """C of a model with one output [B, C]; None of any other."""
    outputs = functional_model(model).outputs
    if len(outputs) != 1 or len(outputs[0].shape) != 2:
        return None
    width = outputs[0].shape[1]
    return int(width) if width is not None and width > 1 else None


def _label_loss(model: keras.Model, loss: Any) -> LabelLoss:
    weights = None
    if isinstance(loss, str) and loss == "auto":
        if not model.compiled or getattr(model, "loss", None) is None:
            raise UserError(
                f"The model {model.name!r} is no classifier with one output [batch, classes], and "
                "is not compiled, so its loss is not known.\n"
                "Give one, such as loss='mean_squared_error', or compile the model."
            )
        loss = model.loss
        weights = getattr(model, "loss_weights", None) or model.get_compile_config().get(
            "loss_weights"
        )
    for part in keras.tree.flatten(loss):
        if isinstance(part, str):
            _check_loss(part)
    return LabelLoss(loss, weights, tuple(functional_model(model).output_names))


def _output_loss(config: SearchConfig, distillation_loss: Any) -> Any:
    """The loss between outputs; the logits' mean squared error is the outputs' own here."""
    if distillation_loss is not None:
        return distillation_loss
    if config.distillation_loss == "logit_mse":
        return "mean_squared_error"
    if config.distillation_loss in losses.names():
        raise UserError(
            f"The distillation loss {config.distillation_loss!r} compares the classes of "
            "classifiers.\nGive a Keras loss, such as distillation_loss='mean_absolute_error'."
        )
    return config.distillation_loss


def _check_loss(name: str) -> None:
    try:
        keras.losses.get(name)
    except ValueError:
        raise UserError(
            f"Unknown loss {name!r}.\nGive the name of a Keras loss, such as 'mean_squared_error', "
            "or a keras.losses.Loss."
        ) from None


def _loss_name(loss: Any) -> str:
    """What a Keras loss is called, whatever form it is given in."""
    [*parts] = keras.tree.flatten(loss)
    if len(parts) != 1:
        return ""
    name = parts[0] if isinstance(parts[0], str) else getattr(parts[0], "name", None)
    return str(name or getattr(parts[0], "__name__", type(parts[0]).__name__)).lower()


def _compares_classes(model: keras.Model) -> bool:
    """Whether a compiled model is trained with a cross entropy of classes, or without a loss."""
    loss = getattr(model, "loss", None)
    name = _loss_name(loss)
    return loss is None or ("categorical" in name and "crossentropy" in name.replace("_", ""))


def _require_sparse(metric: SearchMetric) -> None:
    if "Sparse" not in type(metric.metric).__name__:
        raise UserError(
            f"The metric {metric.name!r} takes one-hot labels, a classifier's are class numbers "
            f"here.\nGive its sparse twin, such as 'sparse_{metric.name}'."
        )


def _accuracy_of(model: keras.Model, loss: Any, output: str | None = None) -> Any:
    """The accuracy of an output, of the only one by default: as its loss compares."""
    functional = functional_model(model)
    names, tensors = named_parts(functional.output, functional.output_names)
    if output is None and len(names) != 1:
        raise UserError(
            "The model has several outputs, so its accuracy is not one figure.\n"
            f'Say of which: metric={{"{names[0]}": "accuracy"}}.'
        )
    if output is not None and output not in names:
        raise UserError(
            f"The metric is of the output {output!r}.\n"
            f"The outputs are {', '.join(map(repr, names))}."
        )
    index = 0 if output is None else names.index(output)
    name = _loss_name(parts_for(loss, names, "loss")[index])
    if tensors[index].shape[-1] == 1 or "binary" in name:
        return "binary_accuracy"
    return (
        "categorical_accuracy"
        if "sparse" not in name and "categorical" in name
        else ("sparse_categorical_accuracy")
    )


def _described(value: Any) -> Any:
    """Metrics or losses as JSON values: names, and the configurations of objects."""
    return keras.tree.map_structure(_described_part, value)


def _described_part(value: Any) -> Any:
    if isinstance(value, (str, type(None))):
        return value
    if isinstance(value, (keras.Loss, keras.Metric)):
        with contextlib.suppress(TypeError, ValueError), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of functions in it that Keras does not know
            return json.loads(json.dumps(keras.saving.serialize_keras_object(value)))
    return getattr(value, "__qualname__", type(value).__qualname__)
