"""ArchitectureKernel against NumPy, and inside TFP's Gaussian processes."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from hypothesis import given, settings
from hypothesis import strategies as st

from esnac_tf.surrogate.embedding import SequenceEmbedding
from esnac_tf.surrogate.kernel import ArchitectureKernel

tfd = tfp.distributions

K, N, M, T, F, H = 3, 5, 4, 6, 12, 8
NOISE = 0.05


@pytest.fixture(scope="module")
def embedding():
    return SequenceEmbedding(K, F, num_layers=2, hidden_size=H, seed=1)


@pytest.fixture(scope="module")
def kernel(embedding):
    return ArchitectureKernel(embedding, amplitude=1.5, length_scale=0.4)


@pytest.fixture(scope="module", params=[1, K])
def any_kernel(request):
    """One kernel, and several side by side."""
    embedding = SequenceEmbedding(request.param, F, num_layers=2, hidden_size=H, seed=1)
    return ArchitectureKernel(embedding, amplitude=1.5, length_scale=0.4)


def random_points(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=(*shape, T, F))


def reference_gram(embedding, x, y, amplitude=1.5, length_scale=0.4):
    """`[K, N, M]`; amplitude and length scale are scalars or `[K]`."""
    ex, ey = (np.asarray(embedding(points), np.float64) for points in (x, y))
    squares = ((ex[:, :, np.newaxis] - ey[:, np.newaxis]) ** 2).sum(-1)
    amplitude, length_scale = (
        np.broadcast_to(value, [len(ex)])[:, np.newaxis, np.newaxis]
        for value in (amplitude, length_scale)
    )
    return amplitude**2 * np.exp(-squares / (2 * length_scale**2))


def test_matrix_equals_the_numpy_reference(any_kernel):
    x, y = random_points(N), random_points(M, seed=1)
    gram = any_kernel.matrix(x, y)
    assert gram.dtype == tf.float64
    assert gram.shape == [any_kernel.embedding.num_kernels, N, M]
    np.testing.assert_allclose(gram, reference_gram(any_kernel.embedding, x, y), atol=1e-4)


def test_own_points_equal_the_numpy_reference(any_kernel):
    embedding = any_kernel.embedding
    num_kernels = embedding.num_kernels
    x, y = random_points(num_kernels, N), random_points(num_kernels, M, seed=1)
    np.testing.assert_allclose(any_kernel.matrix(x, y), reference_gram(embedding, x, y), atol=1e-4)
    shared = random_points(M, seed=1)
    expected = reference_gram(embedding, x, np.broadcast_to(shared, [num_kernels, *shared.shape]))
    np.testing.assert_allclose(any_kernel.matrix(x, shared), expected, atol=1e-4)


def test_parameters_of_each_kernel(embedding):
    amplitude, length_scale = np.array([0.5, 1.0, 2.0]), np.array([0.1, 0.3, 1.0])
    kernel = ArchitectureKernel(embedding, tf.constant(amplitude), tf.constant(length_scale))
    x = random_points(N)
    expected = reference_gram(embedding, x, x, amplitude, length_scale)
    np.testing.assert_allclose(kernel.matrix(x, x), expected, atol=1e-5)


def test_apply_and_tensor_are_entries_of_the_matrix(kernel):
    x, y = random_points(N), random_points(N, seed=1)
    gram = kernel.matrix(x, y).numpy()
    np.testing.assert_allclose(
        kernel.apply(x, y, example_ndims=1), np.diagonal(gram, axis1=1, axis2=2), atol=1e-6
    )
    np.testing.assert_allclose(kernel.apply(x[0], y[1]), gram[:, 0, 1], atol=1e-6)
    tensor = kernel.tensor(x.reshape(1, N, T, F), y, x1_example_ndims=2, x2_example_ndims=1)
    np.testing.assert_allclose(tensor, gram[:, np.newaxis], atol=1e-6)


def test_more_batch_dimensions_go_before_k(kernel):
    x = random_points(2, K, N)
    gram = kernel.matrix(x, x)
    assert gram.shape == [2, K, N, N]
    np.testing.assert_allclose(gram[1], kernel.matrix(x[1], x[1]), atol=1e-6)
    shared = random_points(2, 1, N)
    np.testing.assert_allclose(
        kernel.matrix(shared, shared)[1], kernel.matrix(shared[1, 0], shared[1, 0]), atol=1e-6
    )


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 999), repeat=st.booleans())
def test_gram_matrices_are_symmetric_and_positive_semidefinite(kernel, seed, repeat):
    x = random_points(N, seed=seed)
    if repeat:
        x[1:3] = x[0]
    gram = kernel.matrix(x, x).numpy()
    np.testing.assert_allclose(gram, np.swapaxes(gram, 1, 2), atol=1e-12)
    np.testing.assert_allclose(np.diagonal(gram, axis1=1, axis2=2), 1.5**2, rtol=1e-9)
    assert np.linalg.eigvalsh(gram).min() > -1e-9


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-4)])
def test_on_embeddings_gives_the_same_numbers(embedding, kernel, dtype, tolerance):
    x, y = random_points(N).astype(dtype), random_points(M, seed=1).astype(dtype)
    embedded = [tf.cast(embedding(points), dtype) for points in (x, y)]
    np.testing.assert_allclose(
        kernel.on_embeddings(dtype).matrix(*embedded), kernel.matrix(x, y), atol=tolerance
    )


def test_shapes_and_variables(embedding, kernel):
    assert kernel.batch_shape == [K]
    assert list(kernel.batch_shape_tensor()) == [K]
    assert kernel.feature_ndims == 2
    assert kernel.embedding is embedding
    assert len(kernel.trainable_variables) == len(embedding.trainable_variables) == 6


def test_parameters_are_trained_above_zero(kernel):
    properties = kernel.parameter_properties(dtype=tf.float64)
    assert set(properties) == {"amplitude", "length_scale"}
    for name in properties:
        bijector = properties[name].default_constraining_bijector_fn()
        assert bijector.forward(tf.constant(-100.0, tf.float64)) > 0


def test_gaussian_process_log_prob_equals_the_numpy_reference(any_kernel):
    kernel, embedding, x = any_kernel, any_kernel.embedding, random_points(N)
    observations = np.random.default_rng(2).normal(size=N)
    process = tfd.GaussianProcess(kernel, x, observation_noise_variance=np.float64(NOISE))
    with tf.GradientTape() as tape:
        log_prob = process.log_prob(observations)
    gradients = tape.gradient(log_prob, kernel.trainable_variables)
    expected = []
    for gram in reference_gram(embedding, x, x):
        covariance = gram + NOISE * np.eye(N)
        _, log_determinant = np.linalg.slogdet(2 * np.pi * covariance)
        square = observations @ np.linalg.solve(covariance, observations)
        expected.append(-0.5 * (log_determinant + square))
    assert log_prob.shape == [embedding.num_kernels]
    np.testing.assert_allclose(log_prob, expected, atol=1e-4)
    assert all(gradient is not None for gradient in gradients)


def test_regression_model_equals_the_numpy_reference(any_kernel):
    kernel, embedding = any_kernel, any_kernel.embedding
    x, y = random_points(N), random_points(M, seed=1)
    observations = np.random.default_rng(2).normal(size=N)
    model = tfd.GaussianProcessRegressionModel(
        kernel,
        index_points=y,
        observation_index_points=x,
        observations=observations,
        observation_noise_variance=np.float64(NOISE),
        predictive_noise_variance=np.float64(0.0),
    )
    inverse = np.linalg.inv(reference_gram(embedding, x, x) + NOISE * np.eye(N))
    cross = reference_gram(embedding, y, x)
    assert model.mean().shape == [embedding.num_kernels, M]
    np.testing.assert_allclose(model.mean(), cross @ inverse @ observations, atol=1e-4)
    variance = 1.5**2 - np.einsum("kmn,knl,kml->km", cross, inverse, cross)
    np.testing.assert_allclose(model.variance(), variance, atol=1e-4)


def test_slicing_is_refused(kernel):
    with pytest.raises(NotImplementedError, match="slice"):
        kernel[0]


def test_points_of_another_number_of_kernels_are_refused(kernel):
    x = random_points(K + 1, N)
    with pytest.raises(ValueError, match="K = 3"):
        kernel.matrix(x, x)
