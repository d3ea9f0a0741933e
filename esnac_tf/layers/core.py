"""Dense layers, embeddings, and layers that do nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from esnac_tf.architecture import LayerConfig
from esnac_tf.layers.calls import OutputLabels, TensorCall
from esnac_tf.layers.channels import PINNED, ChannelTrace, place
from esnac_tf.layers.handler import LayerHandler, consume, create, elements, keeps_zero
from esnac_tf.layers.weights import WeightAxes


class Dense(LayerHandler):
    """Fully connected layer, on the last axis.

    Where channels lie along other axes only (the positions of an MLP-Mixer are mixed for each
    channel alone), they pass, and the units are kept.
    """

    class_names = ("Dense",)
    kind = "dense"

    def weight_axes(self, layer: LayerConfig) -> Mapping[str, WeightAxes]:
        """One matrix and one bias."""
        return {"kernel": ("in", "out"), "bias": ("out",)}

    def propagate(self, call: TensorCall, trace: ChannelTrace) -> OutputLabels:
        """Consumes the input's channels and creates `units` new ones."""
        layer, tensor, axis = call.layer, call.inputs[0], len(call.output_shape) - 1
        length = tensor.shape[axis]
        if tensor.channel_axes and axis not in tensor.channel_axes and length is not None:
            trace.consume(layer.name, np.full(length, PINNED))
            trace.pin(create(layer, layer.config["units"], trace))
            return tensor.labels
        consume(layer, tensor, axis, trace)
        return place(create(layer, layer.config["units"], trace), axis + 1, axis)

    def vanishes(self, call: TensorCall) -> bool:
        """Where it creates the channels, and the activation keeps zero."""
        axes = call.inputs[0].channel_axes
        creates = not axes or len(call.output_shape) - 1 in axes
        return creates and keeps_zero(call.layer.config["activation"])

    def resize(self, call: TensorCall, widths: Mapping[str, int]) -> LayerConfig:
        """Sets `units`."""
        return call.layer.replace(units=widths["out"])

    def multiply_adds(self, call: TensorCall) -> int:
        """Input channels, for each element of the output."""
        return elements(call.output_shape) * (call.inputs[0].shape[-1] or 1)


class Embedding(LayerHandler):
    """A vector for each number: a dense layer whose input has one 1."""

    class_names = ("Embedding",)
    kind = "dense"

    def weight_axes(self, layer: LayerConfig) -> Mapping[str, WeightAxes]:
        """A row for each number."""
        return {"embeddings": (None, "out")}

    def propagate(self, call: TensorCall, trace: ChannelTrace) -> OutputLabels:
        """Creates `output_dim` channels; what tells the numbers is kept."""
        trace.pin(call.inputs[0].labels)
        rank = len(call.output_shape)
        return place(create(call.layer, call.layer.config["output_dim"], trace), rank, rank - 1)

    def vanishes(self, call: TensorCall) -> bool:
        """Always."""
        return True

    def resize(self, call: TensorCall, widths: Mapping[str, int]) -> LayerConfig:
        """Sets `output_dim`."""
        return call.layer.replace(output_dim=widths["out"])


class PassThrough(LayerHandler):
    """Layers that treat each element alone and have no weights."""

    class_names: ClassVar[tuple[str, ...]] = ("Identity", "Masking")
    keeps_zero: ClassVar[tuple[str, ...]] = class_names

    def propagate(self, call: TensorCall, trace: ChannelTrace) -> OutputLabels:
        """The input's labels."""
        return call.inputs[0].labels
