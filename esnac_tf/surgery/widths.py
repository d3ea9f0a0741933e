"""Fewer channels: a width that is set, or channels that are chosen one by one."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from esnac_tf.architecture import ActionSet
from esnac_tf.errors import UserError
from esnac_tf.graph.bundles import num_kept_bundles
from esnac_tf.graph.channels import ChannelGroup
from esnac_tf.graph.protection import fixed_groups
from esnac_tf.graph.surgery import resize, rewire
from esnac_tf.graph.teacher import TeacherGraph, analyse, channel_patterns
from esnac_tf.layers.channels import Labels
from esnac_tf.student import StudentBuilder
from esnac_tf.surgery.editing import build
from esnac_tf.surgery.places import layer_name

IntArray = npt.NDArray[np.int64]

# So many widths are listed where a width can't be had; of more, the nearest are told.
_LISTED_WIDTHS = 12


def set_width(
    model: keras.Model,
    layer: str | keras.layers.Layer,
    width: int,
    channel_importance: str = "l2",
) -> keras.Model:
    """Gives a layer fewer filters or units; what depends on its width follows.

    The layer's whole channel group (`channel_groups`) shrinks in proportion: layers whose
    outputs are summed with its output, normalizations and depthwise convolutions behind it, and
    the weights of all layers that take its channels.

    Args:
        model: A functional or built Sequential model.
        layer: A layer that makes channels (a convolution, a dense layer), or its name; where it
            makes several kinds, the name of one as `channel_groups` has it.
        width: How many it has afterwards, 1 to those that it has now. Where channels go in
            bundles, as around grouped convolutions, not every width is possible.
        channel_importance: "l1" or "l2": the channels with the largest norms are kept; "first":
            the first ones.

    Returns:
        The narrower model.

    Raises:
        UserError: There is no such layer, or it can't have this width.

    Example:
        >>> inputs = keras.Input((4,))
        >>> hidden = keras.layers.Dense(8, name="hidden")(inputs)
        >>> model = keras.Model(inputs, keras.layers.Dense(2, name="top")(hidden))
        >>> narrower = set_width(model, "hidden", 3)
        >>> narrower.get_layer("hidden").units, tuple(narrower.get_layer("top").kernel.shape)
        (3, (3, 2))
    """
    graph = analyse(model, "dependency")
    name, created = _made_channels(model, graph, layer)
    group = _group_of(graph, name, created)
    try:
        wanted = operator.index(width)
    except TypeError as error:
        raise UserError(
            f"The width of {name!r} must be a whole number, received {width!r}.\n"
            "Give the number of filters or units that are left."
        ) from error
    possible = _possible_widths(graph, created, group)
    if wanted not in possible:
        raise UserError(
            f"The width of {name!r} can't be {wanted}.\n{_told(sorted(possible), wanted)}"
        )
    builder = StudentBuilder(model, graph, channel_importance)
    return build(builder, model, ActionSet.of(widths={group.name: possible[wanted]}))


def remove_channels(
    model: keras.Model, layer: str | keras.layers.Layer, indices: Iterable[int]
) -> keras.Model:
    """Removes chosen output channels of a layer, with all that is tied to them.

    Channels of other layers that are summed with them go, too, and around grouped convolutions
    one of each block. Of this layer no other channel goes.

    Args:
        model: A functional or built Sequential model.
        layer: A layer that makes channels (a convolution, a dense layer), or its name; where it
            makes several kinds, the name of one as `channel_groups` has it.
        indices: Which of its filters or units go, from 0.

    Returns:
        The narrower model.

    Raises:
        UserError: There is no such layer or channel, these channels can't go alone, or none of
            the layer's would be left.

    Example:
        >>> inputs = keras.Input((4,))
        >>> hidden = keras.layers.Dense(3, name="hidden")(inputs)
        >>> model = keras.Model(inputs, keras.layers.Dense(2)(hidden))
        >>> smaller = remove_channels(model, "hidden", [0, 2])
        >>> kernel = model.get_layer("hidden").kernel
        >>> np.array_equal(smaller.get_layer("hidden").kernel, kernel[:, 1:2])
        True
    """
    graph = analyse(model, "dependency")
    name, created = _made_channels(model, graph, layer)
    group = _group_of(graph, name, created)
    chosen = _checked_indices(name, indices, len(created))
    dropped = _dropped_slots(name, created, group, chosen)
    _check_blocks(graph, name, dropped)
    return build(_ChosenChannels(model, graph, dropped), model, ActionSet())


class _ChosenChannels(StudentBuilder):
    """Builds the student that lacks given channels."""

    def __init__(self, model: keras.Model, graph: TeacherGraph, dropped: IntArray) -> None:
        super().__init__(model, graph)
        self._dropped = dropped

    def kept_slots(self, actions: ActionSet) -> npt.NDArray[np.bool_]:
        kept = super().kept_slots(actions)
        kept[self._dropped] = False
        return kept


def _made_channels(
    model: keras.Model, graph: TeacherGraph, layer: str | keras.layers.Layer
) -> tuple[str, Labels]:
    """A layer's name and the slots of the channels that it makes.

    Of a layer that makes several kinds, "layer/kind" names one of them, as groups are named.

    Raises:
        UserError: There is no such layer, or it makes none.
    """
    given, _, kind = layer.partition("/") if isinstance(layer, str) else (layer, "", "")
    name = layer_name(model, given)
    roles = graph.channels.created_roles.get(name, {})
    if (kind or "out") in roles:
        return f"{name}/{kind}" if kind else name, roles[kind or "out"]
    if roles:
        known = ", ".join(repr(name if role == "out" else f"{name}/{role}") for role in roles)
        raise UserError(
            f"The layer {name!r} makes no channels {f'of the kind {kind!r}' if kind else 'at once'}"
            f".\nGive one of: {known}."
        )
    raise UserError(f"The layer {name!r} {_no_maker(graph, name)}")


def _group_of(graph: TeacherGraph, name: str, created: Labels) -> ChannelGroup:
    """The channel group of the channels that a layer makes.

    Raises:
        UserError: They can't be fewer.
    """
    (index,) = graph.channels.groups_of(created)
    group = graph.channels.groups[index]
    if not group.is_shrinkable:
        reason = fixed_groups(graph.architecture, graph.channels)[index]
        others = "" if group.name == name else f" (with those of {group.name!r})"
        raise UserError(
            f"The channels of {name!r}{others} can't be fewer: {reason}.\n"
            "esnac_tf.surgery.channel_groups(model) tells which can."
        )
    return group


def _no_maker(graph: TeacherGraph, name: str) -> str:
    """The rest of a sentence: why a layer's width can't be set, and which can."""
    architecture, channels = graph.architecture, graph.channels
    calls = [call for call in architecture.calls if call.layer == name]
    labels = [channels.labels[reference] for reference in architecture.outputs_of(calls[0])]
    found = frozenset().union(*map(channels.groups_of, labels))
    if not found:
        return (
            "makes no channels that can be told apart.\n"
            "esnac_tf.surgery.channel_groups(model) tells which layers do (made_by)."
        )
    makers = sorted(
        maker
        for maker, roles in channels.created_roles.items()
        if any(channels.groups_of(created) & found for created in roles.values())
    )
    return f"makes no channels of its own: it passes others on.\nThey are made by {_first(makers)}."


def _possible_widths(graph: TeacherGraph, created: Labels, group: ChannelGroup) -> dict[int, int]:
    """Widths that a layer can have, each with the largest width of its group that gives it."""
    constant, patterns = channel_patterns(graph.channels, created)
    (pattern,) = patterns.values()
    group_widths = np.arange(1, group.width + 1)
    made = np.full(group.width, constant)
    for number, channels in pattern:
        made += num_kept_bundles(number, group_widths, group.width) * channels
    return dict(zip(made.tolist(), group_widths.tolist(), strict=True))


def _told(possible: list[int], wanted: int) -> str:
    """Which widths can be had, the nearest ones of many."""
    if possible == list(range(1, possible[-1] + 1)):
        return f"It can be 1 to {possible[-1]}."
    if len(possible) <= _LISTED_WIDTHS:
        return f"Its channels go in bundles; it can be {', '.join(map(str, possible))}."
    below = [width for width in possible if width < wanted][-1:]
    above = [width for width in possible if width > wanted][:1]
    nearest = " and ".join(map(str, below + above))
    return (
        f"Its channels go in bundles, so it can have {len(possible)} widths from {possible[0]} to "
        f"{possible[-1]}; the nearest are {nearest}."
    )


def _checked_indices(name: str, indices: Any, width: int) -> IntArray:
    """Channel numbers, each once.

    Raises:
        UserError: They are none, or the layer has no such channel.
    """
    chosen = np.unique(list(indices) if isinstance(indices, Iterable) else [None])
    if chosen.size and not np.issubdtype(chosen.dtype, np.integer):
        raise UserError(
            f"The channels of {name!r} must be given by their numbers, received {indices!r}.\n"
            "Give a list such as [0, 3]; np.flatnonzero(mask) makes one of a mask."
        )
    for index in chosen.tolist():
        if not 0 <= index < width:
            raise UserError(
                f"The layer {name!r} has no channel {index}.\nIts channels are 0 to {width - 1}."
            )
    return chosen.astype(np.int64)


def _dropped_slots(name: str, created: Labels, group: ChannelGroup, chosen: IntArray) -> IntArray:
    """The slots that go with chosen channels of a layer.

    In a class of bundles, slots of one column stand for one another. So equally many of each of
    the layer's columns go; of columns without channels of this layer, those in the same bundles.

    Raises:
        UserError: Other channels of the layer would have to go, too, or one can't go, or all
            of a class would.
    """
    wanted = np.unique(created[chosen])
    stuck = chosen[np.isin(created[chosen], group.fixed)]
    if len(stuck):
        raise UserError(
            f"Channel {stuck[0]} of {name!r} can't go: the blocks of a grouped layer would not "
            "stay equal.\nChoose others, or use set_width."
        )
    dropped = [wanted]
    for bundles in group.bundles:
        named = np.isin(bundles, wanted)
        if not named.any():
            continue
        own = np.isin(bundles[0], created)
        counts = named[:, own].sum(axis=0)
        if counts.max() == len(bundles):
            raise UserError(
                f"Of the channels {_first(_positions(created, bundles))} of {name!r} one must "
                "stay.\nLeave one of them out."
            )
        if counts.min() < counts.max():
            dropped.append(bundles[named.any(axis=1)].reshape(-1))
        else:
            rows = named[:, np.flatnonzero(own)[0]]
            dropped.append(bundles[rows][:, ~own].reshape(-1))
    slots = np.unique(np.concatenate(dropped))
    going = _positions(created, slots)
    if not np.array_equal(going, chosen):
        raise UserError(
            f"The channels {_first(chosen)} of {name!r} can't go without others of it.\n"
            f"Give all that go together, such as [{_first(going)}], or use set_width."
        )
    return slots


def _check_blocks(graph: TeacherGraph, name: str, dropped: IntArray) -> None:
    """Refuses what would let a channel that stays reach another block of a grouped convolution.

    A channel shuffle does that where not equally many go of all parts that it mixes.

    Raises:
        UserError: So it is.
    """
    kept = np.ones(len(graph.channels.group_of_slot), bool)
    kept[dropped] = False
    _, layers = resize(rewire(graph, ActionSet()), graph.channels, kept)
    for layer, channels in layers.items():
        groups = graph.architecture.layers[layer].config.get("groups", 1)
        expected, arriving = channels.expected.get("in"), channels.present.get("in")
        if groups == 1 or expected is None or arriving is None or len(expected) == groups:
            continue
        blocks = zip(expected.reshape(groups, -1), arriving.reshape(groups, -1), strict=True)
        if not all(np.isin(now, before).all() for before, now in blocks):
            raise UserError(
                f"Without these channels of {name!r} others would reach another block of "
                f"{layer!r}, whose weights are not theirs.\n"
                "Choose channels that lie more evenly, or use set_width."
            )


def _positions(created: IntArray, slots: IntArray) -> IntArray:
    """The channels of a layer that are any of these slots."""
    return np.flatnonzero(np.isin(created, slots))


def _first(things: Any, limit: int = 20) -> str:
    """Names or numbers in a row, the first ones of many.

    Example:
        >>> _first([1, 2, 3], limit=2)
        '1, 2, ...'
    """
    texts = [repr(thing) if isinstance(thing, str) else str(thing) for thing in things]
    return ", ".join([*texts[:limit], *(["..."] if len(texts) > limit else [])])
