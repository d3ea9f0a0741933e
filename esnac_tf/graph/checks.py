"""What a model must be to be searched, and data to fit it: refused before anything is trained."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from esnac_tf.errors import UserError, error_reason
from esnac_tf.graph.parsing import functional_model
from esnac_tf.graph.protection import OUTPUT_REASON, fixed_groups
from esnac_tf.graph.teacher import TeacherGraph, why_not_removable
from esnac_tf.layers import handler_of

# So many reasons are told why a model can't be made smaller.
_TOLD_OBSTACLES = 3


def check_classifier(model: keras.Model) -> int:
    """Refuses what is no classifier with one input and one output.

    Args:
        model: A Keras model.

    Returns:
        C, its number of classes, 2 or more.

    Raises:
        UserError: It is not functional, or has other inputs or outputs.

    Example:
        >>> inputs = keras.Input((4,))
        >>> check_classifier(keras.Model(inputs, keras.layers.Dense(3)(inputs)))
        3
    """
    model = functional_model(model)
    outputs = model.outputs
    if isinstance(model.output, dict):
        raise UserError(
            f"The model {model.name!r} gives a dict with the keys {', '.join(model.output)}.\n"
            "Give a classifier whose output is one tensor [batch, classes], or use "
            "esnac_tf.compress in Python."
        )
    if len(outputs) != 1 or len(outputs[0].shape) != 2 or not (outputs[0].shape[1] or 0) > 1:
        shapes = ", ".join(str(tuple(output.shape)) for output in outputs)
        raise UserError(
            f"The model {model.name!r} has outputs of shape {shapes}.\n"
            "Expected a classifier with one output [batch, classes] of 2 classes or more; other "
            "models are compressed from Python: esnac_tf.compress."
        )
    if len(model.inputs) != 1 or isinstance(model.input, dict):
        raise UserError(
            f"The model {model.name!r} has the inputs "
            f"{', '.join(tensor.name for tensor in model.inputs)}.\n"
            "Expected a model that is called on one tensor; others are compressed from Python: "
            "esnac_tf.compress."
        )
    return int(outputs[0].shape[1])


def check_searchable(graph: TeacherGraph) -> None:
    """Refuses a model that nothing can be taken from.

    Raises:
        UserError: So it is.
    """
    if graph.width_groups or graph.removals:
        return
    used = [graph.architecture.layer_of(call) for node in graph.nodes for call in node.calls]
    known = all(handler_of(layer).is_known for layer in used)
    hint = "Give a model with hidden layers whose channels may go."
    raise UserError(
        f"Nothing can be taken from {graph.architecture.name!r}: {'; '.join(_obstacles(graph))}.\n"
        f"{hint if known else 'CONTRIBUTING.md tells how this package learns layers of your own.'}"
    )


def _obstacles(graph: TeacherGraph) -> list[str]:
    """What keeps channels and layers, the first few; an output, which always does, comes last."""
    inner: list[str] = []
    outputs: list[str] = []
    for index, reason in fixed_groups(graph.architecture, graph.channels).items():
        name = graph.channels.groups[index].name
        told = outputs if reason == OUTPUT_REASON else inner
        told.append(f"the channels of {name!r} can't be fewer, as {reason}")
    layers = [
        f"{name!r} can't be removed, as {why_not_removable(graph, name)}"
        for name in dict.fromkeys(node.calls[0].layer for node in graph.nodes)
        if name not in graph.channels.created_roles
    ]
    found = [*inner, *layers, *outputs][:_TOLD_OBSTACLES]
    return found or ["no layer of it makes channels"]


def check_examples(model: keras.Model, dataset: tf.data.Dataset, part: str) -> None:
    """Refuses data whose examples a model can't take.

    Args:
        model: A functional model.
        dataset: Batches (x [B, ...], y, ...), x in a structure that the model takes.
        part: What the data is for, such as "training".

    Raises:
        UserError: The examples have another shape or another structure, are text where the model
            takes none, or the model can't compute its outputs from the first batch.
    """
    x = dataset.element_spec[0]
    if tf.string in _types(x) and tf.string not in _types(model.inputs):
        raise UserError(
            f"The {part} data has examples of text, the model {model.name!r} takes "
            f"{_types(model.inputs)[0].name}.\nGive numbers, such as x.astype('float32')."
        )
    # A Sequential model that was never called has inputs, but no input.
    if len(model.inputs) > 1 or isinstance(getattr(model, "input", None), dict):
        _try_examples(model, dataset, part)
        return
    if not isinstance(x, tf.TensorSpec):
        raise UserError(
            f"The {part} data has examples that are no tensor, received {type(x).__name__}.\n"
            f"Give examples of shape {_example_shape(model.inputs[0])}."
        )
    if x.shape.rank is not None:
        wanted, received = _example_shape(model.inputs[0]), _example_shape(x)
        if len(wanted) != len(received) or any(
            None not in (one, other) and one != other
            for one, other in zip(wanted, received, strict=True)
        ):
            raise UserError(
                f"The model {model.name!r} takes examples of shape {wanted}, the {part} data has "
                f"{received}.\nGive data of the shape that the model was trained on."
            )
    _try_examples(model, dataset, part)


def _try_examples(model: keras.Model, dataset: tf.data.Dataset, part: str) -> None:
    """Tries the first batch on the model itself: Keras knows what structures it takes."""
    for x, *_ in dataset.take(1):
        try:
            model(x, training=False)
        except Exception as error:
            is_single = len(model.inputs) == 1 and isinstance(x, tf.Tensor)
            if is_single or isinstance(error, tf.errors.OpError):
                raise UserError(
                    f"The teacher can't compute the {part} data: {error_reason(error)}\n"
                    "Give data of the kind and range that the model was trained on."
                ) from error
            inputs = ", ".join(f"{i.name} {_example_shape(i)}" for i in model.inputs)
            given = tf.nest.map_structure(_example_shape, x)
            raise UserError(
                f"The model {model.name!r} has the inputs {inputs}, the {part} data gives "
                f"{given}.\nGive examples as `fit` takes them, for instance a dict by the names "
                "of the inputs."
            ) from error


def are_probabilities(outputs: Any) -> bool:
    """Whether a classifier's outputs are probabilities, not logits.

    It is read from the outputs themselves, so it does not matter which layer makes them.

    Args:
        outputs: One tensor [B, C], in any structure.

    Returns:
        Whether all outputs are 0 or more and each example's sum to 1.

    Example:
        >>> are_probabilities(keras.ops.softmax(np.eye(2)))
        True
    """
    (output,) = keras.tree.flatten(outputs)
    outputs = keras.ops.convert_to_numpy(output).astype(np.float64)
    return bool(np.all(outputs >= 0) and np.allclose(outputs.sum(axis=-1), 1, atol=5e-3))


def _types(structure: Any) -> list[tf.DType]:
    tensors = tf.nest.flatten(structure)
    return [tf.as_dtype(tensor.dtype) for tensor in tensors if hasattr(tensor, "dtype")]


def _example_shape(tensor: Any) -> tuple[int | None, ...]:
    return tuple(tensor.shape[1:])
