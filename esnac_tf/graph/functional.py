"""Which Keras models have a graph that can be read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from esnac_tf.errors import UserError


def functional_model(model: keras.Model) -> keras.Model:
    """The model as a functional one that tells its graph in its configuration.

    A built Sequential becomes its functional equal; so does a functional model whose class has
    a configuration of its own. Layers are not copied.

    Raises:
        UserError: The model is subclassed, a Sequential that was not built, or has a layer
            without `get_config`, or with one that fails.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="top")])
        >>> [operation.name for operation in functional_model(model).operations][1:]
        ['top']
    """
    if isinstance(model, keras.Sequential):
        model = _functional_sequential(model)
    if not isinstance(model, keras.Model):
        raise UserError(
            f"Expected a keras.Model as the teacher, received {type(model).__name__}.\n"
            "Load it first, for instance with keras.models.load_model(path)."
        )
    # A class with a `call` of its own does what that says, not what its graph says.
    if not hasattr(model, "operations") or not type(model).call.__module__.startswith("keras."):
        raise UserError(
            f"The model {model.name!r} ({type(model).__name__}) is not functional, so it has no "
            "graph to search.\n"
            "Give a functional or Sequential model, for instance keras.Model(inputs, outputs)."
        )
    if "output_layers" not in _config(model):
        model = keras.Model(model.input, model.output, name=model.name)
        if not _config(model):
            layer, reason = _layer_without_config(model)
            raise UserError(
                f"The layer {layer.name!r} ({type(layer).__name__}) of the model {model.name!r} "
                f"can't tell its configuration{reason}.\n"
                "Give its class a method get_config that returns the arguments of __init__."
            )
    return model


def is_functional(model: Any) -> bool:
    """Whether this is a model that has a graph that can be read.

    Example:
        >>> is_functional(keras.Sequential([keras.layers.Dense(3)]))
        False
    """
    try:
        functional_model(model)
    except UserError:
        return False
    return True


def _functional_sequential(model: keras.Sequential) -> keras.Model:
    try:
        (tensor,) = model.inputs
    except AttributeError as error:
        raise UserError(
            f"The Sequential model {model.name!r} is not built, so its shapes are unknown.\n"
            "Give it a keras.Input as its first layer, or call model.build(input_shape)."
        ) from error
    structure = model.compute_output_spec(tensor)  # its last layer may give a dict
    outputs = keras.tree.pack_sequence_as(structure, model.outputs)
    return keras.Model(tensor, outputs, name=model.name)


def _config(model: keras.Model) -> Mapping[str, Any]:
    """The model's configuration; empty where a class in it can't tell its own."""
    try:
        return model.get_config() or {}
    except Exception:  # other people's code
        return {}


def _layer_without_config(layer: Any, reason: str = "") -> tuple[Any, str]:
    """The innermost layer that can't tell its configuration, of one that can't, and why.

    There is no reason to tell where its class lacks `get_config`.
    """
    parts: list[Any] = getattr(layer, "operations", None) or getattr(layer, "layers", [])
    for part in parts:
        try:
            part.get_config()
        except NotImplementedError:
            return _layer_without_config(part)
        except Exception as error:
            lines = str(error).splitlines() or [""]
            return _layer_without_config(part, f": {type(error).__name__}: {lines[0]}")
    return layer, reason
