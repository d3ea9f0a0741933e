"""One call of a layer, as its handler sees it: tensors with their shapes and channels."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from esnac_tf.architecture import Constant, LayerConfig, Shape, leaves
from esnac_tf.layers.channels import ChannelTensor, ChannelTrace, Labels, unlabelled

# The labels of a layer's output, or of all its outputs.
OutputLabels = Labels | tuple[Labels, ...]


@dataclasses.dataclass(frozen=True)
class TensorCall:
    """A call of a layer or of a `keras.ops` node.

    Attributes:
        layer: The layer, with the teacher's configuration.
        args: Its positional arguments, nested; tensors are `ChannelTensor`s.
        kwargs: Its keyword arguments, likewise.
        output_shapes: The shape of each output that is used, by its number, without the batch
            axis.
    """

    layer: LayerConfig
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    output_shapes: Mapping[int, Shape]

    @property
    def inputs(self) -> tuple[ChannelTensor, ...]:
        """All tensors that the call takes, in order."""
        return tuple(leaves(ChannelTensor, (self.args, self.kwargs)))

    @property
    def constants(self) -> tuple[Constant, ...]:
        """All arrays that the call takes, in order."""
        return tuple(leaves(Constant, (self.args, self.kwargs)))

    @property
    def output_shape(self) -> Shape:
        """The shape of the output; of several, that of the first that is used."""
        return self.output_shapes[min(self.output_shapes)]

    def argument(self, position: int, name: str) -> Any:
        """What an argument was given, positional or by its name; None where it was not.

        Example:
            >>> layer = LayerConfig("x", "Add", "keras.ops", {})
            >>> TensorCall(layer, (1,), {"axis": 2}, {0: ()}).argument(1, "axis")
            2
        """
        return self.args[position] if position < len(self.args) else self.kwargs.get(name)


def as_tensor(value: ChannelTensor | Constant) -> ChannelTensor:
    """An argument as a tensor: of an array, which has a batch axis, no channel can be removed.

    Example:
        >>> import numpy as np
        >>> as_tensor(Constant(np.zeros((1, 5, 8)))).shape
        (5, 8)
    """
    if isinstance(value, ChannelTensor):
        return value
    shape = value.values.shape[1:]
    return ChannelTensor(shape, unlabelled(shape))


def pinned(call: TensorCall, trace: ChannelTrace) -> tuple[Labels, ...]:
    """Pins the channels of all that a call takes; of what it gives, none can be removed."""
    for tensor in call.inputs:
        trace.pin(tensor.labels)
    count = max(call.output_shapes) + 1
    return tuple(unlabelled(call.output_shapes.get(number, ())) for number in range(count))
