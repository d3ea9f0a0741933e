"""Layers that hold another layer: what it does to channels, they do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from esnac_tf.architecture import LayerConfig
from esnac_tf.layers import handler_of
from esnac_tf.layers.calls import OutputLabels, TensorCall, pinned
from esnac_tf.layers.channels import ChannelTensor, ChannelTrace
from esnac_tf.layers.handler import LayerHandler
from esnac_tf.layers.weights import WeightAxes


class Wrapper(LayerHandler):
    """The base of layers that hold another one, whose channels have the same roles in both."""

    def held_call(self, call: TensorCall) -> TensorCall | None:
        """The call of the held layer; None where its channels can't be followed."""
        held = wrapped(call.layer)
        if not handler_of(held).is_known:
            return None
        return TensorCall(held, call.args, call.kwargs, call.output_shapes)

    def propagate(self, call: TensorCall, trace: ChannelTrace) -> OutputLabels:
        """As the held layer does."""
        held = self.held_call(call)
        return pinned(call, trace) if held is None else _propagate(held, trace)

    def vanishes(self, call: TensorCall) -> bool:
        """As the held layer does."""
        held = self.held_call(call)
        return held is not None and handler_of(held.layer).vanishes(held)

    def resize(self, call: TensorCall, widths: Mapping[str, int]) -> LayerConfig:
        """Resizes the held layer."""
        held = self.held_call(call)
        if held is None:
            return call.layer
        return replace_wrapped(call.layer, handler_of(held.layer).resize(held, widths).config)

    def weight_axes(self, layer: LayerConfig) -> Mapping[str, WeightAxes]:
        """The held layer's."""
        held = wrapped(layer)
        axes = handler_of(held).weight_axes(held)
        return {f"{held.config['name']}/{name}": value for name, value in axes.items()}

    def adapt(
        self, name: str, weight: npt.NDArray[Any], teacher: LayerConfig, student: LayerConfig
    ) -> npt.NDArray[Any]:
        """As the held layer does."""
        held = wrapped(teacher)
        part = name.removeprefix(f"{held.config['name']}/")
        return handler_of(held).adapt(part, weight, held, wrapped(student))

    def multiply_adds(self, call: TensorCall) -> int:
        """Those of the held layer."""
        held = self.held_call(call)
        return 0 if held is None else handler_of(held.layer).multiply_adds(held)

    def is_parameter(self, layer: LayerConfig, weight: Any) -> bool:
        """What is one of the held layer."""
        held = wrapped(layer)
        return super().is_parameter(layer, weight) and handler_of(held).is_parameter(held, weight)


class SpectralNormalization(Wrapper):
    """A layer whose kernel is divided by its largest singular value while it trains."""

    class_names = ("SpectralNormalization",)
    statistics = ("vector_u",)

    def weight_axes(self, layer: LayerConfig) -> Mapping[str, WeightAxes]:
        """The held layer's; the singular vector lies along the last axis of its kernel."""
        axes = dict(super().weight_axes(layer))
        for name, value in tuple(axes.items()):
            if name.endswith(("/kernel", "/embeddings")):
                axes["vector_u"] = (None, value[-1])
        return axes


class TimeDistributed(Wrapper):
    """A layer that is called on each time step alone."""

    class_names = ("TimeDistributed",)

    def held_call(self, call: TensorCall) -> TensorCall | None:
        """The call of the held layer on one time step."""
        held, tensor = super().held_call(call), call.inputs[0]
        along_time = 0 in tensor.channel_axes or tensor.labels.shape[0] > 1
        if held is None or along_time or len(call.output_shapes) > 1:
            return None
        axes = tuple(axis - 1 for axis in tensor.channel_axes)
        step = ChannelTensor(tensor.shape[1:], tensor.labels[0], axes, tensor.vanishes)
        return TensorCall(held.layer, (step,), {}, {0: call.output_shape[1:]})

    def propagate(self, call: TensorCall, trace: ChannelTrace) -> OutputLabels:
        """As the held layer does, the same at each time step."""
        held = self.held_call(call)
        if held is None:
            return pinned(call, trace)
        for mask in call.inputs[1:]:
            trace.pin(mask.labels)
        labels = _propagate(held, trace)
        return (labels[0] if isinstance(labels, tuple) else labels)[None]

    def multiply_adds(self, call: TensorCall) -> int:
        """Those of the held layer, for each time step."""
        return super().multiply_adds(call) * (call.inputs[0].shape[0] or 1)


def wrapped(layer: LayerConfig, key: str = "layer") -> LayerConfig:
    """The layer that another holds, under the other's name: it is known by that to the trace.

    Example:
        >>> import keras
        >>> config = keras.layers.TimeDistributed(keras.layers.Dense(3, name="top")).get_config()
        >>> held = wrapped(LayerConfig("outer", "TimeDistributed", "keras.layers", config))
        >>> held.name, held.class_name, held.config["name"]
        ('outer', 'Dense', 'top')
    """
    held = layer.config[key]
    return LayerConfig(layer.name, held["class_name"], held["module"], held["config"])


def replace_wrapped(
    layer: LayerConfig, changes: Mapping[str, Any], key: str = "layer"
) -> LayerConfig:
    """The layer with some entries of the configuration of the one it holds changed.

    The shape that the held layer was built for is left out: the student's is another.
    """
    held = {name: value for name, value in layer.config[key].items() if name != "build_config"}
    return layer.replace(**{key: {**held, "config": {**held["config"], **changes}}})


def _propagate(held: TensorCall, trace: ChannelTrace) -> OutputLabels:
    return handler_of(held.layer).propagate(held, trace)
