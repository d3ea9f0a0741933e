"""Layers that merge several tensors: elementwise, or one after the other."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import numpy.typing as npt

from esnac_tf.architecture import Constant
from esnac_tf.layers.calls import OutputLabels, TensorCall, as_tensor, pinned
from esnac_tf.layers.channels import (
    PINNED,
    ChannelTensor,
    ChannelTrace,
    channel_axes,
    combine,
    unlabelled,
)
from esnac_tf.layers.handler import LayerHandler, elements


class Elementwise(LayerHandler):
    """Product, mean, maximum, ... of tensors: channels that meet stay together."""

    class_names: ClassVar[tuple[str, ...]] = (
        "Average",
        "Maximum",
        "Minimum",
        "Multiply",
        "Subtract",
    )
    operation_names: ClassVar[tuple[str, ...]] = (
        "Arctan2",
        "Divide",
        "DivideNoNan",
        "FloorDivide",
        "Hypot",
        "Logaddexp",
        "Maximum",
        "Minimum",
        "Mod",
        "Multiply",
        "Power",
        "Subtract",
        "TrueDivide",
    )
    keeps_zero: ClassVar[tuple[str, ...]] = ("Add", "Average", "Maximum", "Minimum", "Subtract")
    kind = "merging"

    def propagate(self, call: TensorCall, trace: ChannelTrace) -> OutputLabels:
        """Ties the channels of all inputs element by element.

        Of an array among the arguments, entries go with the channels that they meet. What else
        may differ from channel to channel, such as a list of numbers, pins them.
        """
        tensors, rank = call.inputs, len(call.output_shape)
        values = [*call.args, *call.kwargs.values()] if call.layer.is_operation else []
        plain = all(isinstance(value, (ChannelTensor, Constant, int, float)) for value in values)
        if not plain or max(len(tensor.shape) for tensor in tensors) != rank:
            return pinned(call, trace)
        if not all(_is_same_for_all_examples(call, constant) for constant in call.constants):
            return pinned(call, trace)
        labels = combine(list(tensors), trace)
        if call.constants and len(channel_axes(labels)) > 1:
            trace.pin(labels)
        return labels

    def vanishes(self, call: TensorCall) -> bool:
        """A sum where all terms do, a product where a factor does, a ratio where its first does."""
        name, values = call.layer.class_name, [*call.args, *call.kwargs.values()]
        if name == "Multiply":
            return any(tensor.vanishes for tensor in call.inputs)
        numbers = [value for value in values if isinstance(value, (int, float))]
        if name not in ("Divide", "DivideNoNan", "Power", "TrueDivide"):
            return super().vanishes(call) and not numbers
        first, second = call.argument(0, "x1"), call.argument(1, "x2")
        if name == "Power" and not (numbers and numbers[0] > 0):
            return False
        zero_by_zero = isinstance(second, ChannelTensor) and second.vanishes
        return isinstance(first, ChannelTensor) and first.vanishes and not zero_by_zero

    def resize_constant(self, constant: Constant, kept: npt.NDArray[np.bool_]) -> Constant:
        """The entries that meet the channels that stay; one for all channels meets any."""
        if kept.all():
            return constant
        (axis,) = channel_axes(kept)
        axis -= kept.ndim
        if -axis > constant.values.ndim or constant.values.shape[axis] == 1:
            return constant
        return constant.keep(kept.reshape(-1), axis)


class ScaledSum(Elementwise):
    """A tensor and a multiple of another: the residual connection of Inception-ResNet."""

    class_names = ()
    operation_names = ()
    application_names = ("CustomScaleLayer",)


class Sum(Elementwise):
    """Sum of tensors: what a residual connection ends in."""

    class_names = ("Add",)
    operation_names = ("Add",)
    is_sum = True


class Concatenate(LayerHandler):
    """Tensors one after the other along an axis."""

    class_names = ("Concatenate",)
    operation_names = ("Concatenate",)
    keeps_zero = class_names
    kind = "merging"

    def propagate(self, call: TensorCall, trace: ChannelTrace) -> OutputLabels:
        """The inputs' labels one after the other; along another axis, their channels tied."""
        rank, inputs = len(call.output_shape), call.inputs
        axis = call.layer.config["axis"]
        axis = axis - 1 if axis >= 0 else axis + rank
        if call.constants or axis < 0 or any(tensor.shape[axis] is None for tensor in inputs):
            return pinned(call, trace)
        along = [tensor.along(axis) for tensor in inputs]
        if any(channels is not None for channels in along):
            parts = []
            for tensor, channels in zip(inputs, along, strict=True):
                if channels is None:
                    trace.pin(tensor.labels)
                    channels = np.full(tensor.shape[axis] or 0, PINNED)
                parts.append(channels)
            shape = [1] * rank
            shape[axis] = -1
            return np.concatenate(parts).reshape(shape)
        if any(axis in tensor.channel_axes for tensor in inputs):
            return pinned(call, trace)
        for tensor in inputs[1:]:
            if tensor.labels.shape != inputs[0].labels.shape:
                return pinned(call, trace)
            trace.tie(inputs[0].labels, tensor.labels)
        return inputs[0].labels


class Dot(LayerHandler):
    """The product of two tensors, summed over an axis: their channels meet one by one.

    Along another axis than that of the channels it gives every pair of channels: they are kept.
    So they are where a channel whose weights are zero is not zero in one of them, or, if both are
    divided by their norms, in both.
    """

    class_names = ("Dot",)
    kind = "merging"

    def propagate(self, call: TensorCall, trace: ChannelTrace) -> OutputLabels:
        """Ties the channels of both; the output has none."""
        (first, axis), (second, other_axis) = _factors(call)
        channels, others = first.along(axis), second.along(other_axis)
        enough = all if call.layer.config["normalize"] else any
        adds_nothing = enough(tensor.vanishes for tensor in (first, second))
        if channels is None or others is None or not adds_nothing:
            return pinned(call, trace)
        trace.tie(channels, others)
        return unlabelled(call.output_shape)

    def multiply_adds(self, call: TensorCall) -> int:
        """What is summed over, for each element of the output."""
        (first, axis), _ = _factors(call)
        return elements(call.output_shape) * (first.shape[axis] or 1)


def _factors(call: TensorCall) -> tuple[tuple[ChannelTensor, int], ...]:
    """Both tensors of a dot product, each with the axis over which it sums, batch left out."""
    tensors = [as_tensor(value) for value in call.argument(0, "inputs")]
    axes = call.layer.config["axes"]
    axes = (axes, axes) if isinstance(axes, int) else axes
    return tuple(
        (tensor, axis - 1 if axis > 0 else axis + len(tensor.shape))
        for tensor, axis in zip(tensors, axes, strict=True)
    )


def _is_same_for_all_examples(call: TensorCall, constant: Constant) -> bool:
    """Whether an array has no axis for the examples, or one of length 1.

    To a layer the first axis is that of the examples, to an op it is so if no axis is missing.
    """
    shape, rank = constant.values.shape, len(call.output_shape) + 1
    if call.layer.is_operation and len(shape) < rank:
        return True
    return shape[:1] == (1,)
