"""Layers that are kept on purpose, with all channels around them: each with its reason."""

from __future__ import annotations

from collections.abc import Mapping

from esnac_tf.layers.handler import UnknownLayer

REASONS: Mapping[str, str] = {
    "FlaxLayer": "it holds a function of any kind",
    "GRUCell": "a cell is called step by step; as the part of a GRU it is handled",
    "InputLayer": "a network's input is given",
    "JaxLayer": "it holds a function of any kind",
    "LSTMCell": "a cell is called step by step; as the part of an LSTM it is handled",
    "Lambda": "it holds a function of any kind",
    "RNN": "its cell may be of any kind",
    "ReversibleEmbedding": "its weights are used forwards and backwards",
    "SimpleRNNCell": "a cell is called step by step; as the part of a SimpleRNN it is handled",
    "StackedRNNCells": "it is the cell of an RNN, which may be of any kind",
    "TFSMLayer": "it holds a saved graph, whose weights can't be sliced",
    "TorchModuleWrapper": "it holds a function of any kind",
}

OPERATION_REASONS: Mapping[str, str] = {
    "Dot": "its output has positions where its inputs have channels",
    "Einsum": "its equation may mix channels with positions",
    "Matmul": "its output has positions where its inputs have channels",
    "Take": "what it takes is told by numbers",
    "Tensordot": "its output has positions where its inputs have channels",
}


class Pinned(UnknownLayer):
    """Layers whose channels are not followed, for the reason that `REASONS` gives."""

    class_names = tuple(REASONS)
    operation_names = tuple(OPERATION_REASONS)
