"""What no student changes: layers that are protected, and channels that can't go, with the reasons.

Of a protected layer the configuration and the shapes of its weights stay.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable

from esnac_tf.architecture import Architecture, LayerCall, TensorReference
from esnac_tf.errors import UserError
from esnac_tf.graph.channels import ChannelGraph, tensor_call
from esnac_tf.graph.sequence import is_plain_sum
from esnac_tf.layers import handler_of
from esnac_tf.layers.channels import PINNED, ChannelTensor, Labels, channel_axes
from esnac_tf.layers.handler import compares_channels

# So many names of layers are told where none matches.
_TOLD_NAMES = 8
# Why the channels of an output are kept.
OUTPUT_REASON = "they are an output of the model"


def protected_layers(architecture: Architecture, pattern: str) -> frozenset[str]:
    """The layers whose names, or models' names, a regular expression finds, as `re.search` does.

    Args:
        architecture: The teacher's.
        pattern: A valid regular expression; an empty one protects nothing.

    Raises:
        UserError: It matches no layer.

    Example:
        >>> import keras
        >>> from esnac_tf.graph.parsing import parse
        >>> inputs = keras.Input((4,), name="x")
        >>> model = keras.Model(inputs, keras.layers.Dense(2, name="top")(inputs))
        >>> sorted(protected_layers(parse(model), "^to"))
        ['top']
    """
    if not pattern:
        return frozenset()
    found = frozenset(
        name
        for name, layer in architecture.layers.items()
        if any(re.search(pattern, own) for own in (name, *layer.models))
    )
    if not found:
        names = list(architecture.layers)
        more = ", ..." if len(names) > _TOLD_NAMES else ""
        raise UserError(
            f"protect={pattern!r} matches no layer of {architecture.name!r}.\n"
            f"Its layers are {', '.join(names[:_TOLD_NAMES])}{more}."
        )
    return found


def fix_widths(
    architecture: Architecture, channels: ChannelGraph, protected: frozenset[str]
) -> ChannelGraph:
    """The channel dependencies where what goes into protected layers and comes out is kept.

    Args:
        architecture: The teacher's.
        channels: Its channel dependencies.
        protected: Names of layers.
    """
    fixed: set[int] = set()
    for call in architecture.calls:
        if call.layer in protected:
            for reference in (*call.inputs, *architecture.outputs_of(call)):
                fixed |= channels.groups_of(channels.labels[reference])
    groups = [
        dataclasses.replace(group, bundles=(), fixed=group.slots) if index in fixed else group
        for index, group in enumerate(channels.groups)
    ]
    return dataclasses.replace(channels, groups=tuple(groups))


def terms_of_sums(
    architecture: Architecture, protected: frozenset[str]
) -> frozenset[TensorReference]:
    """The tensors that protected sums add up, and of sums among them the terms, too.

    A sum would go if all of its terms became one tensor, so the layers that make these stay.
    """
    terms: set[TensorReference] = set()
    for call in reversed(architecture.calls):
        outputs = architecture.outputs_of(call)
        is_kept = call.layer in protected or terms.intersection(outputs)
        if is_kept and is_plain_sum(architecture, call):
            terms.update(call.inputs)
    return frozenset(terms)


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
            reasons[index] = OUTPUT_REASON
    for call in architecture.calls:
        touched = [channels.labels[reference] for reference in call.inputs]
        touched += channels.created_roles.get(call.layer, {}).values()
        if call.inputs and union(map(channels.groups_of, touched)) & fixed:
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
            reference in channels.vanishing,
        )
        for reference in call.inputs
    }
    with_tensors = tensor_call(architecture, call, tensors)
    layer, handler = with_tensors.layer, handler_of(with_tensors.layer)
    trace = _FixingTrace(channels)
    handler.propagate(with_tensors, trace)
    joined = f"{call.layer!r} joins them with others that can't go"
    reason = f"{call.layer!r} ({layer.class_name}) needs all of them"
    has_fixed = any((tensor.labels == PINNED).any() for tensor in tensors.values())
    if handler.is_known and len(tensors) > 1 and has_fixed:
        reason = joined
    compared: frozenset[int] = frozenset()
    if compares_channels(layer.config.get("activation")):  # of what it makes, else of its input
        made = channels.created_roles.get(call.layer, {}).values()
        compared = trace.pinned & (union(map(channels.groups_of, made)) or trace.pinned)
    return {
        **dict.fromkeys(trace.joined, joined),
        **dict.fromkeys(trace.pinned, reason),
        **dict.fromkeys(compared, f"the activation of {call.layer!r} compares them"),
    }


class _FixingTrace:
    """Learns which groups a layer fixes, by itself or by joining them with fixed channels."""

    def __init__(self, channels: ChannelGraph) -> None:
        self._channels = channels
        self.pinned: frozenset[int] = frozenset()
        self.joined: frozenset[int] = frozenset()

    def source(self, layer: str, length: int, role: str = "out") -> Labels:
        return self._channels.created_roles[layer][role]

    def consume(self, layer: str, channels: Labels, role: str = "in") -> None:
        self.tie(self._channels.consumed_roles[layer][role], channels)  # those of its first call

    def pin(self, channels: Labels) -> None:
        self.pinned |= self._channels.groups_of(channels)

    def tie(self, first: Labels, second: Labels) -> None:
        first, second = first.reshape(-1), second.reshape(-1)
        met = (first == PINNED) | (second == PINNED)  # others of both may go all the same
        self.joined |= self._channels.groups_of(first[met])
        self.joined |= self._channels.groups_of(second[met])

    def balance(self, rows: Labels) -> None:
        if (rows == PINNED).any():
            self.joined |= self._channels.groups_of(rows)


def union(sets: Iterable[frozenset[int]]) -> frozenset[int]:
    """All that is in any of some sets."""
    return frozenset().union(*sets)
