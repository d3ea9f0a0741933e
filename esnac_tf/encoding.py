"""Teacher and actions -> features [M, T, F], without building a Keras model.

A row for each node of the layer sequence, in topological order, 272 numbers:

    0 - 9      one-hot of the kind of layer; all 0 where the node is removed
    10 - 13    kernel size, stride, padding, groups; of attention layers heads and key size
    14 - 15    input width, output width (convolutions and dense layers only)
    16 - 143   incoming edges by distance in the sequence, 1 to 128
    144 - 271  outgoing edges by distance in the sequence, 1 to 128

Source: Cao, Wang and Kitani, ICLR 2019, appendix 6.1.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from esnac_tf.graph.teacher import TeacherGraph
from esnac_tf.graph.widths import WidthTable
from esnac_tf.layers.handler import KINDS

MAX_DISTANCE = 128
NUM_FEATURES = len(KINDS) + 6 + 2 * MAX_DISTANCE
_WEIGHTED = ("convolution", "depthwise_convolution", "dense")
_KERNEL = len(KINDS)
_INPUT_WIDTH, _OUTPUT_WIDTH = len(KINDS) + 4, len(KINDS) + 5
_INCOMING, _OUTGOING = len(KINDS) + 6, len(KINDS) + 6 + MAX_DISTANCE

FloatArray = npt.NDArray[np.float32]


class Encoder:
    """Encodes students of one teacher, many at once.

    Edges that are longer than 128 nodes are left out.

    Args:
        graph: The teacher.
        only_used: Whether features that are zero in all students are left out: for a ResNet-34
            174 of 272 are.

    Attributes:
        columns: The features that encodings hold, in order: `[C]` of 0 to F - 1, all without
            `only_used`.

    Example:
        >>> import keras
        >>> from esnac_tf.graph.teacher import analyse
        >>> inputs = keras.Input((4,))
        >>> hidden = keras.layers.Dense(8)(inputs)
        >>> encoder = Encoder(analyse(keras.Model(inputs, keras.layers.Dense(2)(hidden))))
        >>> features = encoder.encode(np.zeros((1, 2), bool), np.array([[5]]), np.zeros((1, 0)))
        >>> features.shape, features[0, :, 14:16].tolist()
        ((1, 2, 272), [[4.0, 5.0], [5.0, 2.0]])
    """

    def __init__(self, graph: TeacherGraph, only_used: bool = False) -> None:
        self._graph = graph
        teacher = self._teacher_features()
        self._widths = WidthTable(graph)
        pairs = [
            (index, pair.source, pair.target)
            for index, pair in enumerate(graph.skip_pairs)
            if pair.target - pair.source <= MAX_DISTANCE
        ]
        self._pairs, sources, targets = np.array(pairs, np.int64).reshape(-1, 3).T
        inner = self._widths.inner_widths(self._full_widths()).any(axis=(0, 2))
        self._inner = np.flatnonzero(inner)
        self._weighted = np.flatnonzero([node.kind in _WEIGHTED for node in graph.nodes])
        used = np.asarray(teacher.any(axis=0))
        used[[_INPUT_WIDTH, _OUTPUT_WIDTH]] |= len(self._weighted) > 0
        used[[_KERNEL, _KERNEL + 1]] |= len(self._inner) > 0
        distance = targets - sources - 1
        used[_INCOMING + distance] = used[_OUTGOING + distance] = True
        self.columns = np.flatnonzero(used) if only_used else np.arange(NUM_FEATURES)
        self._column = np.full(NUM_FEATURES, -1)
        self._column[self.columns] = np.arange(len(self.columns))
        self._teacher = teacher[:, self.columns]
        # What of a node goes with it, and the two places of each skip connection in [T * C].
        self._num_own = int(np.searchsorted(self.columns, _INCOMING))
        rows = np.stack([targets, sources]) * len(self.columns)
        self._bits = rows + self._column[np.stack([_INCOMING + distance, _OUTGOING + distance])]

    def encode(
        self,
        removed: npt.NDArray[np.bool_],
        widths: npt.NDArray[np.int64],
        skips: npt.NDArray[np.bool_],
    ) -> FloatArray:
        """The features of M students.

        Args:
            removed: Removed nodes, bool [M, T].
            widths: Widths of the width groups, [M, G].
            skips: Added skip connections, bool [M, P].

        Returns:
            float32 [M, T, C] with C = 272, or as many as `columns`.
        """
        features = np.tile(self._teacher, (len(removed), 1, 1))
        if len(self._weighted):
            given, made = self._widths.node_widths(widths)
            features[:, self._weighted, self._column[_INPUT_WIDTH]] = given[:, self._weighted]
            features[:, self._weighted, self._column[_OUTPUT_WIDTH]] = made[:, self._weighted]
        if len(self._inner):
            inner = self._widths.inner_widths(widths)[:, self._inner]
            for place in range(2):
                features[:, self._inner, self._column[_KERNEL + place]] = inner[..., place]
        candidate, node = np.nonzero(removed)
        features[candidate, node, : self._num_own] = 0
        candidate, pair = np.nonzero(skips[:, self._pairs])
        flat = features.reshape(len(removed), self._teacher.size)
        for bits in self._bits:
            flat[candidate, bits[pair]] = 1
        return features

    def _full_widths(self) -> npt.NDArray[np.int64]:
        """The teacher's group widths, [1, G]."""
        return np.array([[group.width for group in self._graph.width_groups]], np.int64)

    def _teacher_features(self) -> FloatArray:
        """[T, F] of the teacher; widths are filled in for each student."""
        features = np.zeros((len(self._graph.nodes), NUM_FEATURES), np.float32)
        for index, node in enumerate(self._graph.nodes):
            features[index, KINDS.index(node.kind)] = 1
            features[index, _KERNEL : _KERNEL + 4] = node.attributes
            for source in node.predecessors:
                if index - source <= MAX_DISTANCE:
                    features[index, _INCOMING + index - source - 1] = 1
                    features[source, _OUTGOING + index - source - 1] = 1
        return features
