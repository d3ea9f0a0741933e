"""Call arguments as Keras takes them, from the plain data of an architecture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from esnac_tf.architecture import Constant, TensorReference


def revive(value: Any, tensors: Mapping[TensorReference, Any]) -> Any:
    """A nested argument with references replaced by tensors and constants as objects.

    Example:
        >>> part = {"class_name": "__slice__", "config": {"start": 0, "stop": 2, "step": None}}
        >>> revive([TensorReference("a"), part], {TensorReference("a"): "tensor"})
        ['tensor', slice(0, 2, None)]
    """
    if isinstance(value, TensorReference):
        return tensors[value]
    if isinstance(value, Constant):
        dtype = value.values.dtype.name
        return ops.convert_to_tensor(value.values, dtype) if value.is_tensor else value.values
    if isinstance(value, Mapping):
        if "class_name" in value:
            return keras.saving.deserialize_keras_object(dict(value))
        return {key: revive(item, tensors) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(revive(item, tensors) for item in value)
    return value
