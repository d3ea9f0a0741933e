"""Widths and parameters of many students at once, from their actions alone."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from esnac_tf.architecture import LayerConfig
from esnac_tf.graph.bundles import num_kept_bundles
from esnac_tf.graph.cost import layer_parameters
from esnac_tf.graph.parsing import named_layers
from esnac_tf.graph.teacher import TeacherGraph, channel_patterns, node_widths
from esnac_tf.layers import handler_of
from esnac_tf.layers.channels import Labels
from esnac_tf.layers.weights import axes_of

FloatArray = npt.NDArray[np.float64]


class ChannelCounts:
    """Numbers of channels as linear functions of the numbers of kept bundles.

    Args:
        graph: The teacher.
    """

    def __init__(self, graph: TeacherGraph) -> None:
        self._graph = graph
        self._classes = [  # (width group, channel group, class of bundles)
            (number, member, position)
            for number, group in enumerate(graph.width_groups)
            for member in group.members
            for position in range(len(graph.channels.groups[member].bundles))
        ]
        self._column = {(group, class_): i for i, (_, group, class_) in enumerate(self._classes)}

    @property
    def num_classes(self) -> int:
        """How many classes of bundles there are in all groups."""
        return len(self._classes)

    def terms(self, labels: Labels) -> tuple[float, FloatArray]:
        """How many of these channels there are: a constant, and so many for each kept bundle."""
        constant, patterns = channel_patterns(self._graph.channels, labels)
        per_bundle = np.zeros(len(self._classes))
        for group, pattern in patterns.items():
            for class_, (_, channels) in enumerate(pattern):
                per_bundle[self._column[group, class_]] = channels
        return constant, per_bundle

    def kept_bundles(self, widths: npt.NDArray[np.int64]) -> FloatArray:
        """How many bundles of each class are kept, from group widths [M, G]: [M, classes]."""
        kept = np.zeros((len(widths), len(self._classes)))
        for column, (number, member, position) in enumerate(self._classes):
            kept[:, column] = num_kept_bundles(
                len(self._graph.channels.groups[member].bundles[position]),
                widths[:, number],
                self._graph.width_groups[number].width,
            )
        return kept


class WidthTable:
    """Widths of all nodes of many students at once.

    Args:
        graph: The teacher.
    """

    def __init__(self, graph: TeacherGraph) -> None:
        self._counts = ChannelCounts(graph)
        self._constant = np.array(node_widths(graph), float)
        self._per_bundle = np.zeros((2, len(graph.nodes), self._counts.num_classes))
        ends = [[node.inputs[0] for node in graph.nodes], [node.output for node in graph.nodes]]
        for side, references in enumerate(ends):
            for row, reference in enumerate(references):
                constant, per_bundle = self._counts.terms(graph.channels.labels[reference])
                if per_bundle.any():
                    self._constant[side, row] = constant
                    self._per_bundle[side, row] = per_bundle

        self._inner = self._inner_terms(graph)

    def _inner_terms(self, graph: TeacherGraph) -> list[tuple[int, int, float, FloatArray]]:
        """(node, place, constant, per bundle) of the first two inner roles of each node."""
        terms = []
        for row, node in enumerate(graph.nodes):
            roles = graph.channels.created_roles.get(node.calls[0].layer, {})
            inner = [labels for role, labels in roles.items() if role != "out"]
            for place, labels in enumerate(inner[:2]):
                terms.append((row, place, *self._counts.terms(labels)))
        return terms

    def inner_widths(self, widths: npt.NDArray[np.int64]) -> FloatArray:
        """What a node has besides input and output: [M, T, 2], as heads and key size; else 0."""
        kept = self._counts.kept_bundles(widths)
        inner = np.zeros((len(widths), self._constant.shape[1], 2))
        for row, place, constant, per_bundle in self._inner:
            inner[:, row, place] = constant + kept @ per_bundle
        return inner

    def node_widths(self, widths: npt.NDArray[np.int64]) -> tuple[FloatArray, FloatArray]:
        """(input, output) widths of all nodes: [M, T] each, from group widths [M, G]."""
        kept = self._counts.kept_bundles(widths)
        given, made = (kept @ self._per_bundle[side].T + self._constant[side] for side in range(2))
        return given, made


class ParameterTable:
    """Parameters of many students at once, without building them.

    A weight has as many elements as the product of its axes' lengths, and each length is in
    proportion to the number of channels of the role that lies along it.

    Args:
        graph: The teacher's graph.
        model: The teacher.

    Example:
        >>> from esnac_tf.graph.teacher import analyse
        >>> inputs = keras.Input((4,))
        >>> model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Dense(8)(inputs)))
        >>> table = ParameterTable(analyse(model), model)
        >>> table.count(np.zeros((2, 2), bool), np.array([[8], [5]])).tolist()
        [58, 37]
    """

    def __init__(self, graph: TeacherGraph, model: keras.Model) -> None:
        self._counts = ChannelCounts(graph)
        self._labels = graph.channels.roles
        layers = named_layers(model)
        node_of = {
            call.layer: index
            for index, node in reversed(list(enumerate(graph.nodes)))
            for call in node.calls
        }
        self._constant = 0
        # For each role that lies along a weight a constant, and channels for each kept bundle.
        self._roles: dict[tuple[str, str], tuple[float, FloatArray]] = {}
        # (node, elements that no action changes, roles that lie along the other axes).
        self._terms: list[tuple[int, float, list[tuple[str, str]]]] = []
        for name, layer in layers.items():
            config = graph.architecture.layers[name]
            for weight in layer_parameters(layer, config):
                if name in node_of:
                    self._add(node_of[name], config, weight)
                else:  # preprocessing and sums: always kept
                    self._constant += int(np.prod(weight.shape))

    def count(
        self, removed: npt.NDArray[np.bool_], widths: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        """Parameters of M students: [M], from removed nodes [M, T] and group widths [M, G]."""
        kept = self._counts.kept_bundles(widths)
        channels = {
            role: base + kept @ per_bundle for role, (base, per_bundle) in self._roles.items()
        }
        total = np.full(len(removed), float(self._constant))
        for node, fixed, roles in self._terms:
            term = np.full(len(removed), fixed)
            for role in roles:
                term *= channels[role]
            total += np.where(removed[:, node], 0.0, term)
        return np.rint(total).astype(np.int64)

    def _add(self, node: int, layer: LayerConfig, weight: Any) -> None:
        fixed, roles = 1.0, []
        axes = axes_of(handler_of(layer).weight_axes(layer), weight)
        for axis, length in zip(axes, weight.shape, strict=True):
            fixed *= length
            if axis is None or axis.role not in self._labels.get(layer.name, {}) or length == 1:
                continue
            role, labels = (layer.name, axis.role), self._labels[layer.name][axis.role]
            if role not in self._roles:
                self._roles[role] = self._counts.terms(labels)
            roles.append(role)
            fixed /= len(labels)
        self._terms.append((node, fixed, roles))
