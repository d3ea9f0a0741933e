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
_INPUT_WIDTH, _OUTPUT_WIDTH = len(KINDS) + 4, len(KINDS) + 5
_INCOMING, _OUTGOING = len(KINDS) + 6, len(KINDS) + 6 + MAX_DISTANCE

FloatArray = npt.NDArray[np.float32]


class Encoder:
    """Encodes students of one teacher, many at once.

    Edges that are longer than 128 nodes are left out.

    Args:
        graph: The teacher.

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

    def __init__(self, graph: TeacherGraph) -> None:
        self._graph = graph
        self._teacher = self._teacher_features()
        self._widths = WidthTable(graph)
        pairs = [
            (index, pair.source, pair.target)
            for index, pair in enumerate(graph.skip_pairs)
            if pair.target - pair.source <= MAX_DISTANCE
        ]
        self._pairs = np.array(pairs, np.int64).reshape(-1, 3)
        self._weighted = np.array([node.kind in _WEIGHTED for node in graph.nodes])

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
            float32 [M, T, F] with F = 272.
        """
        features = np.tile(self._teacher, (len(removed), 1, 1))
        given, made = self._widths.node_widths(widths)
        features[:, self._weighted, _INPUT_WIDTH] = given[:, self._weighted]
        features[:, self._weighted, _OUTPUT_WIDTH] = made[:, self._weighted]
        inner = self._widths.inner_widths(widths)
        has_inner = inner.any(axis=(0, 2))
        features[:, has_inner, len(KINDS) : len(KINDS) + 2] = inner[:, has_inner]
        features[:, :, :_INCOMING][removed] = 0
        indices, sources, targets = self._pairs.T
        candidate, pair = np.nonzero(skips[:, indices])
        distance = targets[pair] - sources[pair] - 1
        features[candidate, targets[pair], _INCOMING + distance] = 1
        features[candidate, sources[pair], _OUTGOING + distance] = 1
        return features

    def _teacher_features(self) -> FloatArray:
        """[T, F] of the teacher; widths are filled in for each student."""
        features = np.zeros((len(self._graph.nodes), NUM_FEATURES), np.float32)
        for index, node in enumerate(self._graph.nodes):
            features[index, KINDS.index(node.kind)] = 1
            features[index, len(KINDS) : len(KINDS) + 4] = node.attributes
            for source in node.predecessors:
                if index - source <= MAX_DISTANCE:
                    features[index, _INCOMING + index - source - 1] = 1
                    features[source, _OUTGOING + index - source - 1] = 1
        return features
