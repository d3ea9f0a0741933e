"""Channel dependencies of a graph: which channels can only go together.

Labels (see `esnac_tf.layers.channels`) are passed through the teacher once. What the layers
tell on the way is solved into:

- **slots**: channels that meet elementwise (in a sum, say) are one slot, kept or removed as one;
- **groups**: slots that one layer creates, or that must be balanced with one another, form a
  group with one width;
- **bundles**: the smallest sets of slots of a group that can go without unbalancing anything.
  Mostly a bundle is one slot; around grouped convolutions and channel shuffles it is one slot
  for each block.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from esnac_tf.architecture import Architecture, LayerCall, TensorReference
from esnac_tf.graph.bundles import partition_into_bundles
from esnac_tf.layers import handler_of
from esnac_tf.layers.calls import TensorCall
from esnac_tf.layers.channels import (
    PINNED,
    ChannelTensor,
    ChannelTrace,
    Labels,
    channel_axes,
)

IntArray = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class ChannelGroup:
    """Channels that share one width.

    Attributes:
        name: Name of the first layer that creates channels of the group; with "/" and the role
            that they have in it, unless it is "out".
        width: F, the teacher's number of slots.
        slots: The slots, [F].
        bundles: Classes of bundles, each an array [number of bundles, slots in a bundle].
        fixed: Slots that are always kept.
    """

    name: str
    width: int
    slots: IntArray
    bundles: tuple[IntArray, ...]
    fixed: IntArray

    @property
    def is_shrinkable(self) -> bool:
        """Whether any channel of the group can go."""
        return any(len(bundles) > 1 for bundles in self.bundles)


@dataclasses.dataclass(frozen=True)
class ChannelGraph:
    """The channel dependencies of an architecture.

    Attributes:
        labels: Slot numbers of every tensor's channels (`PINNED` for those in no group).
        vanishing: The tensors whose channels are zero where the weights that create them are.
        created_roles: For each layer that creates channels, their slots by their role.
        consumed_roles: For each layer that has weights for its inputs' channels, likewise.
        groups: All groups, those that can't shrink included.
        group_of_slot: Index of each slot's group, [slots].
    """

    labels: Mapping[TensorReference, Labels]
    vanishing: frozenset[TensorReference]
    created_roles: Mapping[str, Mapping[str, Labels]]
    consumed_roles: Mapping[str, Mapping[str, Labels]]
    groups: tuple[ChannelGroup, ...]
    group_of_slot: IntArray

    @functools.cached_property
    def roles(self) -> dict[str, dict[str, Labels]]:
        """For each layer the slots of all its roles, those that it takes and that it creates."""
        created, consumed = self.created_roles, self.consumed_roles
        return {
            layer: {**consumed.get(layer, {}), **created.get(layer, {})}
            for layer in created.keys() | consumed.keys()
        }

    @functools.cached_property
    def created(self) -> dict[str, Labels]:
        """For each layer that creates channels of its output, their slots."""
        return {
            layer: roles["out"] for layer, roles in self.created_roles.items() if "out" in roles
        }

    @functools.cached_property
    def consumed(self) -> dict[str, Labels]:
        """For each layer that has weights for its inputs' channels, the slots of all of them."""
        return {
            layer: np.concatenate(list(roles.values()))
            for layer, roles in self.consumed_roles.items()
        }

    def groups_of(self, labels: Labels) -> frozenset[int]:
        """Indices of the groups that a tensor's channels belong to."""
        slots = np.unique(labels)
        return frozenset(self.group_of_slot[slots[slots != PINNED]].tolist())


def trace_channels(architecture: Architecture) -> ChannelGraph:
    """Learns the channel dependencies of an architecture.

    Layers without a handler pin the channels of all tensors that they touch. The channels of
    the network's outputs are pinned, those of its inputs never enter a group.
    """
    trace = _TeacherTrace()
    tensors = propagate(architecture, trace)
    for reference in architecture.output_references:
        trace.pin(tensors[reference].labels)
    return _solve(trace, tensors)


def propagate(
    architecture: Architecture,
    trace: ChannelTrace,
    teacher_labels: Mapping[TensorReference, Labels] | None = None,
) -> dict[TensorReference, ChannelTensor]:
    """Passes labels through all calls of an architecture.

    Args:
        architecture: The teacher's, or a student's with the shapes that its layers should give.
        trace: Is told what the layers do to channels.
        teacher_labels: For a student, the teacher's labels: they say along which axes of a
            tensor channels lie, so which lengths follow from the labels.

    Returns:
        Every tensor with its shape and its labels.
    """
    tensors: dict[TensorReference, ChannelTensor] = {}
    for call in architecture.calls:
        with_tensors = tensor_call(architecture, call, tensors)
        handler = handler_of(with_tensors.layer)
        given, vanishes = handler.propagate(with_tensors, trace), handler.vanishes(with_tensors)
        for reference in architecture.outputs_of(call):
            shape = with_tensors.output_shapes[reference.output]
            labels = given[reference.output] if isinstance(given, tuple) else given
            axes = channel_axes(labels)
            if teacher_labels is not None:
                if reference in teacher_labels:
                    axes = channel_axes(teacher_labels[reference])
                    for axis in axes:  # a last channel may lie there several times
                        if labels.shape[axis] == 1:
                            labels = labels.repeat(shape[axis] or 1, axis)
                else:  # a sum that was added
                    axes = with_tensors.inputs[0].channel_axes
                shape = tuple(
                    labels.shape[axis] if axis in axes else length
                    for axis, length in enumerate(shape)
                )
            # Of what has no channels, none is zero where those that it meets are.
            vanishing = vanishes and labels.size > 1
            tensors[reference] = ChannelTensor(shape, labels, axes, vanishing)
    return tensors


def tensor_call(
    architecture: Architecture,
    call: LayerCall,
    tensors: Mapping[TensorReference, ChannelTensor],
) -> TensorCall:
    """A call as the handler of its layer sees it, given all tensors that it takes."""
    resolved = call.map_references(tensors.__getitem__)
    shapes = {
        reference.output: tuple(architecture.shapes[reference][1:])
        for reference in architecture.outputs_of(call)
    }
    return TensorCall(architecture.layer_of(call), resolved.args, resolved.kwargs, shapes)


class _TeacherTrace:
    """Learns channel dependencies: the first of the two traces."""

    def __init__(self) -> None:
        self.num_channels = 0
        self.created: dict[tuple[str, str], Labels] = {}
        self.consumed: dict[tuple[str, str], Labels] = {}
        self.ties: list[tuple[Labels, Labels]] = []
        self.pinned: list[Labels] = []
        self.balanced: list[Labels] = []

    def source(self, layer: str, length: int, role: str = "out") -> Labels:
        if (layer, role) not in self.created:
            created = np.arange(self.num_channels, self.num_channels + length)
            self.created[layer, role] = created
            self.num_channels += length
        return self.created[layer, role]

    def consume(self, layer: str, channels: Labels, role: str = "in") -> None:
        if (layer, role) in self.consumed:  # a layer called twice has one set of weights
            self.tie(self.consumed[layer, role], channels)
        self.consumed.setdefault((layer, role), channels)

    def tie(self, first: Labels, second: Labels) -> None:
        self.ties.append((first.reshape(-1), second.reshape(-1)))

    def pin(self, channels: Labels) -> None:
        self.pinned.append(channels.reshape(-1))

    def balance(self, rows: Labels) -> None:
        self.balanced.append(rows)


def _solve(trace: _TeacherTrace, tensors: Mapping[TensorReference, ChannelTensor]) -> ChannelGraph:
    """Slots from ties, groups from common layers and balances, bundles from balances."""
    # The anonymous pinned channel takes part in ties as the last number.
    anonymous = trace.num_channels
    named = [(_named(a, anonymous), _named(b, anonymous)) for a, b in trace.ties]
    slot_of_channel = _components(anonymous + 1, named)
    num_slots = int(slot_of_channel.max(initial=-1)) + 1
    pinned_slots = np.zeros(num_slots, bool)
    pinned_slots[slot_of_channel[anonymous]] = True
    for channels in trace.pinned:
        pinned_slots[slot_of_channel[_named(channels, anonymous)]] = True

    def to_slots(channels: Labels) -> Labels:
        return np.where(channels == PINNED, PINNED, slot_of_channel[channels])

    created = {key: to_slots(channels) for key, channels in trace.created.items()}
    balanced = [slot_of_channel[_named(rows, anonymous)] for rows in trace.balanced]
    families = [*created.values(), *(rows.reshape(-1) for rows in balanced)]
    links = [(family[:-1], family[1:]) for family in families if len(family)]
    group_of_slot = _components(num_slots, links)

    groups: list[ChannelGroup] = []
    order: dict[int, int] = {}
    for (layer, role), slots in created.items():
        number = int(group_of_slot[slots[0]])
        if number in order:
            continue
        order[number] = len(groups)
        members = np.flatnonzero(group_of_slot == number)
        name = layer if role == "out" else f"{layer}/{role}"
        groups.append(_group(name, members, list(created.values()), balanced, pinned_slots))
    numbers = np.array([order.get(int(number), -1) for number in group_of_slot], np.int64)
    return ChannelGraph(
        labels={reference: to_slots(tensor.labels) for reference, tensor in tensors.items()},
        vanishing=frozenset(key for key, tensor in tensors.items() if tensor.vanishes),
        created_roles=_by_layer(created),
        consumed_roles=_by_layer({key: to_slots(value) for key, value in trace.consumed.items()}),
        groups=tuple(groups),
        group_of_slot=numbers,
    )


def _group(
    name: str,
    slots: IntArray,
    created: Sequence[Labels],
    balanced: Sequence[Labels],
    pinned: npt.NDArray[np.bool_],
) -> ChannelGroup:
    """One group with its bundles; a group with a pinned slot keeps all."""
    if pinned[slots].any():
        return ChannelGroup(name, len(slots), slots, (), slots)
    sources = [source for source in created if source[0] in slots]
    constraints = [rows for rows in balanced if rows.flat[0] in slots]
    bundles, fixed = partition_into_bundles(slots, sources, constraints)
    return ChannelGroup(name, len(slots), slots, bundles, fixed)


def _by_layer(values: Mapping[tuple[str, str], Labels]) -> dict[str, dict[str, Labels]]:
    """What is known by layer and role, by layer and then by role."""
    layers: dict[str, dict[str, Labels]] = {}
    for (layer, role), labels in values.items():
        layers.setdefault(layer, {})[role] = labels
    return layers


def _named(channels: Labels, anonymous: int) -> Labels:
    return np.where(channels == PINNED, anonymous, channels)


def _components(count: int, links: Sequence[tuple[IntArray, IntArray]]) -> IntArray:
    """Connected components of `count` things, numbered in the order of their first member.

    Example:
        >>> _components(4, [(np.array([0]), np.array([2]))])
        array([0, 1, 0, 2])
    """
    smallest = np.arange(count)
    if links:
        first = np.concatenate([a for a, _ in links])
        second = np.concatenate([b for _, b in links])
        while True:
            before = smallest.copy()
            least = np.minimum(smallest[first], smallest[second])
            np.minimum.at(smallest, first, least)
            np.minimum.at(smallest, second, least)
            smallest = smallest[smallest]
            if np.array_equal(before, smallest):
                break
    return np.unique(smallest, return_inverse=True)[1].reshape(-1)
