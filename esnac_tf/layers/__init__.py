"""What each kind of Keras layer does to channels, configuration and weights.

Files are grouped as Keras groups its layers. A new layer type is one small subclass of
`LayerHandler` in one of them.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil

from esnac_tf.architecture import LayerConfig
from esnac_tf.layers.handler import LayerHandler, UnknownLayer

__all__ = ["LayerHandler", "handler_of"]


@functools.cache
def _handlers() -> tuple[dict[str, LayerHandler], ...]:
    """Handlers by class name, found in this folder: of layers, ops, and layers of applications."""
    layers: dict[str, LayerHandler] = {}
    operations: dict[str, LayerHandler] = {}
    applications: dict[str, LayerHandler] = {}
    for module_info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{module_info.name}")
        for _, member in inspect.getmembers(module, inspect.isclass):
            if issubclass(member, LayerHandler) and member.__module__ == module.__name__:
                handler = member()
                layers.update(dict.fromkeys(member.class_names, handler))
                operations.update(dict.fromkeys(member.operation_names, handler))
                applications.update(dict.fromkeys(member.application_names, handler))
    return layers, operations, applications


def handler_of(layer: LayerConfig) -> LayerHandler:
    """The handler of a layer; of an unknown one, the handler that pins its channels.

    Example:
        >>> handler_of(LayerConfig("c", "Conv2D", "keras.layers", {})).kind
        'convolution'
        >>> handler_of(LayerConfig("c", "Conv2D", "my_package", {})).is_known
        False
    """
    layers, operations, applications = _handlers()
    if layer.is_keras_layer:
        return layers.get(layer.class_name, _UNKNOWN)
    if layer.is_operation:
        return operations.get(layer.class_name, _UNKNOWN)
    if layer.is_application_layer:
        return applications.get(layer.class_name, _UNKNOWN)
    return _UNKNOWN


_UNKNOWN = UnknownLayer()
