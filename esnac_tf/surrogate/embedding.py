"""K independent LSTM embeddings of layer sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf


class SequenceEmbedding(tf.Module):
    """K stacks of bidirectional LSTMs that map a sequence to a point on the unit sphere.

    With h the outputs of the last layer, both directions side by side:

        mean = sum(h[t] for t) / T
        embedding = mean / sqrt(sum(mean ** 2))

    One layer of all K stacks and both directions is three variables: `kernel` `[K, 2, in, 4H]`,
    `recurrent_kernel` `[K, 2, H, 4H]` and `bias` `[K, 2, 4H]`, where H is `hidden_size`, direction
    1 reads from the end, and gates are in the order of Keras (input, forget, cell, output).

    A direction of a layer is one call of TensorFlow's block LSTM, which runs over the whole
    sequence in C++ and brings its own gradient; nothing is traced anew for another N or T.

    Weights start with Glorot uniform kernels, orthogonal recurrent kernels `[H, 4H]` and zero
    biases, but 1 for the forget gate (Keras' defaults, [1]). PyTorch, which the paper's
    reference uses, draws all of them from U(-1/sqrt(H), 1/sqrt(H)) instead.

    Args:
        num_kernels: K, the number of independent embeddings; at least 1.
        num_features: F, the width of a sequence's rows; at least 1.
        num_layers: Bidirectional layers in a stack; at least 1.
        hidden_size: Units of one direction; at least 1. An embedding has D = 2 * hidden_size.
        seed: Seed of the initial weights, a non-negative integer. Equal seeds, equal weights.
        name: Name of the module.

    Raises:
        ValueError: A size is below 1.

    Sources:
        [1] Jozefowicz, Zaremba, Sutskever. An Empirical Exploration of Recurrent Network
            Architectures. ICML 2015 (forget gate bias 1).
        [2] Cao, Wang, Kitani. Learnable Embedding Space for Efficient Neural Architecture
            Compression. ICLR 2019, section 3.1 (this embedding).

    Example:
        >>> embedding = SequenceEmbedding(3, num_features=5, num_layers=1, hidden_size=4)
        >>> embedding(np.ones([7, 6, 5], np.float32)).shape  # [N, T, F] to [K, N, D]
        TensorShape([3, 7, 8])
    """

    def __init__(
        self,
        num_kernels: int,
        num_features: int,
        num_layers: int = 4,
        hidden_size: int = 64,
        seed: int = 0,
        name: str = "sequence_embedding",
    ) -> None:
        super().__init__(name=name)
        sizes = {
            "num_kernels": num_kernels,
            "num_features": num_features,
            "num_layers": num_layers,
            "hidden_size": hidden_size,
        }
        for size_name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{size_name} must be at least 1, received {size}.")
        self.num_kernels = num_kernels
        self.num_features = num_features
        self.num_layers = num_layers
        self.hidden_size = hidden_size

        self.kernels: list[Any] = []
        self.recurrent_kernels: list[Any] = []
        self.biases: list[Any] = []
        for layer in range(num_layers):
            width = num_features if layer == 0 else 2 * hidden_size
            for part, rows, variables in (
                ("kernel", [width], self.kernels),
                ("recurrent_kernel", [hidden_size], self.recurrent_kernels),
                ("bias", [], self.biases),
            ):
                initial = tf.zeros([num_kernels, 2, *rows, 4 * hidden_size])
                variables.append(tf.Variable(initial, name=f"layer_{layer}_{part}"))
        self.reinitialize(seed)

    @property
    def all_weights(self) -> list[Any]:
        """All variables `[K, ...]`: of each layer kernel, recurrent kernel and bias."""
        layers = zip(self.kernels, self.recurrent_kernels, self.biases, strict=True)
        return [variable for layer in layers for variable in layer]

    @property
    def embedding_size(self) -> int:
        """D, the length of an embedding."""
        return 2 * self.hidden_size

    def reinitialize(self, seed: int, numbers: Sequence[int] | None = None) -> None:
        """Gives weights new initial values, in the same variables.

        Functions traced with this embedding stay valid.

        Args:
            seed: Seed of the weights, a non-negative integer.
            numbers: Of these kernels alone, what all would get; None: of all.
        """
        generator = np.random.default_rng(seed)
        rows = list(range(self.num_kernels) if numbers is None else numbers)

        def assign(variable: Any, values: Any) -> None:
            variable.scatter_update(tf.IndexedSlices(values[rows].astype(np.float32), rows))

        for kernel in self.kernels:
            limit = np.sqrt(6.0 / (kernel.shape[-2] + kernel.shape[-1]))
            assign(kernel, generator.uniform(-limit, limit, kernel.shape))
        for recurrent_kernel in self.recurrent_kernels:
            normal = generator.standard_normal(recurrent_kernel.shape)
            q, r = np.linalg.qr(np.swapaxes(normal, -1, -2))
            # QR alone is not uniform over orthogonal matrices; the signs of r make it so.
            q *= np.sign(np.diagonal(r, axis1=-2, axis2=-1))[..., np.newaxis, :]
            assign(recurrent_kernel, np.swapaxes(q, -1, -2))
        for bias in self.biases:
            values = np.zeros(bias.shape, np.float32)
            values[..., self.hidden_size : 2 * self.hidden_size] = 1.0
            assign(bias, values)

    def __call__(self, sequences: Any, columns: Any = None) -> Any:
        """Embeds sequences with every kernel.

        Args:
            sequences: Floats `[N, T, F]`, read by all kernels, or `[K, N, T, F]`, each kernel's
                own. T is at least 1.
            columns: Whole numbers `[C]` below F: the last axis of the sequences holds these
                features alone, `[..., C]`, and the others are zero. None: all of them.

        Returns:
            Float32 `[K, N, D]` of unit length.

        Raises:
            ValueError: The ranks or the number of features or kernels don't fit.
        """
        sequences = tf.convert_to_tensor(sequences, dtype=tf.float32)
        rank = sequences.shape.rank
        num_columns = self.num_features if columns is None else len(columns)
        if rank not in (3, 4) or sequences.shape[-1] != num_columns:
            raise ValueError(
                f"sequences must be [N, T, {num_columns}] or "
                f"[{self.num_kernels}, N, T, {num_columns}], received {sequences.shape}."
            )
        if rank == 4 and sequences.shape[0] != self.num_kernels:
            raise ValueError(
                f"sequences of rank 4 must start with K = {self.num_kernels}, "
                f"received {sequences.shape}."
            )
        own = [sequences] * self.num_kernels if rank == 3 else tf.unstack(sequences)
        return tf.stack(
            [
                self.embed(self.weights_of(number), of_kernel, columns)
                for number, of_kernel in enumerate(own)
            ]
        )

    def weights_of(self, number: Any) -> list[Any]:
        """One kernel's part of each of `all_weights`.

        Args:
            number: Which, 0 to K - 1; also a tensor.
        """
        return [variable[number] for variable in self.all_weights]

    def embed(self, weights: Sequence[Any], sequences: Any, columns: Any = None) -> Any:
        """Embeds sequences with one kernel's weights.

        Args:
            weights: As `weights_of` gives them.
            sequences: Floats `[N, T, F]`, or `[N, T, C]` with columns.
            columns: As for a call.

        Returns:
            Float32 `[N, D]` of unit length.
        """
        outputs = tf.transpose(sequences, [1, 0, 2])
        for layer in range(self.num_layers):
            kernel, recurrent_kernel, bias = weights[3 * layer : 3 * layer + 3]
            if layer == 0 and columns is not None:
                kernel = tf.gather(kernel, columns, axis=-2)
            together = tf.concat([kernel, recurrent_kernel], axis=-2)
            outputs = _bidirectional(outputs, _by_direction(together), _by_direction(bias))
        return tf.math.l2_normalize(tf.reduce_mean(outputs, axis=0), axis=-1)


def _by_direction(weights: Any) -> list[Any]:
    """Weights `[2, ..., 4H]` by direction, gates in the order of the block LSTM."""
    i, f, g, o = tf.split(weights, 4, axis=-1)
    return tf.unstack(tf.concat([i, g, f, o], axis=-1))


def _bidirectional(outputs: Any, weights: Any, biases: Any) -> Any:
    """One layer of one kernel.

    Args:
        outputs: What the layer before gives, `[T, N, in]`.
        weights: Of each direction `[in + H, 4H]`: kernel over recurrent kernel.
        biases: Of each direction `[4H]`.

    Returns:
        `[T, N, 2H]`, the forward direction's first.
    """
    forward = _recur(outputs, weights[0], biases[0])
    backward = _recur(outputs[::-1], weights[1], biases[1])[::-1]
    return tf.concat([forward, backward], axis=-1)


def _recur(inputs: Any, weights: Any, bias: Any) -> Any:
    """The states `[T, N, H]` of an LSTM, from zero states on."""
    hidden_size = bias.shape[0] // 4
    zeros = tf.zeros([tf.shape(inputs)[1], hidden_size])
    no_peephole = tf.zeros([hidden_size])
    # The gradient of BlockLSTMV2 takes the gates in another order than it does (TensorFlow 2.21).
    return tf.raw_ops.BlockLSTM(
        seq_len_max=tf.shape(inputs, out_type=tf.int64)[0],
        x=inputs,
        cs_prev=zeros,
        h_prev=zeros,
        w=weights,
        wci=no_peephole,
        wcf=no_peephole,
        wco=no_peephole,
        b=bias,
        forget_bias=0.0,  # what is learned holds it
        cell_clip=-1.0,  # none
        use_peephole=False,
    ).h
