"""A positive semidefinite kernel between layer sequences, by way of their embeddings."""

from __future__ import annotations

from typing import Any, NoReturn

import tensorflow as tf
import tensorflow_probability as tfp

from esnac_tf.surrogate.embedding import SequenceEmbedding

tfb = tfp.bijectors


class ArchitectureKernel(tfp.math.psd_kernels.PositiveSemidefiniteKernel):
    """K exponentiated quadratic kernels between the embeddings of two sequences.

        k(x, y) = amplitude**2 * exp(-sum((e(x) - e(y)) ** 2) / (2 * length_scale**2))

    with e the embedding of kernel number 0 to K - 1: the batch shape is `[K]`, and a point is a
    sequence `[T, F]` (`feature_ndims` 2). Points `[N, T, F]` are read by all kernels; points
    `[K, N, T, F]` are each kernel's own. So in `tfd.GaussianProcess` `log_prob` has shape `[K]`.

    Every call embeds all its points again. To score many candidates embed them once and use
    `on_embeddings`, which gives the same numbers.

    The embedding computes in float32. Distances and what follows are in the dtype of the points:
    give float64 points to a Gaussian process.

    Args:
        embedding: The embeddings, K of them. Its variables are among `trainable_variables`.
        amplitude: Square root of the kernel's value at distance 0; above 0, a scalar or `[K]`.
        length_scale: Distance at which the kernel has fallen to exp(-1/2) of that; above 0, a
            scalar or `[K]`. Embeddings have unit length, so distances are at most 2.
        validate_args: Kept for TFP; nothing more is checked.
        name: Name of the kernel.

    Sources:
        [1] Cao, Wang, Kitani. Learnable Embedding Space for Efficient Neural Architecture
            Compression. ICLR 2019, section 3.1, with length_scale**2 = 0.01.

    Example:
        >>> embedding = SequenceEmbedding(3, num_features=5, num_layers=1, hidden_size=4)
        >>> kernel = ArchitectureKernel(embedding)
        >>> points = tf.random.stateless_uniform([7, 6, 5], seed=[0, 0])
        >>> kernel.matrix(points, points).shape  # [K, N, N]
        TensorShape([3, 7, 7])
    """

    def __init__(
        self,
        embedding: SequenceEmbedding,
        amplitude: Any = 1.0,
        length_scale: Any = 0.1,
        validate_args: bool = False,
        name: str = "ArchitectureKernel",
    ) -> None:
        parameters = {
            "embedding": embedding,
            "amplitude": amplitude,
            "length_scale": length_scale,
            "validate_args": validate_args,
            "name": name,
        }
        self._embedding = embedding
        self._amplitude = amplitude
        self._length_scale = length_scale
        super().__init__(
            feature_ndims=2,
            dtype=None,  # That of the points.
            name=name,
            validate_args=validate_args,
            parameters=parameters,
        )

    @property
    def embedding(self) -> SequenceEmbedding:
        """The embeddings behind the kernels."""
        return self._embedding

    @property
    def amplitude(self) -> Any:
        """Square root of the kernel's value at distance 0."""
        return self._amplitude

    @property
    def length_scale(self) -> Any:
        """Distance at which the kernel has fallen to exp(-1/2) of its value at 0."""
        return self._length_scale

    @classmethod
    def _parameter_properties(cls, dtype: Any) -> dict[str, Any]:
        """How amplitude and length scale are trained: above 0, by a softplus."""
        low = tf.as_dtype(dtype or tf.float32).as_numpy_dtype(1e-6)
        return {
            name: tfp.util.ParameterProperties(
                default_constraining_bijector_fn=lambda: tfb.Softplus(low=low)
            )
            for name in ("amplitude", "length_scale")
        }

    def on_embeddings(self, dtype: Any = tf.float64) -> Any:
        """The same kernel between points that are embedded already.

        Args:
            dtype: Floating type of the embeddings that it will be given.

        Returns:
            A `tfp.math.psd_kernels.ExponentiatedQuadratic` for points `[K, N, D]`.

        Example:
            >>> embedding = SequenceEmbedding(2, num_features=5, num_layers=1, hidden_size=4)
            >>> kernel = ArchitectureKernel(embedding)
            >>> points = tf.random.stateless_uniform([3, 6, 5], seed=[0, 0])
            >>> embedded = tf.cast(embedding(points), tf.float64)
            >>> kernel.on_embeddings().matrix(embedded, embedded).shape
            TensorShape([2, 3, 3])
        """
        return tfp.math.psd_kernels.ExponentiatedQuadratic(
            amplitude=_as_dtype(self._amplitude, dtype),
            length_scale=_as_dtype(self._length_scale, dtype),
        )

    def __getitem__(self, slices: Any) -> NoReturn:
        """Refused: the variables of K kernels are stacked and can't be sliced apart."""
        raise NotImplementedError(
            "An ArchitectureKernel can't be sliced; slice what it returns, [K, ...], instead."
        )

    def _batch_shape(self) -> Any:
        shape = tf.TensorShape([self._embedding.num_kernels])
        for parameter in (self._amplitude, self._length_scale):
            shape = tf.broadcast_static_shape(
                shape, tf.TensorShape(tf.convert_to_tensor(parameter).shape)
            )
        return shape

    def _batch_shape_tensor(self, **parameter_kwargs: Any) -> Any:
        del parameter_kwargs
        return tf.constant(self._batch_shape().as_list(), tf.int32)

    def _apply(self, x1: Any, x2: Any, example_ndims: int = 0) -> Any:
        return self.on_embeddings(x1.dtype).apply(
            self._embed(x1, example_ndims), self._embed(x2, example_ndims), example_ndims
        )

    def _matrix(self, x1: Any, x2: Any) -> Any:
        return self.on_embeddings(x1.dtype).matrix(self._embed(x1, 1), self._embed(x2, 1))

    def _tensor(self, x1: Any, x2: Any, x1_example_ndims: int, x2_example_ndims: int) -> Any:
        return self.on_embeddings(x1.dtype).tensor(
            self._embed(x1, x1_example_ndims),
            self._embed(x2, x2_example_ndims),
            x1_example_ndims,
            x2_example_ndims,
        )

    def _embed(self, x: Any, example_ndims: int) -> Any:
        """Embeds `[..., K or 1 or nothing, *examples, T, F]` to `[..., K, *examples, D]`."""
        num_kernels = self._embedding.num_kernels
        rank = x.shape.rank
        batch_ndims = rank - 2 - example_ndims
        num_outer = max(batch_ndims - 1, 0)  # Batch dimensions before that of the kernels.
        outer_shape = tf.shape(x)[:num_outer]
        example_shape = tf.shape(x)[batch_ndims : rank - 2]
        own = batch_ndims > 0 and x.shape[num_outer] == num_kernels
        if batch_ndims > 0 and not own and x.shape[num_outer] != 1:
            raise ValueError(
                f"The last batch dimension of points must be 1 or K = {num_kernels}, "
                f"received points of shape {x.shape} with {example_ndims} example dimensions."
            )
        flat = tf.cast(x, tf.float32)
        if own:
            flat = tf.transpose(flat, [num_outer, *range(num_outer), *range(batch_ndims, rank)])
        flat_shape = tf.concat([[num_kernels, -1] if own else [-1], tf.shape(x)[-2:]], axis=0)
        embedded = self._embedding(
            tf.ensure_shape(
                tf.reshape(flat, flat_shape), [*([num_kernels] if own else []), None, *x.shape[-2:]]
            )
        )
        embedded = tf.reshape(
            embedded,
            tf.concat(
                [[num_kernels], outer_shape, example_shape, [self._embedding.embedding_size]],
                axis=0,
            ),
        )
        embedded = tf.transpose(
            embedded, [*range(1, num_outer + 1), 0, *range(num_outer + 1, embedded.shape.rank)]
        )
        return tf.cast(embedded, x.dtype)


def _as_dtype(parameter: Any, dtype: Any) -> Any:
    """A number as a tensor of that dtype at full precision, a tensor or variable cast to it."""
    if tf.is_tensor(parameter) or isinstance(parameter, tf.Variable):
        return tf.cast(parameter, dtype)
    return tf.convert_to_tensor(parameter, dtype=dtype)
