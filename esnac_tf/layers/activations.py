"""Activations: each element is mapped alone, so channels pass through."""

from __future__ import annotations

from collections.abc import Mapping

from esnac_tf.architecture import LayerConfig
from esnac_tf.layers.calls import OutputLabels, TensorCall
from esnac_tf.layers.channels import ChannelTrace
from esnac_tf.layers.core import PassThrough
from esnac_tf.layers.handler import LayerHandler, compares_channels, consume
from esnac_tf.layers.weights import WeightAxes


class Activation(PassThrough):
    """An activation without weights.

    Softmax and its kin compare channels with one another, so they pin them; functions that
    are not Keras's own may, so they do too.
    """

    class_names = ("Activation", "ReLU", "LeakyReLU", "ELU", "Softmax")
    operation_names = (
        "Celu",
        "Elu",
        "Gelu",
        "HardShrink",
        "HardSigmoid",
        "HardSilu",
        "HardTanh",
        "LeakyRelu",
        "LogSigmoid",
        "Relu",
        "Relu6",
        "Selu",
        "Sigmoid",
        "Silu",
        "SoftShrink",
        "Softplus",
        "Softsign",
        "SparsePlus",
        "Squareplus",
        "Tanh",
        "TanhShrink",
        "Threshold",
    )
    keeps_zero = (
        "Activation",
        "ReLU",
        "LeakyReLU",
        "ELU",
        "Celu",
        "Elu",
        "Gelu",
        "HardSilu",
        "HardTanh",
        "LeakyRelu",
        "Relu",
        "Relu6",
        "Selu",
        "Silu",
        "Softsign",
        "Tanh",
        "TanhShrink",
    )
    kind = "activation"

    def propagate(self, call: TensorCall, trace: ChannelTrace) -> OutputLabels:
        """The input's labels; pinned where the function compares channels."""
        layer = call.layer
        if layer.class_name == "Softmax" or compares_channels(layer.config.get("activation")):
            trace.pin(call.inputs[0].labels)
        return call.inputs[0].labels

    def vanishes(self, call: TensorCall) -> bool:
        """Where the function keeps zero; a ReLU with a threshold may not."""
        return super().vanishes(call) and not call.layer.config.get("threshold")


class PReLU(LayerHandler):
    """A leaky ReLU that learns its slope for each channel, and position unless it is shared."""

    class_names = ("PReLU",)
    keeps_zero = class_names
    kind = "activation"

    def weight_axes(self, layer: LayerConfig) -> Mapping[str, WeightAxes]:
        """Channels lie along the last axis; a shared axis is 1 whatever its length."""
        return {"alpha": (..., "in")}

    def propagate(self, call: TensorCall, trace: ChannelTrace) -> OutputLabels:
        """The input's labels; consumes its channels unless they share one slope."""
        tensor, last = call.inputs[0], len(call.output_shape) - 1
        shared = {axis - 1 for axis in call.layer.config["shared_axes"] or ()}
        if last not in shared:
            consume(call.layer, tensor, last, trace)
        elif set(tensor.channel_axes) - shared:
            trace.pin(tensor.labels)
        return tensor.labels


class UnaryOperation(PassThrough):
    """Ops that map each element alone, whatever its channel."""

    keeps_zero = (
        "Abs",
        "Absolute",
        "Arcsin",
        "Arcsinh",
        "Arctan",
        "Arctanh",
        "Cbrt",
        "Ceil",
        "Erf",
        "Erfinv",
        "Expm1",
        "Floor",
        "Log1p",
        "Negative",
        "Positive",
        "Round",
        "Sign",
        "Sin",
        "Sinh",
        "Sqrt",
        "Square",
        "StopGradient",
        "Tan",
        "Trunc",
    )
    operation_names = (
        *keeps_zero,
        "Arccos",
        "Arccosh",
        "Clip",
        "Cos",
        "Cosh",
        "Erfc",
        "Exp",
        "Exp2",
        "Log",
        "Log10",
        "Log2",
        "NanToNum",
        "Reciprocal",
        "Rsqrt",
        "Sinc",
    )
    class_names = ()
    kind = "activation"
