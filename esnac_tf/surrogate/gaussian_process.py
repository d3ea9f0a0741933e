"""Gaussian process algebra for K kernels at once, each on its own subset of the observations.

All of it is in float64: with nearly equal rows float32 gives nonsense without an error. Both
functions stay finite with repeated rows, constant observations and a single observation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

# Added to the diagonal, for users who set the noise to 0; far below any sensible noise.
_JITTER = 1e-8
# Rounding can make a variance at an observed point fall below 0.
_MIN_VARIANCE = 1e-12


def leave_one_out_log_likelihood(
    kernel_matrix: Any,
    observations: Any,
    observation_noise_variance: Any = 0.05,
    mask: Any = None,
) -> Any:
    """The mean log likelihood of each observation given all others, in closed form [1].

        inverse = inv(kernel_matrix + observation_noise_variance * eye(N))
        mean = observations - (inverse @ observations) / diag(inverse)        # (5.12)
        variance = 1 / diag(inverse)                                          # (5.12)
        z = (observations - mean) / sqrt(variance)
        log_p = -0.5 * (log(variance) + z**2 + log(2 * pi))
        result = log_p.mean()                                                 # (5.10), (5.11)

    The prior has mean zero. One matrix is factored instead of N.

    Args:
        kernel_matrix: Gram matrices without noise, `[K, N, N]` or `[N, N]`.
        observations: `[N]`, or `[K, N]` if each kernel has its own.
        observation_noise_variance: Variance of the noise on an observation, at least 0; a scalar
            or `[K]`.
        mask: Booleans `[K, N]` or `[N]`: the subset of observations that exist for a kernel. What
            is False has no influence on value or gradient. None: all.

    Returns:
        Float64 `[K]`, in nats an observation; 0 where a subset is empty.

    Sources:
        [1] Rasmussen, Williams. Gaussian Processes for Machine Learning. MIT Press 2006,
            equations 5.10 to 5.12.

    Example:
        >>> result = leave_one_out_log_likelihood(tf.eye(3, batch_shape=[2]), [0.0, 0.0, 0.0])
        >>> result.numpy().round(4)  # log density of N(0, 1.05) at 0
        array([-0.9433, -0.9433])
    """
    observations = tf.cast(observations, tf.float64)
    if mask is None:
        mask = tf.ones(tf.shape(kernel_matrix)[:-1], tf.bool)
    mask = tf.convert_to_tensor(mask, dtype=tf.bool)
    cholesky = _cholesky(kernel_matrix, observation_noise_variance, mask)
    observations = tf.where(mask, observations, 0.0)
    shape = tf.shape(cholesky)
    inverse = tf.linalg.cholesky_solve(
        cholesky, tf.eye(shape[-1], batch_shape=shape[:-2], dtype=tf.float64)
    )
    precision = tf.linalg.diag_part(inverse)
    residual = tf.linalg.matvec(inverse, observations) / precision
    log_p = 0.5 * (tf.math.log(precision) - precision * residual**2 - np.log(2.0 * np.pi))
    count = tf.reduce_sum(tf.cast(mask, tf.float64), axis=-1)
    return tf.reduce_sum(tf.where(mask, log_p, 0.0), axis=-1) / tf.maximum(count, 1.0)


class Posterior:
    """The noise-free function given a subset of observations, at new points, each by itself.

        inverse = inv(k(X, X) + observation_noise_variance * eye(N))
        mean = k(x, X) @ inverse @ observations
        variance = diag(k(x, x) - k(x, X) @ inverse @ k(X, x))

    The matrix is factored once, for any number of predictions; and
    `tfd.GaussianProcessRegressionModel` lets TensorFlow warn, on every use in a `tf.function`, of
    an argument that TFP itself passes on.

    Args:
        kernel: A TFP kernel with one feature dimension and batch shape `[]` or `[K]`, such as
            `ArchitectureKernel.on_embeddings()`.
        observation_index_points: Embeddings of what was observed, `[K, N, D]`.
        observations: `[N]` or `[K, N]`.
        observation_noise_variance: Variance of the noise on an observation, at least 0; a scalar
            or `[K]`.
        mask: Booleans `[K, N]`: the observations that exist for a kernel. None: all.

    Sources:
        [1] Rasmussen, Williams. Gaussian Processes for Machine Learning. MIT Press 2006,
            equations 2.22 to 2.24.

    Example:
        >>> import tensorflow_probability as tfp
        >>> kernel = tfp.math.psd_kernels.ExponentiatedQuadratic(length_scale=np.float64(1.0))
        >>> posterior = Posterior(kernel, [[[0.0]]], [1.05])
        >>> mean, stddev = posterior.predict([[[0.0], [99.0]]])
        >>> mean.numpy().round(4)  # [K, M]: near the observation, and far from it
        array([[1., 0.]])
        >>> stddev.numpy().round(4)
        array([[0.2182, 1.    ]])
    """

    def __init__(
        self,
        kernel: Any,
        observation_index_points: Any,
        observations: Any,
        observation_noise_variance: Any = 0.05,
        mask: Any = None,
    ) -> None:
        self._kernel = kernel
        self._observed = tf.cast(observation_index_points, tf.float64)
        if mask is None:
            mask = tf.ones(tf.shape(self._observed)[:-1], tf.bool)
        self._mask = tf.convert_to_tensor(mask, dtype=tf.bool)
        gram = kernel.matrix(self._observed, self._observed)
        self._cholesky = _cholesky(gram, observation_noise_variance, self._mask)
        observations = tf.where(self._mask, tf.cast(observations, tf.float64), 0.0)
        self._solved = tf.linalg.cholesky_solve(self._cholesky, observations[..., tf.newaxis])

    def predict(self, index_points: Any) -> tuple[Any, Any]:
        """Mean and standard deviation at points `[K, M, D]`.

        Returns:
            Two float64 `[K, M]`; standard deviations are at least 1e-6, never NaN by rounding.
        """
        points = tf.cast(index_points, tf.float64)
        cross = self._kernel.matrix(self._observed, points)
        cross = tf.where(self._mask[..., tf.newaxis], cross, 0.0)
        mean = tf.linalg.matmul(cross, self._solved, transpose_a=True)[..., 0]
        explained = tf.linalg.triangular_solve(self._cholesky, cross) ** 2
        variance = self._kernel.apply(points, points) - tf.reduce_sum(explained, axis=-2)
        return mean, tf.sqrt(tf.maximum(variance, _MIN_VARIANCE))


def _cholesky(kernel_matrix: Any, noise: Any, mask: Any) -> Any:
    """The Cholesky factor of Gram matrices `[K, N, N]` with noise.

    Masked observations become independent standard normals: the inverse falls into two blocks,
    and theirs is the identity.
    """
    noise = tf.cast(noise, tf.float64)[..., tf.newaxis]
    pairs = mask[..., :, tf.newaxis] & mask[..., tf.newaxis, :]
    diagonal = tf.where(mask, noise + _JITTER, 1.0)
    matrix = tf.where(pairs, tf.cast(kernel_matrix, tf.float64), 0.0)
    return tf.linalg.cholesky(matrix + tf.linalg.diag(diagonal))
