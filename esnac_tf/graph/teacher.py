"""A teacher as the search sees it: its layer sequence, its widths, and what may be changed."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import keras
import numpy as np
import numpy.typing as npt

from esnac_tf.architecture import CHANNEL_GROUPS, Architecture, LayerCall, Shape, TensorReference
from esnac_tf.errors import UserError
from esnac_tf.graph.channels import ChannelGraph, trace_channels
from esnac_tf.graph.parsing import parse
from esnac_tf.graph.protection import fix_widths, protected_layers, terms_of_sums
from esnac_tf.graph.sequence import Node, is_plain_sum, layer_sequence
from esnac_tf.layers import handler_of
from esnac_tf.layers.channels import PINNED, Labels

# Two channel groups that an action makes equally wide, or None where it joins nothing.
Join = tuple[int, int] | None
# Of each group that can shrink, (number of bundles, channels of a tensor in one) by class.
Patterns = dict[int, tuple[tuple[int, int], ...]]
# A tensor's shape of labels, and its `channel_patterns`.
_TensorWidths = tuple[tuple[int, ...], int, Patterns]


@dataclasses.dataclass(frozen=True)
class WidthGroup:
    """Channel groups that the search shrinks by one ratio.

    Attributes:
        name: How an action names it.
        width: F, the teacher's width. A student's width W leaves of each class of n bundles of
            a member max(1, floor(n W / F)).
        members: Indices of its channel groups. By width these are the groups of width F that
            follow no residual block, and all those that follow a block that ends in one of them.
    """

    name: str
    width: int
    members: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class SkipPair:
    """A skip connection that could be added.

    Attributes:
        source: Position of the node whose output is added.
        target: Position of the node to whose input it is added.
        join: The channel groups that it makes equally wide.
    """

    source: int
    target: int
    join: Join


@dataclasses.dataclass(frozen=True)
class TeacherGraph:
    """All that the search knows of a teacher but its weights.

    Attributes:
        architecture: Its graph.
        nodes: Its layer sequence, T nodes.
        channels: Its channel dependencies.
        width_groups: The groups whose widths are searched, G of them.
        removals: For each node that may be removed, the channel groups that its removal makes
            equally wide.
        skip_pairs: The skip connections that may be added, P of them; connections that exist
            are left out.
    """

    architecture: Architecture
    nodes: tuple[Node, ...]
    channels: ChannelGraph
    width_groups: tuple[WidthGroup, ...]
    removals: dict[int, Join]
    skip_pairs: tuple[SkipPair, ...]

    @functools.cached_property
    def position(self) -> dict[str, int]:
        """Position of each node in the sequence by its name."""
        return {node.name: index for index, node in enumerate(self.nodes)}

    @functools.cached_property
    def skip_pair_of(self) -> dict[tuple[str, str], SkipPair]:
        """The skip connections that may be added, by the names of source and target."""
        return {
            (self.nodes[pair.source].name, self.nodes[pair.target].name): pair
            for pair in self.skip_pairs
        }


def analyse(model: keras.Model, channel_groups: str = "width", protect: str = "") -> TeacherGraph:
    """Reads a Keras model as a teacher.

    Args:
        model: A functional or built Sequential model.
        channel_groups: "width": all channel groups of one width share it, as in the paper, but
            for those inside a residual block, which follow the block; "dependency": each group
            of channels that depend on one another has a width of its own.
        protect: A valid regular expression. Layers whose names, or models' names, it finds stay
            as they are: they are not removed, no skip connection begins or ends at them, and all
            channels that they take and make keep their widths. Of a protected sum the layers
            that make its terms are not removed either. Empty: none.

    Returns:
        The teacher's graph.

    Raises:
        UserError: The model is not functional, `channel_groups` is none of the two, or `protect`
            matches no layer or leaves nothing to search.

    Example:
        >>> inputs = keras.Input((4,))
        >>> hidden = keras.layers.Dense(8, name="hidden")(inputs)
        >>> graph = analyse(keras.Model(inputs, keras.layers.Dense(2)(hidden)))
        >>> graph.width_groups
        (WidthGroup(name='8', width=8, members=(0,)),)
    """
    if channel_groups not in CHANNEL_GROUPS:
        raise UserError(
            f"channel_groups must be one of {', '.join(CHANNEL_GROUPS)}, "
            f"received {channel_groups!r}."
        )
    architecture = parse(model)
    nodes = layer_sequence(architecture)
    protected = protected_layers(architecture, protect)
    channels = fix_widths(architecture, trace_channels(architecture), protected)
    width_groups = _width_groups(architecture, channels, channel_groups)
    full_width = {member: group.width for group in width_groups for member in group.members}

    @functools.cache  # There are far more pairs of tensors than tensors.
    def widths_of(tensor: TensorReference) -> _TensorWidths:
        labels = channels.labels[tensor]
        return labels.shape, *channel_patterns(channels, labels)

    def fit(first: TensorReference, second: TensorReference) -> tuple[bool, Join]:
        fits, join = _join(channels, widths_of(first), widths_of(second))
        # Groups that shrink by ratios of different widths may round to different ones.
        return fits and (join is None or full_width[join[0]] == full_width[join[1]]), join

    kept_outputs = terms_of_sums(architecture, protected)
    is_protected = [any(call.layer in protected for call in node.calls) for node in nodes]
    removals = {}
    for index, node in enumerate(nodes):
        if node.is_removable and not is_protected[index] and node.output not in kept_outputs:
            fits, join = fit(node.inputs[0], node.output)
            if fits:
                removals[index] = join
    pairs = []
    for source, target in skip_pairs(nodes):
        if is_protected[source] or is_protected[target]:
            continue
        fits, join = fit(nodes[source].output, nodes[target].inputs[0])
        if fits and source not in nodes[target].predecessors:
            pairs.append(SkipPair(source, target, join))
    if protected and not width_groups and not removals:
        raise UserError(
            f"protect={protect!r} leaves nothing of {architecture.name!r} to be made smaller.\n"
            "Protect fewer layers."
        )
    return TeacherGraph(
        architecture,
        nodes,
        channels,
        width_groups,
        removals,
        tuple(pairs),
    )


def skip_pairs(nodes: Sequence[Node]) -> Iterator[tuple[int, int]]:
    """All pairs i < j of nodes where the output of i has the shape of the input of j.

    Pairs that are connected already are among them, as the paper counts them. Shapes that are
    not wholly known are taken for different. What is no floating point number is not added.
    """
    by_input_shape: dict[tuple[int | None, ...], list[int]] = {}
    for index, node in enumerate(nodes):
        if None not in node.input_shape[1:] and node.takes_floats:
            by_input_shape.setdefault(node.input_shape, []).append(index)
    for source, node in enumerate(nodes):
        for target in by_input_shape.get(node.output_shape, ()):
            if source < target and node.gives_floats:
                yield source, target


def channel_patterns(channels: ChannelGraph, labels: Labels) -> tuple[int, Patterns]:
    """How many channels a tensor has, as a function of how many bundles are kept.

    Returns:
        The number of channels that no action changes, and for each group that can shrink a
        tuple with (number of bundles, channels of this tensor in a bundle) for each class.
        (Classes come in the group's order.)
    """
    counts = Counter(labels.reshape(-1).tolist())
    constant = counts.pop(PINNED, 0)
    patterns = {}
    for index in channels.groups_of(labels):
        group = channels.groups[index]
        if not group.is_shrinkable:
            constant += sum(counts[slot] for slot in group.slots.tolist())
            continue
        constant += sum(counts[slot] for slot in group.fixed.tolist())
        patterns[index] = tuple(
            (len(bundles), sum(counts[slot] for slot in bundles[0].tolist()))
            for bundles in group.bundles
        )
    return constant, patterns


def _join(channels: ChannelGraph, first: _TensorWidths, second: _TensorWidths) -> tuple[bool, Join]:
    """Whether two tensors can always be made equally wide, and which groups that joins."""
    shape, constant, patterns = first
    other_shape, other_constant, other_patterns = second
    if not patterns and not other_patterns:
        return True, None
    if shape != other_shape or constant != other_constant:
        return False, None
    if patterns == other_patterns:
        return True, None
    if len(patterns) != 1 or len(other_patterns) != 1:
        return False, None
    (index, pattern), (other_index, other_pattern) = *patterns.items(), *other_patterns.items()
    same_width = channels.groups[index].width == channels.groups[other_index].width
    if same_width and sorted(pattern) == sorted(other_pattern):
        return True, (index, other_index)
    return False, None


def _width_groups(
    architecture: Architecture, channels: ChannelGraph, channel_groups: str
) -> tuple[WidthGroup, ...]:
    shrinkable = [index for index, group in enumerate(channels.groups) if group.is_shrinkable]
    if channel_groups == "dependency":
        return tuple(
            WidthGroup(channels.groups[index].name, channels.groups[index].width, (index,))
            for index in shrinkable
        )
    leaders = _block_leaders(architecture, channels)
    by_width: dict[int, list[int]] = {}
    for index in shrinkable:
        width = channels.groups[leaders.get(index, index)].width
        by_width.setdefault(width, []).append(index)
    return tuple(
        WidthGroup(str(width), width, tuple(members)) for width, members in sorted(by_width.items())
    )


def _block_leaders(architecture: Architecture, channels: ChannelGraph) -> dict[int, int]:
    """Channel groups inside residual blocks, each with the summed group that it follows.

    A group follows a summed one if all that is made of its channels ends there, and a layer that
    creates it is inside a block that ends there too. It is in no sum itself.
    """
    summed: set[int] = set()
    for call in architecture.calls:
        if is_plain_sum(architecture, call):
            (output,) = architecture.outputs_of(call)
            summed |= channels.groups_of(channels.labels[output])
    feeds: dict[int, set[int]] = {}
    for layer in channels.created.keys() & channels.consumed.keys():
        for group in channels.groups_of(channels.consumed[layer]):
            feeds.setdefault(group, set()).update(channels.groups_of(channels.created[layer]))
    inside = _layers_inside_blocks(architecture, channels)
    leaders = {}
    for layer, slots in channels.created.items():
        for group in channels.groups_of(slots) - summed:
            ends = _ends(group, feeds, summed)
            if len(ends) == 1 and ends <= summed:
                (leader,) = ends
                if layer in inside.get(leader, ()) and channels.groups[leader].is_shrinkable:
                    leaders[group] = leader
    return leaders


def _layers_inside_blocks(
    architecture: Architecture, channels: ChannelGraph
) -> dict[int, set[str]]:
    """For each channel group, the layers inside the blocks that end in it.

    A block ends where a call takes several tensors (a sum, a concatenation) that have a layer
    before them in common: there the block forked. Inside are layers that only some of them passed.
    """
    inside: dict[int, set[str]] = {}
    passed: dict[TensorReference, frozenset[str]] = {}
    for call in architecture.calls:
        ways = [passed[reference] for reference in call.inputs]
        common = ways[0].intersection(*ways) if ways else frozenset()
        for output in architecture.outputs_of(call):
            passed[output] = frozenset([call.layer]).union(*ways)
            if common:
                for group in channels.groups_of(channels.labels[output]):
                    inside.setdefault(group, set()).update(*(way - common for way in ways))
    return inside


def _ends(group: int, feeds: Mapping[int, set[int]], summed: set[int]) -> set[int]:
    """The channel groups in which what is made of a group's channels ends.

    Those are summed, or nothing is made of them. What leads back to the group is no end, such as
    a gate that scales it (squeeze and excitation).

    Args:
        group: Its index.
        feeds: For a group the groups that layers make of it.
        summed: The groups that are in sums.

    Example:
        >>> _ends(0, {0: {1, 2}, 1: {0}, 2: {3}, 3: {4}}, summed={3})
        {3}
    """
    ends: set[int] = set()
    seen = {group}
    remaining = [group]
    while remaining:
        for following in feeds.get(remaining.pop(), set()) - seen:
            seen.add(following)
            if following in summed or following not in feeds:
                ends.add(following)
            else:
                remaining.append(following)
    return ends


def node_widths(graph: TeacherGraph) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(input, output) widths of every node of the teacher, 0 where not known: [T] each."""
    return (
        np.array([node.input_shape[-1] or 0 for node in graph.nodes]),
        np.array([node.output_shape[-1] or 0 for node in graph.nodes]),
    )


def nodes_of(graph: TeacherGraph, name: str) -> list[Node]:
    """The nodes of the layer sequence that a layer has a part in."""
    return [node for node in graph.nodes if any(call.layer == name for call in node.calls)]


def why_no_node(graph: TeacherGraph, name: str) -> str | None:
    """Why a layer is no node of the layer sequence; None if it is one."""
    if nodes_of(graph, name):
        return None
    call = _calls_of(graph, name)[0]
    if not call.inputs:
        return f"{name!r} is an input of the model"
    if is_plain_sum(graph.architecture, call):
        return f"{name!r} is a sum; name layers before or after it"
    return f"{name!r} prepares the model's input"


def why_not_removable(graph: TeacherGraph, name: str) -> str:
    """Why a layer can't be removed, in a few words that speak of it as "it"."""
    no_node = why_no_node(graph, name)
    if no_node:
        return no_node
    node, *others = nodes_of(graph, name)
    layer = graph.architecture.layers[name]
    if len(_calls_of(graph, name)) > 1 or others:
        return f"it is called {len(_calls_of(graph, name))} times"
    if node.name != name:
        return f"it is part of what {node.name!r} begins; remove that"
    is_known = handler_of(layer).is_known
    if not is_known and layer.is_operation:
        return f"nodes of the class {layer.class_name} are kept as they are"
    if node.output in graph.architecture.output_references:
        return "it gives an output of the model"
    if is_known and len(node.inputs) > 1:
        return f"it takes {len(node.inputs)} inputs"
    if node.input_shape != node.output_shape:
        return f"it takes {shape_text(node.input_shape)} and gives {shape_text(node.output_shape)}"
    if None in node.input_shape[1:]:
        return f"the shape {shape_text(node.input_shape)} that it takes is not wholly known"
    if not (node.takes_floats and node.gives_floats):
        return "it takes or gives whole numbers or texts"
    if not node.is_removable:
        return "it has several outputs, or layers make for it alone what else it takes"
    return "what it gives can get narrower, and what it takes not in the same way, or conversely"


def _calls_of(graph: TeacherGraph, name: str) -> list[LayerCall]:
    """All calls of a layer."""
    return [call for call in graph.architecture.calls if call.layer == name]


def shape_text(shape: Shape) -> str:
    """A shape without the batch axis.

    Example:
        >>> shape_text((None, 8, None, 3))
        '[8, None, 3]'
    """
    return str(list(shape[1:]))
