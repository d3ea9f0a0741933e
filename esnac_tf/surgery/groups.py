"""Which channels of a model have to go together, and which can't go at all."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import keras

from esnac_tf.architecture import Architecture, LayerCall
from esnac_tf.graph.channels import ChannelGraph, tensor_call
from esnac_tf.graph.teacher import analyse
from esnac_tf.layers import handler_of
from esnac_tf.layers.channels import PINNED, ChannelTensor, Labels, channel_axes
from esnac_tf.layers.handler import compares_channels


@dataclasses.dataclass(frozen=True)
class ChannelGroup:
    """Channels with one width: it changes in all layers of the group or in none.

    Attributes:
        name: Name of the first layer that makes channels of the group; with "/" and their kind
            where it makes several, as a Bidirectional does.
        width: Its number of channels; those that are summed element by element count once.
        made_by: The layers that make its channels, such as convolutions and dense layers.
        layers: These, and all layers whose outputs hold channels of it.
        taken_by: The layers that take its channels and make others of them.
        why_fixed: Why its width can't change, in a few words; None if it can.
    """

    name: str
    width: int
    made_by: tuple[str, ...]
    layers: tuple[str, ...]
    taken_by: tuple[str, ...]
    why_fixed: str | None

    @property
    def can_shrink(self) -> bool:
        """Whether any channel of the group can be removed."""
        return self.why_fixed is None


def channel_groups(model: keras.Model) -> list[ChannelGroup]:
    """The channel groups of a model: those whose widths can be set, and those whose can't.

    Args:
        model: A functional or built Sequential model.

    Returns:
        The groups, in the order in which their first layers run.

    Raises:
        UserError: The model has no graph.

    Example:
        >>> inputs = keras.Input((4,))
        >>> first = keras.layers.Dense(8, name="first")(inputs)
        >>> hidden = keras.layers.Add(name="sum")([first, keras.layers.Dense(8, name="b")(first)])
        >>> groups = channel_groups(keras.Model(inputs, keras.layers.Dense(2, name="top")(hidden)))
        >>> groups[0].made_by, groups[0].layers, groups[0].taken_by
        (('first', 'b'), ('first', 'b', 'sum'), ('b', 'top'))
        >>> [(group.name, group.width, group.why_fixed) for group in groups]
        [('first', 8, None), ('top', 2, 'they are an output of the model')]
    """
    graph = analyse(model, "dependency")
    architecture, channels = graph.architecture, graph.channels
    tensors = {
        reference: channels.groups_of(labels) for reference, labels in channels.labels.items()
    }
    made_by: dict[int, dict[str, None]] = {}  # dicts, as they keep the order and no name twice
    layers: dict[int, dict[str, None]] = {}
    taken_by: dict[int, dict[str, None]] = {}
    for call in architecture.calls:
        made = channels.created_roles.get(call.layer, {}).values()
        makes = _union(map(channels.groups_of, made))  # heads of attention are in no output
        holds = _union(tensors[reference] for reference in architecture.outputs_of(call))
        for index in makes:
            made_by.setdefault(index, {})[call.layer] = None
        for index in makes | holds:
            layers.setdefault(index, {})[call.layer] = None
        for index in _union(tensors[reference] for reference in call.inputs):
            if makes or index not in holds:
                taken_by.setdefault(index, {})[call.layer] = None
    reasons = fixed_groups(architecture, channels)
    return [
        ChannelGroup(
            group.name,
            group.width,
            tuple(made_by.get(index, ())),
            tuple(layers.get(index, ())),
            tuple(taken_by.get(index, ())),
            reasons.get(index),
        )
        for index, group in enumerate(channels.groups)
    ]


def fixed_groups(architecture: Architecture, channels: ChannelGraph) -> dict[int, str]:
    """Why the channel groups that can't shrink can't, in a few words each.

    Args:
        architecture: The model's.
        channels: Its channel dependencies.

    Returns:
        A reason for the index of each such group; it speaks of the group's channels as "they".
    """
    fixed = {index for index, group in enumerate(channels.groups) if not group.is_shrinkable}
    reasons: dict[int, str] = {}
    for reference in architecture.output_references:
        for index in channels.groups_of(channels.labels[reference]) & fixed:
            reasons[index] = "they are an output of the model"
    for call in architecture.calls:
        touched = [channels.labels[reference] for reference in call.inputs]
        touched += channels.created_roles.get(call.layer, {}).values()
        if call.inputs and _union(map(channels.groups_of, touched)) & fixed:
            for index, reason in _reasons_at(architecture, channels, call).items():
                reasons.setdefault(index, reason)
    for index in fixed:
        group = channels.groups[index]
        if group.width == 1:
            reasons.setdefault(index, "there is one only")
        elif group.bundles:
            reasons.setdefault(index, "they can only go all at once")
        reasons.setdefault(index, "a layer needs all of them")
    return {index: reasons[index] for index in sorted(fixed)}


def _reasons_at(
    architecture: Architecture, channels: ChannelGraph, call: LayerCall
) -> dict[int, str]:
    """The groups that the layer of a call fixes, each with the reason."""
    tensors = {
        reference: ChannelTensor(
            architecture.shapes[reference][1:],
            channels.labels[reference],
            channel_axes(channels.labels[reference]),
        )
        for reference in call.inputs
    }
    with_tensors = tensor_call(architecture, call, tensors)
    layer = with_tensors.layer
    trace = _FixingTrace(channels)
    handler_of(layer).propagate(with_tensors, trace)
    joined = f"{call.layer!r} joins them with others that can't go"
    reason = f"{call.layer!r} ({layer.class_name}) needs all of them"
    if compares_channels(layer.config.get("activation")):
        reason = f"the activation of {call.layer!r} compares them"
    elif len(tensors) > 1 and any((tensor.labels == PINNED).any() for tensor in tensors.values()):
        reason = joined
    return {**dict.fromkeys(trace.joined, joined), **dict.fromkeys(trace.pinned, reason)}


class _FixingTrace:
    """Learns which groups a layer fixes, by itself or by joining them with fixed channels."""

    def __init__(self, channels: ChannelGraph) -> None:
        self._channels = channels
        self.pinned: frozenset[int] = frozenset()
        self.joined: frozenset[int] = frozenset()

    def source(self, layer: str, length: int, role: str = "out") -> Labels:
        return self._channels.created_roles[layer][role]

    def consume(self, layer: str, channels: Labels, role: str = "in") -> None:
        pass

    def pin(self, channels: Labels) -> None:
        self.pinned |= self._channels.groups_of(channels)

    def tie(self, first: Labels, second: Labels) -> None:
        if (first == PINNED).any() or (second == PINNED).any():
            self.joined |= self._channels.groups_of(first) | self._channels.groups_of(second)

    def balance(self, rows: Labels) -> None:
        if (rows == PINNED).any():
            self.joined |= self._channels.groups_of(rows)


def _union(sets: Iterable[frozenset[int]]) -> frozenset[int]:
    return frozenset().union(*sets)
