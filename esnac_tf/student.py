"""Architecture + teacher -> keras.Model: a student with inherited weights."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from esnac_tf.architecture import CHANNEL_IMPORTANCE, ActionSet
from esnac_tf.errors import InfeasibleStudentError, UserError
from esnac_tf.graph.building import build
from esnac_tf.graph.bundles import num_kept_bundles
from esnac_tf.graph.channels import ChannelGraph
from esnac_tf.graph.parsing import named_layers
from esnac_tf.graph.surgery import LayerChannels, check_actions, resize, rewire
from esnac_tf.graph.teacher import TeacherGraph
from esnac_tf.layers import handler_of
from esnac_tf.layers.channels import Labels
from esnac_tf.layers.weights import Axis, axes_of, weight_key

Array = npt.NDArray[Any]


class StudentBuilder:
    """Builds students of one teacher.

    Args:
        model: The teacher.
        graph: Its graph (`esnac_tf.graph.teacher.analyse`).
        channel_importance: Which channels of a group are kept: those whose weights have the
            largest norm ("l1" or "l2", relative to the mean of their layer, summed over all
            layers that create them or scale them), those with the largest scales of
            BatchNormalization ("batch_norm"; where a group has none, as with "l2"), or the
            "first" ones, as in the paper.

    Attributes:
        model: As given.
        graph: As given.
        channel_importance: As given.

    Raises:
        UserError: `channel_importance` is none of the known ones.

    Example:
        >>> from esnac_tf.graph.teacher import analyse
        >>> inputs = keras.Input((4,))
        >>> hidden = keras.layers.Dense(8, name="hidden")(inputs)
        >>> teacher = keras.Model(inputs, keras.layers.Dense(2)(hidden))
        >>> builder = StudentBuilder(teacher, analyse(teacher))
        >>> student = builder.build(ActionSet.of(widths={"8": 3}))
        >>> student.get_layer("hidden").units
        3
    """

    def __init__(
        self, model: keras.Model, graph: TeacherGraph, channel_importance: str = "l2"
    ) -> None:
        if channel_importance not in CHANNEL_IMPORTANCE:
            raise UserError(
                f"channel_importance must be one of {', '.join(CHANNEL_IMPORTANCE)}, "
                f"received {channel_importance!r}."
            )
        self.model, self.graph, self.channel_importance = model, graph, channel_importance
        self._templates = named_layers(model)
        self._weights = {
            name: self._named_weights(layer)
            for name, layer in self._templates.items()
            if isinstance(layer, keras.layers.Layer)
            and handler_of(graph.architecture.layers[name]).is_known
        }
        self._scores = self._channel_scores(channel_importance)

    def teacher(self) -> keras.Model:
        """A copy of the teacher: the student of no action.

        Raises:
            UserError: A layer can't be made anew of its configuration.
        """
        try:
            return self.build(ActionSet())
        except InfeasibleStudentError as error:
            raise UserError(
                f"The model can't be made anew of its configuration: {error}.\n"
                "Give the layer's class a get_config that returns the arguments of __init__."
            ) from error

    def build(self, actions: ActionSet, name: str | None = None) -> keras.Model:
        """Builds the student that some actions give, with inherited weights.

        With no action the student gives the teacher's outputs exactly. Kept channels keep
        their weights and their BatchNormalization statistics.

        Args:
            actions: What is done to the teacher.
            name: The student's name; the teacher's by default.

        Returns:
            A plain Keras model.

        Raises:
            UserError: The teacher does not allow these actions.
            InfeasibleStudentError: They give no model that can be built.
        """
        check_actions(self.graph, actions)
        channels = self.graph.channels
        architecture, inherited = resize(
            rewire(self.graph, actions), channels, self.kept_slots(actions)
        )
        student = build(architecture, self._templates, name)
        ranks = _ranks(channels)
        for layer in student.operations:
            known = layer.name in self._templates and layer.name in inherited
            if not isinstance(layer, keras.layers.Layer) or not known:
                continue
            if layer.name not in self._weights:
                _copy_weights(self._templates[layer.name], layer)
                _finalize(layer)
                continue
            config = self.graph.architecture.layers[layer.name]
            handler = handler_of(config)
            sources = _AxisSources(inherited[layer.name], ranks)
            for weight, source in zip(layer.weights, self._weights[layer.name], strict=True):
                value = sources.gather(source)
                student_config = architecture.layers[layer.name]
                weight.assign(handler.adapt(source.name, value, config, student_config))
            _finalize(layer)
        return student

    def _named_weights(self, layer: keras.layers.Layer) -> list[_SourceWeight]:
        """A layer's weights, in its order."""
        config = self.graph.architecture.layers[layer.name]
        axes = handler_of(config).weight_axes(config)
        return [
            _SourceWeight(weight_key(axes, weight), np.asarray(weight), axes_of(axes, weight))
            for weight in layer.weights
        ]

    def kept_slots(self, actions: ActionSet) -> npt.NDArray[np.bool_]:
        """Which of the teacher's channels some actions keep.

        Channel groups that an action joins have the least of their widths and, as their
        bundles match, keep the same bundles.

        Args:
            actions: What is done to the teacher.

        Returns:
            Whether each slot of the teacher's `ChannelGraph` is kept: [slots].
        """
        channels = self.graph.channels
        kept = np.ones(len(channels.group_of_slot), bool)
        for members, width, full_width in joined_widths(self.graph, actions):
            groups = [channels.groups[index] for index in members]
            for position in range(len(groups[0].bundles)):
                # Classes of joined groups match in size, so they are paired by size.
                classes = [_by_size(group.bundles)[position] for group in groups]
                score = np.sum([self._scores[bundles].sum(axis=1) for bundles in classes], axis=0)
                number = int(num_kept_bundles(len(classes[0]), width, full_width))
                dropped = np.argsort(-score, kind="stable")[number:]
                for bundles in classes:
                    kept[bundles[dropped]] = False
        return kept

    def _channel_scores(self, channel_importance: str) -> npt.NDArray[np.float64]:
        """The importance of each slot, [slots]; with "first" it falls with the position."""
        channels = self.graph.channels
        scores = np.zeros(len(channels.group_of_slot))
        if channel_importance == "first":
            return scores  # all alike: the stable sort keeps the first ones
        order = 1 if channel_importance == "l1" else 2
        scales = np.zeros_like(scores)
        is_scaled = np.zeros(len(scores), bool)
        for name, weights in self._weights.items():
            created = channels.created_roles.get(name, {})
            consumed = channels.consumed_roles.get(name, {})
            normalizes = isinstance(self._templates[name], keras.layers.BatchNormalization)
            for weight in weights:
                if not weight.name.endswith("bias"):  # a bias creates no channel
                    for role, slots in created.items():
                        rows = weight.rows_of(role, len(slots))
                        if rows is not None:
                            norm = np.linalg.norm(rows, ord=order, axis=1)
                            np.add.at(scores, slots, norm / max(float(norm.mean()), 1e-12))
                if weight.name in ("gamma", "scale") and "in" in consumed and weight.value.ndim:
                    scale = np.abs(weight.value) / max(float(np.abs(weight.value).mean()), 1e-12)
                    named = consumed["in"] >= 0
                    np.add.at(scores, consumed["in"][named], scale[named])
                    if normalizes:
                        np.add.at(scales, consumed["in"][named], scale[named])
                        is_scaled[consumed["in"][named]] = True
        if channel_importance == "batch_norm":
            for group in channels.groups:
                if is_scaled[group.slots].all():
                    scores[group.slots] = scales[group.slots]
        return scores


def joined_widths(graph: TeacherGraph, actions: ActionSet) -> list[tuple[list[int], int, int]]:
    """Channel groups that the actions make equally wide, each set with its width.

    Returns:
        (indices of channel groups, W, F) for every set of groups that shrinks: W of F channels
        are kept, and of as many in proportion where a group follows one of another width.
    """
    widths = dict(actions.widths)
    width_group_of = {index: group for group in graph.width_groups for index in group.members}
    leader = {index: index for index in width_group_of}

    def find(index: int) -> int:
        while leader[index] != index:
            index = leader[index]
        return index

    joins = [graph.removals[graph.position[name]] for name in actions.removed]
    joins += [graph.skip_pair_of[pair].join for pair in actions.skips]
    for join in joins:
        if join is not None:
            first, second = sorted((find(join[0]), find(join[1])))
            leader[second] = first
    members: dict[int, list[int]] = {}
    for index in width_group_of:
        members.setdefault(find(index), []).append(index)
    joined = []
    for channel_groups in members.values():
        full_width = width_group_of[channel_groups[0]].width
        names = {width_group_of[index].name for index in channel_groups}
        width = min(widths.get(name, full_width) for name in names)
        if width < full_width:
            joined.append((channel_groups, width, full_width))
    return joined


@dataclasses.dataclass(frozen=True, eq=False)
class _SourceWeight:
    """A weight of the teacher's.

    Attributes:
        name: Its name, as the handler of its layer knows it.
        value: Its values.
        axes: What lies along its axes.
    """

    name: str
    value: Array
    axes: tuple[Axis | None, ...]

    def rows_of(self, role: str, count: int) -> Array | None:
        """A row for each of the `count` channels of a role: its entries along their last axis.

        None where they lie along no axis.
        """
        numbers = [n for n, axis in enumerate(self.axes) if axis is not None and axis.role == role]
        if not numbers:
            return None
        axis = self.axes[numbers[-1]]
        blocks = axis.blocks if axis is not None else 1
        rows = np.moveaxis(self.value, numbers[-1], 0).reshape(blocks, count, -1)
        return np.moveaxis(rows, 1, 0).reshape(count, -1)


class _AxisSources:
    """For each axis of a layer's weights, which entries of the teacher's a student takes."""

    def __init__(self, channels: LayerChannels, ranks: npt.NDArray[np.int64]) -> None:
        self._counts = {role: len(labels) for role, labels in channels.expected.items()}
        self._indices = {
            role: match_channels(labels, channels.present[role], ranks)
            for role, labels in channels.expected.items()
            if role in channels.present
        }

    def gather(self, weight: _SourceWeight) -> Array:
        """The student's weight from the teacher's; zeros where the teacher has none."""
        value = weight.value
        for number, axis in enumerate(weight.axes):
            if axis is None or axis.role not in self._indices:
                continue
            if axis.groups > 1:
                return self._gather_grouped(value, axis)
            value = _take(value, self._entries(axis), number)
        return value

    def _entries(self, axis: Axis) -> npt.NDArray[np.int64]:
        """Which entries along an axis the student takes; -1 where the teacher has none."""
        index = self._indices[axis.role]
        entries = index[:, None] * axis.repeat + np.arange(axis.repeat)
        entries = np.where(index[:, None] < 0, -1, entries).reshape(-1)
        length = self._counts[axis.role] * axis.repeat
        blocks = entries + length * np.arange(axis.blocks)[:, None]
        return np.where(entries < 0, -1, blocks).reshape(-1)

    def _gather_grouped(self, kernel: Array, axis: Axis) -> Array:
        """A grouped convolution's kernel [..., in / groups, out], block by block.

        A channel that arrives in another block than the teacher's (a removed channel shuffle
        does that) takes the weight of its place in the block.
        """
        index_in, index_out = self._indices[axis.role], self._indices["out"]
        size, groups = kernel.shape[-2], axis.groups
        if size == 1 and groups == kernel.shape[-1] == self._counts[axis.role]:
            return _take(kernel, index_out, kernel.ndim - 1)  # one group a channel
        blocks = []
        pairs = zip(np.split(index_in, groups), np.split(index_out, groups), strict=True)
        for arriving, given in pairs:
            local = np.where(arriving >= 0, arriving % size, -1)
            part = _take(kernel, given, kernel.ndim - 1)
            blocks.append(_take(part, local, kernel.ndim - 2))
        return np.concatenate(blocks, axis=-1)


def match_channels(
    expected: Labels, arriving: Labels, ranks: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """For each channel that arrives, the position at which the teacher's layer expects it.

    A channel that the teacher's layer does not know (it comes from before a removed layer) is
    taken for the one of the same rank in its group, else for the one at its own place.

    Args:
        expected: Slots that the teacher's layer expects, [n].
        arriving: Slots that arrive at the student's, [m].
        ranks: Each slot's position in its group.

    Returns:
        Positions in `expected`, [m].

    Example:
        >>> match_channels(np.array([5, 6, 7]), np.array([5, 7]), np.arange(8)).tolist()
        [0, 2]
    """
    if np.array_equal(expected, arriving):
        return np.arange(len(expected))
    position = {key: index for index, key in enumerate(_numbered(expected))}
    matched = [position.get(key, -1) for key in _numbered(arriving)]
    if -1 in matched:
        by_rank = {key: n for n, key in enumerate(_numbered(_ranked(expected, ranks)))}
        for place, rank in enumerate(_numbered(_ranked(arriving, ranks))):
            if matched[place] < 0:
                matched[place] = by_rank.get(rank, place if place < len(expected) else -1)
    return np.array(matched, np.int64)


def _ranked(labels: Labels, ranks: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.where(labels < 0, -1, ranks[labels])


def _numbered(values: Labels) -> list[tuple[int, int]]:
    """(value, how often it came before) for each value."""
    seen: dict[int, int] = {}
    numbered = []
    for value in values.tolist():
        numbered.append((value, seen.get(value, 0)))
        seen[value] = numbered[-1][1] + 1
    return numbered


def _take(weight: Array, index: npt.NDArray[np.int64], axis: int) -> Array:
    """Entries along an axis; zeros where the index is negative."""
    if np.array_equal(index, np.arange(weight.shape[axis])):
        return weight
    taken = np.take(weight, np.maximum(index, 0), axis)
    if (index >= 0).all():
        return taken
    shape = [1] * weight.ndim
    shape[axis] = len(index)
    return np.where((index >= 0).reshape(shape), taken, 0).astype(weight.dtype)


def _by_size(bundles: tuple[npt.NDArray[np.int64], ...]) -> list[npt.NDArray[np.int64]]:
    return sorted(bundles, key=lambda value: value.shape)


def _ranks(channels: ChannelGraph) -> npt.NDArray[np.int64]:
    """Each slot's position among the slots of its group."""
    ranks = np.zeros(len(channels.group_of_slot), np.int64)
    for group in channels.groups:
        ranks[group.slots] = np.arange(len(group.slots))
    return ranks


def _copy_weights(teacher: Any, student: Any) -> None:
    """All weights as they are, frozen ones frozen: the layer is kept as it is."""
    for source, target in zip(teacher.weights, student.weights, strict=True):
        target.assign(source)
        target.trainable = source.trainable


def _finalize(layer: Any) -> None:
    """Lets Normalization layers take over their new weights, those in nested models too."""
    if isinstance(layer, keras.layers.Normalization):
        layer.finalize_state()
    for part in getattr(layer, "layers", ()):
        _finalize(part)
