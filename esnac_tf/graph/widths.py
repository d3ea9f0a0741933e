"""Widths and parameters of many students at once, from their actions alone."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np
import numpy.typing as npt

from esnac_tf.graph.parsing import functional_model
from esnac_tf.graph.teacher import TeacherGraph, channel_patterns, node_widths
from esnac_tf.layers import handler_of
from esnac_tf.layers.handler import expand_axes, is_parameter, weight_name

FloatArray = npt.NDArray[np.float64]


class WidthTable:
    """Widths of all nodes as a linear function of the numbers of kept bundles.

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
        column = {(group, class_): i for i, (_, group, class_) in enumerate(self._classes)}
        teacher = node_widths(graph)
        ends = [[node.inputs[0] for node in graph.nodes], [node.output for node in graph.nodes]]
        self._constant = np.zeros((2, len(graph.nodes)))
        self._per_bundle = np.zeros((2, len(graph.nodes), len(self._classes)))
        for side, references in enumerate(ends):
            for row, reference in enumerate(references):
                constant, patterns = channel_patterns(
                    graph.channels, graph.channels.labels[reference]
                )
                self._constant[side, row] = constant if patterns else teacher[side][row]
                for group, pattern in patterns.items():
                    for class_, (_, channels) in enumerate(pattern):
                        self._per_bundle[side, row, column[group, class_]] = channels

    def node_widths(self, widths: npt.NDArray[np.int64]) -> tuple[FloatArray, FloatArray]:
        """(input, output) widths of all nodes: [M, T] each, from group widths [M, G]."""
        kept = np.zeros((len(widths), len(self._classes)))
        for column, (number, member, position) in enumerate(self._classes):
            group = self._graph.channels.groups[member]
            kept[:, column] = group.kept_bundles(widths[:, number])[position]
        given, made = (kept @ self._per_bundle[side].T + self._constant[side] for side in range(2))
        return given, made


class ParameterTable:
    """Parameters of many students at once, without building them.

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
        self._widths = WidthTable(graph)
        layers = {layer.name: layer for layer in functional_model(model).operations}
        counted: set[str] = set()
        self._constant = 0
        # (node, fixed elements, whether an input axis, whether an output axis) of each weight.
        self._terms: list[tuple[int, float, bool, bool]] = []
        for index, node in enumerate(graph.nodes):
            for call in node.calls:
                if call.layer not in counted:
                    counted.add(call.layer)
                    self._add(graph, index, call.layer, layers[call.layer])
        for name, layer in layers.items():
            if name not in counted:  # preprocessing and sums: always kept
                config = graph.architecture.layers[name]
                weights = getattr(layer, "weights", ())
                self._constant += sum(
                    int(np.prod(weight.shape)) for weight in weights if is_parameter(config, weight)
                )

    def count(
        self, removed: npt.NDArray[np.bool_], widths: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        """Parameters of M students: [M], from removed nodes [M, T] and group widths [M, G]."""
        given, made = self._widths.node_widths(widths)
        total = np.full(len(removed), float(self._constant))
        for node, fixed, has_input, has_output in self._terms:
            term = np.full(len(removed), fixed)
            if has_input:
                term *= given[:, node]
            if has_output:
                term *= made[:, node]
            total += np.where(removed[:, node], 0.0, term)
        return np.rint(total).astype(np.int64)

    def _add(self, graph: TeacherGraph, node: int, name: str, layer: keras.layers.Layer) -> None:
        config = graph.architecture.layers[name]
        weights: Mapping[str, tuple[int, ...]] = {
            weight_name(weight): tuple(weight.shape)
            for weight in getattr(layer, "weights", ())
            if is_parameter(config, weight)
        }
        known = handler_of(config).weight_axes
        teacher_given = graph.nodes[node].input_shape[-1] or 1
        for weight, shape in weights.items():
            axes = expand_axes(known.get(weight, (...,)), len(shape))
            fixed, has_input, has_output = 1.0, False, False
            for role, length in zip(axes, shape, strict=True):
                if role in ("in", "in_repeated") and length > 1:
                    has_input = True
                    fixed *= length / teacher_given
                elif role == "out":
                    has_output = True
                else:
                    fixed *= length
            self._terms.append((node, fixed, has_input, has_output))
