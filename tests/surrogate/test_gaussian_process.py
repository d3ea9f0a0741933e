"""Leave-one-out likelihood and posterior against float64 NumPy, one point left out at a time."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from esnac_tf.surrogate.gaussian_process import Posterior, leave_one_out_log_likelihood

K, N, M, D = 3, 7, 4, 5
NOISE = 0.05
MASK = np.array([[1, 1, 1, 1, 1, 1, 1], [1, 0, 1, 0, 1, 1, 0], [0, 0, 1, 0, 0, 0, 1]], bool)
KERNEL = tfp.math.psd_kernels.ExponentiatedQuadratic(length_scale=np.float64(0.7))


def random_points(*shape, seed=0):
    points = np.random.default_rng(seed).normal(size=(*shape, D))
    return points / np.linalg.norm(points, axis=-1, keepdims=True)


def random_observations(*shape):
    return np.random.default_rng(1).normal(size=shape)


def reference_gram(x, y):
    return np.exp(-((x[:, np.newaxis] - y[np.newaxis]) ** 2).sum(-1) / (2 * 0.7**2))


def reference_predict(x, observations, y):
    """Mean and latent variance at y given observations at x."""
    inverse = np.linalg.inv(reference_gram(x, x) + NOISE * np.eye(len(x)))
    cross = reference_gram(y, x)
    return cross @ inverse @ observations, 1 - np.einsum("mn,nl,ml->m", cross, inverse, cross)


def reference_leave_one_out(x, observations):
    """Actually leaves each one out."""
    log_p = []
    for i in range(len(x)):
        others = np.arange(len(x)) != i
        mean, variance = reference_predict(x[others], observations[others], x[i : i + 1])
        variance = variance[0] + NOISE
        log_p.append(
            -0.5 * np.log(2 * np.pi * variance) - (observations[i] - mean[0]) ** 2 / (2 * variance)
        )
    return np.mean(log_p)


def posterior(kernel, x, observations, y, noise, mask=None):
    return Posterior(kernel, x, observations, noise, mask).predict(y)


def test_leave_one_out_of_one_kernel_equals_brute_force():
    x, observations = random_points(N), random_observations(N)
    actual = leave_one_out_log_likelihood(KERNEL.matrix(x, x), observations, NOISE)
    assert actual.dtype == tf.float64
    np.testing.assert_allclose(actual, reference_leave_one_out(x, observations), rtol=1e-5)


@pytest.mark.parametrize("num_kernels", [1, K])
@pytest.mark.parametrize("own", [False, True])
def test_leave_one_out_of_different_subsets_equals_brute_force(own, num_kernels):
    x, mask = random_points(num_kernels, N), MASK[-num_kernels:]
    observations = random_observations(num_kernels, N) if own else random_observations(N)
    actual = leave_one_out_log_likelihood(KERNEL.matrix(x, x), observations, NOISE, mask)
    each = np.broadcast_to(observations, [num_kernels, N])
    expected = [
        reference_leave_one_out(x[k][mask[k]], each[k][mask[k]]) for k in range(num_kernels)
    ]
    assert actual.shape == [num_kernels]
    np.testing.assert_allclose(actual, expected, atol=1e-4)


def test_leave_one_out_compiles_to_the_same():
    x, observations = random_points(K, N), random_observations(N)
    gram = KERNEL.matrix(x, x)
    compiled = tf.function(leave_one_out_log_likelihood, jit_compile=True)
    np.testing.assert_allclose(
        compiled(gram, tf.constant(observations), mask=tf.constant(MASK)),
        leave_one_out_log_likelihood(gram, observations, mask=MASK),
        rtol=1e-9,
    )


def test_masked_points_have_no_influence_on_value_or_gradient():
    x, observations = random_points(K, N), random_observations(K, N)

    def value_and_gradient(x, observations):
        x, observations = tf.constant(x), tf.constant(observations)
        with tf.GradientTape() as tape:
            tape.watch([x, observations])
            value = leave_one_out_log_likelihood(KERNEL.matrix(x, x), observations, NOISE, MASK)
        return value, *tape.gradient(value, [x, observations])

    value, x_gradient, y_gradient = value_and_gradient(x, observations)
    other_x = np.where(MASK[..., np.newaxis], x, random_points(K, N, seed=9))
    other_observations = np.where(MASK, observations, 1e9)
    other_value, other_x_gradient, _ = value_and_gradient(other_x, other_observations)
    np.testing.assert_array_equal(value, other_value)
    np.testing.assert_array_equal(x_gradient, other_x_gradient)
    assert not np.any(x_gradient.numpy()[~MASK])
    assert not np.any(y_gradient.numpy()[~MASK])
    assert np.all(np.any(x_gradient.numpy()[MASK], axis=-1))


@pytest.mark.parametrize("noise", [0.0, 1e-4, NOISE])
@pytest.mark.parametrize("case", ["duplicates", "constant", "single", "empty"])
def test_awkward_data_stay_finite(case, noise):
    x, observations = random_points(K, N), random_observations(N)
    mask = np.ones([K, N], bool)
    if case == "duplicates":
        x[:, 1:] = x[:, :1]
    elif case == "constant":
        observations[:] = 0.5
    elif case == "single":
        mask[:, 1:] = False
    else:
        mask[:] = False
    points = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(points)
        value = leave_one_out_log_likelihood(
            KERNEL.matrix(points, points), observations, noise, mask
        )
    assert np.isfinite(value).all()
    assert np.isfinite(tape.gradient(value, points)).all()
    mean, stddev = posterior(KERNEL, x, observations, x, noise, mask)
    assert np.isfinite(mean).all()
    assert np.isfinite(stddev).all()
    assert (stddev.numpy() > 0).all()


def test_a_single_observation_is_predicted_by_the_prior():
    value = leave_one_out_log_likelihood(np.eye(1), [0.3], NOISE)
    expected = -0.5 * np.log(2 * np.pi * 1.05) - 0.3**2 / (2 * 1.05)
    np.testing.assert_allclose(value, expected, rtol=1e-6)


@pytest.mark.parametrize("num_kernels", [1, K])
@pytest.mark.parametrize("own", [False, True])
def test_posterior_of_different_subsets_equals_the_numpy_reference(own, num_kernels):
    x, y = random_points(num_kernels, N), random_points(num_kernels, M, seed=5)
    mask = MASK[-num_kernels:]
    observations = random_observations(num_kernels, N) if own else random_observations(N)
    mean, stddev = posterior(KERNEL, x, observations, y, NOISE, mask)
    assert mean.shape == stddev.shape == [num_kernels, M]
    each = np.broadcast_to(observations, [num_kernels, N])
    for k in range(num_kernels):
        own_points = x[k][mask[k]], each[k][mask[k]]
        expected_mean, expected_variance = reference_predict(*own_points, y[k])
        np.testing.assert_allclose(mean[k], expected_mean, atol=1e-4)
        np.testing.assert_allclose(stddev[k] ** 2, expected_variance, atol=1e-4)


def test_posterior_of_one_kernel_without_mask_equals_the_numpy_reference():
    x, y, observations = random_points(N), random_points(M, seed=5), random_observations(N)
    mean, stddev = posterior(KERNEL, x[np.newaxis], observations, y[np.newaxis], NOISE)
    assert mean.shape == stddev.shape == [1, M]
    expected_mean, expected_variance = reference_predict(x, observations, y)
    np.testing.assert_allclose(mean[0], expected_mean, atol=1e-5)
    np.testing.assert_allclose(stddev[0] ** 2, expected_variance, atol=1e-5)


def test_an_empty_subset_gives_the_prior():
    x = random_points(K, N)
    mask = np.zeros([K, N], bool)
    mean, stddev = posterior(KERNEL, x, random_observations(N), x, NOISE, mask)
    np.testing.assert_array_equal(mean, np.zeros([K, N]))
    np.testing.assert_allclose(stddev, np.ones([K, N]))


def test_the_posterior_equals_that_of_tfp():
    x, y, observations = random_points(K, N), random_points(K, M, seed=5), random_observations(K, N)
    theirs = tfp.distributions.GaussianProcessRegressionModel(
        KERNEL, y, x, observations, observation_noise_variance=np.float64(NOISE),
        predictive_noise_variance=np.float64(0),
    )  # fmt: skip
    mean, stddev = posterior(KERNEL, x, observations, y, NOISE)
    np.testing.assert_allclose(mean, theirs.mean(), atol=1e-4)
    np.testing.assert_allclose(stddev, theirs.stddev(), atol=1e-4)
