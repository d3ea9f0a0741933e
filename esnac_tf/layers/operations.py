"""Nodes of `keras.ops` that no layer class stands for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from esnac_tf.architecture import LayerConfig
from esnac_tf.layers.calls import OutputLabels, TensorCall, pinned
from esnac_tf.layers.channels import ChannelTensor, ChannelTrace, Labels, unlabelled
from esnac_tf.layers.handler import LayerHandler
from esnac_tf.layers.merging import Elementwise
from esnac_tf.layers.reshaping import reshaped


class Conversion(Elementwise):
    """Ops that map each element alone but give numbers of another type.

    So the identity can't take their place.
    """

    class_names = ()
    keeps_zero = ("Cast", "SaturateCast")
    operation_names = (
        "Cast",
        "Equal",
        "Greater",
        "GreaterEqual",
        "Isfinite",
        "Isinf",
        "Isnan",
        "Less",
        "LessEqual",
        "LogicalAnd",
        "LogicalNot",
        "LogicalOr",
        "LogicalXor",
        "NotEqual",
        "SaturateCast",
        "Where",
    )
    kind = "other"
    is_known = False


class Reduction(LayerHandler):
    """Mean, sum, maximum, ... over some axes."""

    operation_names: ClassVar[tuple[str, ...]] = (
        "Amax",
        "Amin",
        "Logsumexp",
        "Max",
        "Mean",
        "Median",
        "Min",
        "Prod",
        "Std",
        "Var",
    )
    keeps_zero: ClassVar[tuple[str, ...]] = (
        "Amax",
        "Amin",
        "Max",
        "Mean",
        "Median",
        "Min",
        "Norm",
        "Std",
        "Sum",
        "Var",
    )
    kind = "average_pooling"

    def propagate(self, call: TensorCall, trace: ChannelTrace) -> OutputLabels:
        """The labels without these axes; pinned where the channels themselves are reduced."""
        axes, labels = _free_axes(call), call.inputs[0].labels
        if axes is None:
            return pinned(call, trace)
        return labels if call.layer.config["keepdims"] else labels.squeeze(axes)

    def vanishes(self, call: TensorCall) -> bool:
        """Unless another number takes part."""
        return super().vanishes(call) and not call.layer.config.get("initial")


class SumOfChannels(Reduction):
    """Reductions to which a channel that is zero adds nothing: channels may be reduced, too.

    They are kept where a channel whose weights are zero is not zero itself, as behind a sigmoid.
    """

    operation_names = ("Norm", "Sum")

    def propagate(self, call: TensorCall, trace: ChannelTrace) -> OutputLabels:
        """The labels without these axes; none where the channels themselves are reduced."""
        tensor, order = call.inputs[0], call.layer.config.get("ord")
        axes = _positions(call.layer.config["axis"], len(tensor.shape))
        # The order of a norm: with a negative one, zeros decide.
        adds_nothing = tensor.vanishes and (
            order is None or (isinstance(order, (int, float)) and order > 0)
        )
        if axes is not None and tensor.channel_axes in [(axis,) for axis in axes] and adds_nothing:
            return unlabelled(call.output_shape)
        return super().propagate(call, trace)


class Counting(Reduction):
    """Reductions that give numbers of another type: the identity can't take their place."""

    operation_names = ("All", "Any", "CountNonzero")
    kind = "other"
    is_known = False


class AlongAxis(LayerHandler):
    """Ops that look along one axis and keep the shape."""

    operation_names = (
        "Cumprod",
        "Cumsum",
        "Flip",
        "LogSoftmax",
        "Roll",
        "Softmax",
        "Sort",
        "Sparsemax",
    )
    keeps_zero = ("Cumprod", "Cumsum", "Flip", "Roll", "Sort")

    def propagate(self, call: TensorCall, trace: ChannelTrace) -> OutputLabels:
        """The input's labels; pinned where channels lie along this axis."""
        return pinned(call, trace) if _free_axes(call) is None else call.inputs[0].labels


class ExpandDims(LayerHandler):
    """A new axis of length 1."""

    operation_names = ("ExpandDims",)
    keeps_zero = operation_names
    kind = "reshaping"
    moves_elements = True

    def propagate(self, call: TensorCall, trace: ChannelTrace) -> OutputLabels:
        """The labels with the new axis."""
        axes = _positions(call.layer.config["axis"], len(call.output_shape))
        return pinned(call, trace) if axes is None else np.expand_dims(call.inputs[0].labels, axes)


class Squeeze(LayerHandler):
    """Axes of length 1 left out.

    Which ones must be told: where the lengths decide, a last channel would go, too.
    """

    operation_names = ("Squeeze",)
    keeps_zero = operation_names
    kind = "reshaping"
    moves_elements = True

    def propagate(self, call: TensorCall, trace: ChannelTrace) -> OutputLabels:
        """The labels without these axes."""
        labels = call.inputs[0].labels
        axes = _positions(call.layer.config["axis"], labels.ndim)
        return pinned(call, trace) if axes is None else labels.squeeze(axes)


class Transpose(LayerHandler):
    """The same axes in another order."""

    operation_names = ("Moveaxis", "Swapaxes", "Transpose")
    keeps_zero = operation_names
    kind = "reshaping"
    moves_elements = True

    def propagate(self, call: TensorCall, trace: ChannelTrace) -> OutputLabels:
        """The labels, permuted as the tensor is; pinned where the batch axis moves."""
        labels, config = call.inputs[0].labels, call.layer.config
        # An array whose axes have their own numbers for lengths shows where they go.
        axes = np.empty(range(labels.ndim + 1))
        if call.layer.class_name == "Moveaxis":
            order = np.moveaxis(axes, config["source"], config["destination"]).shape
        elif call.layer.class_name == "Swapaxes":
            order = axes.swapaxes(config["axis1"], config["axis2"]).shape
        else:
            order = axes.transpose(config["axes"]).shape
        if order[0] != 0:
            return pinned(call, trace)
        return labels.transpose([axis - 1 for axis in order[1:]])


class ReshapeOperation(LayerHandler):
    """The same elements in another shape, whose first axis stays the batch."""

    operation_names = ("Reshape",)
    keeps_zero = operation_names
    kind = "reshaping"
    moves_elements = True

    def propagate(self, call: TensorCall, trace: ChannelTrace) -> OutputLabels:
        """The input's labels, reshaped as the tensor is."""
        labels = None
        if call.layer.config["newshape"][0] in (-1, None):
            labels = reshaped(call.inputs[0], call.output_shape, trace)
        return pinned(call, trace) if labels is None else labels

    def resize(self, call: TensorCall, widths: Mapping[str, int]) -> LayerConfig:
        """Sets the new shape."""
        newshape = call.layer.config["newshape"]
        if None in call.output_shape or newshape[0] not in (-1, None):
            return call.layer
        return call.layer.replace(newshape=[newshape[0], *call.output_shape])


class Split(LayerHandler):
    """A tensor cut into several along an axis."""

    operation_names = ("Split",)
    keeps_zero = operation_names
    kind = "reshaping"

    def propagate(self, call: TensorCall, trace: ChannelTrace) -> OutputLabels:
        """The labels, cut as the tensor is; equal parts keep equally many channels each."""
        tensor, sections = call.inputs[0], call.layer.config["indices_or_sections"]
        axes = _positions(call.layer.config["axis"], len(tensor.shape))
        if axes is None:
            return pinned(call, trace)
        (axis,) = axes
        count = sections if isinstance(sections, int) else len(sections) + 1
        if axis not in tensor.channel_axes:
            return (tensor.labels,) * count
        channels = tensor.along(axis)
        if channels is None:
            return pinned(call, trace)
        if isinstance(sections, int):
            parts = list(channels.reshape(count, -1))
            trace.balance(np.stack(parts))
        else:
            ends = _ends(call, axis)
            if len(ends) < count or ends[-1] != len(channels):
                return pinned(call, trace)
            parts = np.split(channels, ends[:-1])
        shape = [1] * len(tensor.shape)
        shape[axis] = -1
        return tuple(part.reshape(shape) for part in parts)

    def resize(self, call: TensorCall, widths: Mapping[str, int]) -> LayerConfig:
        """Sets where the channels are cut, unless it is into equal parts."""
        tensor, sections = call.inputs[0], call.layer.config["indices_or_sections"]
        axes = _positions(call.layer.config["axis"], len(tensor.shape))
        if isinstance(sections, int) or axes is None or axes[0] not in tensor.channel_axes:
            return call.layer
        ends = _ends(call, axes[0])
        if len(ends) <= len(sections):
            return call.layer
        return call.layer.replace(indices_or_sections=ends[:-1])


class Stack(LayerHandler):
    """Tensors of one shape along a new axis."""

    operation_names = ("Stack",)
    keeps_zero = operation_names
    kind = "merging"

    def propagate(self, call: TensorCall, trace: ChannelTrace) -> OutputLabels:
        """The first input's labels with the new axis; those of the others are tied to them."""
        first, *others = call.inputs
        axes = _positions(call.layer.config["axis"], len(call.output_shape))
        same = all(tensor.labels.shape == first.labels.shape for tensor in others)
        if axes is None or call.constants or not same:
            return pinned(call, trace)
        for tensor in others:
            trace.tie(first.labels, tensor.labels)
        return np.expand_dims(first.labels, axes)


class Unstack(LayerHandler):
    """All positions along an axis as tensors of their own."""

    operation_names = ("Unstack",)
    keeps_zero = operation_names
    kind = "reshaping"

    def propagate(self, call: TensorCall, trace: ChannelTrace) -> OutputLabels:
        """The labels without the axis, for each output."""
        axes = _free_axes(call)
        if axes is None:
            return pinned(call, trace)
        return (call.inputs[0].labels.squeeze(axes),) * (max(call.output_shapes) + 1)


class GetItem(LayerHandler):
    """Slices, such as the first position `x[:, 0]`.

    A slice along the channels says by numbers which ones it takes, so it pins them.
    """

    operation_names = ("GetItem",)
    keeps_zero = operation_names
    kind = "reshaping"

    def propagate(self, call: TensorCall, trace: ChannelTrace) -> OutputLabels:
        """The labels, sliced as the tensor is."""
        tensor = call.inputs[0]
        labels = _sliced(tensor, call.argument(1, "key"))
        return pinned(call, trace) if labels is None else labels


def _sliced(tensor: ChannelTensor, key: Any) -> Labels | None:
    """The labels of a slice; None where channels are sliced, or examples, or by tensors."""
    keys = list(key) if isinstance(key, (list, tuple)) else [key]
    kinds = [_kind_of(item) for item in keys]
    if None in kinds:
        return None
    rank = len(tensor.shape) + 1
    missing = rank - sum(kind in ("index", "slice", "all") for kind in kinds)
    if "ellipsis" not in kinds:
        kinds.append("ellipsis")
    place = kinds.index("ellipsis")
    kinds[place : place + 1] = ["all"] * missing
    if kinds[0] != "all":
        return None
    index: list[Any] = []
    axis = 0
    for kind in kinds[1:]:
        if kind == "new":
            index.append(None)
            continue
        if kind != "all" and axis in tensor.channel_axes:
            return None
        index.append(0 if kind == "index" else slice(None))
        axis += 1
    return tensor.labels[tuple(index)]


def _kind_of(item: Any) -> str | None:
    """What an entry of a slice does, as Keras writes it down."""
    if item is None:
        return "new"
    if isinstance(item, int):
        return "index"
    if isinstance(item, Mapping):
        if item.get("class_name") == "__ellipsis__":
            return "ellipsis"
        if item.get("class_name") == "__slice__":
            return "all" if not any(item["config"].values()) else "slice"
    return None


def _free_axes(call: TensorCall) -> tuple[int, ...] | None:
    """The axes that an op is told; None where channels, or the examples, lie along one of them."""
    tensor = call.inputs[0]
    axes = _positions(call.layer.config["axis"], len(tensor.shape))
    return None if axes is None or set(axes) & set(tensor.channel_axes) else axes


def _positions(axis: Any, rank: int) -> tuple[int, ...] | None:
    """Axes of a tensor of `rank` axes without the batch; None where the batch is among them.

    Example:
        >>> _positions(-1, 3), _positions([1, 2], 3), _positions(0, 3)
        ((2,), (0, 1), None)
    """
    if axis is None:
        return None
    axes = axis if isinstance(axis, (list, tuple)) else [axis]
    positions = tuple(value - 1 if value >= 0 else value + rank for value in axes)
    return positions if min(positions, default=0) >= 0 else None


def _ends(call: TensorCall, axis: int) -> list[int]:
    """Where each output of a cut ends along an axis; only what is used is known."""
    lengths = [call.output_shapes[number][axis] or 0 for number in sorted(call.output_shapes)]
    return [int(end) for end in np.cumsum(lengths)]
