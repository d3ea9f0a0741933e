"""Widths and parameters of many students at once, from their actions alone."""

from __future__ import annotations

import keras
import numpy as np
import numpy.typing as npt

from esnac_tf.graph.bundles import num_kept_bundles
from esnac_tf.graph.cost import layer_parameters
from esnac_tf.graph.parsing import functional_model
from esnac_tf.graph.teacher import TeacherGraph, channel_patterns, node_widths
from esnac_tf.layers import handler_of
from esnac_tf.layers.handler import expand_axes, weight_name

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

    def varies(self, node: int) -> tuple[bool, bool]:
        """Whether the input width and the output width of a node can change."""
        given, made = self._per_bundle[:, node]
        return bool(given.any()), bool(made.any())

    def node_widths(self, widths: npt.NDArray[np.int64]) -> tuple[FloatArray, FloatArray]:
        """(input, output) widths of all nodes: [M, T] each, from group widths [M, G]."""
        kept = np.zeros((len(widths), len(self._classes)))
        for column, (number, member, position) in enumerate(self._classes):
            kept[:, column] = num_kept_bundles(
                len(self._graph.channels.groups[member].bundles[position]),
                widths[:, number],
                self._graph.width_groups[number].width,
            )
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
        full = np.array([group.width for group in graph.width_groups], np.int64)
        self._teacher_given, self._teacher_made = self._widths.node_widths(full[None])
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
                weights = layer_parameters(layer, graph.architecture.layers[name])
                self._constant += sum(int(np.prod(weight.shape)) for weight in weights)

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
        known = handler_of(config).weight_axes
        input_varies, output_varies = self._widths.varies(node)
        for weight in layer_parameters(layer, config):
            axes = expand_axes(known.get(weight_name(weight), (...,)), len(weight.shape))
            fixed, has_input, has_output = 1.0, False, False
            for role, length in zip(axes, weight.shape, strict=True):
                fixed *= length
                if role in ("in", "in_repeated") and length > 1 and input_varies:
                    has_input = True
                    fixed /= self._teacher_given[0, node]
                elif role == "out" and output_varies:
                    has_output = True
                    fixed /= self._teacher_made[0, node]
            self._terms.append((node, fixed, has_input, has_output))
