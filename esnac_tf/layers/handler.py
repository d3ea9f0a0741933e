"""The base of all layer handlers: what a kind of Keras layer does to channels and weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from esnac_tf.architecture import Constant, LayerConfig
from esnac_tf.layers.calls import OutputLabels, TensorCall, pinned
from esnac_tf.layers.channels import PINNED, ChannelTensor, ChannelTrace, Labels
from esnac_tf.layers.weights import WeightAxes, weight_name

# Kinds of layers as the encoding tells them apart, one number each.
KINDS = (
    "convolution",
    "depthwise_convolution",
    "dense",
    "normalization",
    "activation",
    "max_pooling",
    "average_pooling",
    "merging",
    "reshaping",
    "other",
)

# Activation functions that look at all channels at once.
_ACROSS_CHANNELS = ("glu", "log_softmax", "softmax", "sparsemax")
# Activation functions that give zero for zero.
_KEEPING_ZERO = (
    "celu",
    "elu",
    "gelu",
    "hard_shrink",
    "hard_silu",
    "hard_swish",
    "hard_tanh",
    "leaky_relu",
    "linear",
    "mish",
    "relu",
    "relu6",
    "selu",
    "silu",
    "soft_shrink",
    "softsign",
    "swish",
    "tanh",
    "tanh_shrink",
)


class LayerHandler:
    """What one kind of layer does to channels, configuration and weights.

    A subclass teaches the project a layer type; it is found by being in a module of this
    folder. The base class pins the channels of the layer's inputs and outputs; a layer that no
    subclass names has the handler `UnknownLayer`.

    A layer may take channels from several inputs and create several sets of them. It names each
    set: its *role*. The roles are those that `propagate` tells the trace, "in" and "out" unless
    it says otherwise, and those that `weight_axes` names.

    Attributes:
        class_names: Names of the Keras layer classes it handles.
        operation_names: Names of the `keras.ops` node classes it handles.
        application_names: Names of the layer classes inside `keras.applications` it handles.
        kind: One of `KINDS`.
        is_known: Whether it is known what the layer does to channels.
        keeps_zero: Those of its names that give zero for a channel that is zero in all inputs.
        statistics: Names of weights that are measured, not trained; they are no parameters.
        is_sum: Whether the layer is the sum of its inputs: then it is no node of the layer
            sequence, and each of its inputs is an incoming edge of whatever follows.
        moves_elements: Whether the layer only moves elements; consecutive ones are one node of
            the layer sequence (a channel shuffle is Reshape, Permute, Reshape).
        is_preprocessing: Whether it prepares the model's input, is always kept, and is no node
            of the layer sequence.
    """

    class_names: ClassVar[tuple[str, ...]] = ()
    operation_names: ClassVar[tuple[str, ...]] = ()
    application_names: ClassVar[tuple[str, ...]] = ()
    keeps_zero: ClassVar[tuple[str, ...]] = ()
    kind: ClassVar[str] = "other"
    is_known: ClassVar[bool] = True
    is_sum: ClassVar[bool] = False
    moves_elements: ClassVar[bool] = False
    is_preprocessing: ClassVar[bool] = False
    statistics: ClassVar[tuple[str, ...]] = ()

    def propagate(self, call: TensorCall, trace: ChannelTrace) -> OutputLabels:
        """The labels of the layer's output, given those of its inputs.

        Args:
            call: The call, with the teacher's layer; in a student, with the student's tensors.
            trace: Is told which channels are created, tied, pinned and consumed.

        Returns:
            The output's labels; of a layer with several outputs, those of each.
        """
        return pinned(call, trace)

    def vanishes(self, call: TensorCall) -> bool:
        """Whether a channel of the output is zero whose weights, where it was created, are.

        Only then may it go from a sum over channels: to say no is always safe.
        """
        return (
            call.layer.class_name in self.keeps_zero
            and keeps_zero(call.layer.config.get("activation"))
            and not call.constants
            and all(tensor.vanishes for tensor in call.inputs)
        )

    def resize(self, call: TensorCall, widths: Mapping[str, int]) -> LayerConfig:
        """The layer as the student has it.

        Args:
            call: The student's call, with the teacher's layer.
            widths: How many channels of each role the student's layer has.
        """
        return call.layer

    def resize_constant(self, constant: Constant, kept: npt.NDArray[np.bool_]) -> Constant:
        """An array among a call's arguments, as the student's call takes it.

        Args:
            constant: The array that the teacher's call takes.
            kept: Which channels of the output stay: as its labels, batch axis left out.
        """
        return constant

    def weight_axes(self, layer: LayerConfig) -> Mapping[str, WeightAxes]:
        """For each weight, by the end of its path, what lies along each of its axes."""
        return {}

    def adapt(
        self, name: str, weight: npt.NDArray[Any], teacher: LayerConfig, student: LayerConfig
    ) -> npt.NDArray[Any]:
        """A weight with the student's channels of the teacher's, as the student needs it.

        Args:
            name: The weight's name, as `weight_axes` has it.
            weight: Its value.
            teacher: The teacher's layer.
            student: The student's.
        """
        return weight

    def multiply_adds(self, call: TensorCall) -> int:
        """Multiply-adds of one example; 0 for layers that multiply no matrix.

        An axis that is not known counts as 1.
        """
        return 0

    def is_parameter(self, layer: LayerConfig, weight: Any) -> bool:
        """Whether a weight is a parameter: learned, not measured. A frozen one is, too."""
        return weight_name(weight) not in self.statistics

    def attributes(self, layer: LayerConfig) -> tuple[float, float, float, float]:
        """(kernel size, stride, padding, groups) for the encoding; padding 1 for "same"."""
        return (0.0, 0.0, 0.0, 0.0)


class UnknownLayer(LayerHandler):
    """The handler of layers that no other names: their channels are pinned."""

    is_known = False

    def is_parameter(self, layer: LayerConfig, weight: Any) -> bool:
        """What its layer trains, or would train if it were not frozen as a whole."""
        return bool(weight.trainable) or not layer.config.get("trainable", True)


def consume(
    layer: LayerConfig, tensor: ChannelTensor, axis: int, trace: ChannelTrace, role: str = "in"
) -> Labels | None:
    """Tells that a layer has a weight for each channel of an input along an axis.

    Returns:
        The channels; None, and all of them pinned, where they can't be told apart.
    """
    channels, length = tensor.along(axis), tensor.shape[axis]
    if channels is not None:
        trace.consume(layer.name, channels, role)
    else:
        trace.pin(tensor.labels)
        if length is not None:
            trace.consume(layer.name, np.full(length, PINNED), role)
    return channels


def create(layer: LayerConfig, count: int, trace: ChannelTrace, role: str = "out") -> Labels:
    """The channels that a layer creates: pinned where its activation compares them."""
    channels = trace.source(layer.name, count, role)
    if compares_channels(layer.config.get("activation")):
        trace.pin(channels)
    return channels


def compares_channels(activation: Any) -> bool:
    """Whether an activation function may look at all channels at once, as softmax does.

    One that is not Keras's own may.

    Example:
        >>> [compares_channels(name) for name in (None, "relu", "softmax")]
        [False, False, True]
    """
    if activation is None:
        return False
    return not isinstance(activation, str) or activation in _ACROSS_CHANNELS


def keeps_zero(activation: Any) -> bool:
    """Whether an activation function is known to give zero for zero.

    Example:
        >>> [keeps_zero(name) for name in (None, "relu", "sigmoid")]
        [True, True, False]
    """
    return activation is None or (isinstance(activation, str) and activation in _KEEPING_ZERO)


def elements(shape: Sequence[int | None]) -> int:
    """Number of elements of a tensor; an axis that is not known counts as 1.

    Example:
        >>> elements((None, 4, 4, 2))
        32
    """
    return math.prod(length or 1 for length in shape)


def channel_axis(layer: LayerConfig, rank: int) -> int:
    """The axis of the channels, counted without the batch axis.

    Example:
        >>> channel_axis(LayerConfig("c", "Conv2D", "keras.layers", {}), rank=3)
        2
    """
    return 0 if layer.config.get("data_format") == "channels_first" else rank - 1
