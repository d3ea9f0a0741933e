"""One contract for all acquisition functions, and NumPy references for each."""

from __future__ import annotations

import functools
import math
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import esnac_tf.acquisitions
from esnac_tf import acquisitions
from esnac_tf.errors import UnknownNameError

K, M = 3, 50


def normal(mean, stddev):
    return tfp.distributions.MultivariateNormalDiag(
        loc=tf.convert_to_tensor(mean, tf.float64),
        scale_diag=tf.convert_to_tensor(stddev, tf.float64),
    )


@pytest.fixture(scope="module")
def case():
    generator = np.random.default_rng(0)
    mean = generator.normal(size=[K, M])
    stddev = generator.uniform(1e-3, 2, size=[K, M])
    return mean, stddev, generator.normal(size=K)


@pytest.fixture(params=acquisitions.names())
def acquisition(request):
    return acquisitions.get(request.param)


class TestContract:
    def test_scores_have_the_shape_and_type_of_the_predictions(self, acquisition, case):
        mean, stddev, best = case
        scores = acquisition(normal(mean, stddev), best)
        assert scores.shape == [K, M]
        assert scores.dtype == tf.float64
        assert np.isfinite(scores).all()

    def test_each_kernel_is_scored_by_itself(self, acquisition, case):
        mean, stddev, best = case
        scores = acquisition(normal(mean, stddev), best)
        for k in range(K):
            alone = acquisition(normal(mean[k : k + 1], stddev[k : k + 1]), best[k : k + 1])
            np.testing.assert_allclose(scores[k], alone[0], atol=1e-12)

    def test_each_candidate_is_scored_by_itself(self, acquisition, case):
        mean, stddev, best = case
        scores = acquisition(normal(mean, stddev), best)
        alone = acquisition(normal(mean[:, 3:4], stddev[:, 3:4]), best)
        np.testing.assert_allclose(scores[:, 3:4], alone, atol=1e-12)

    def test_a_higher_mean_is_never_worse(self, acquisition, case):
        mean, stddev, best = case
        lower = acquisition(normal(mean, stddev), best)
        higher = acquisition(normal(mean + 0.1, stddev), best)
        assert (higher - lower > -1e-12).numpy().all()

    def test_extreme_predictions_stay_finite(self, acquisition):
        mean = np.array([[0.0, 0.0, 1e3, -1e3]])
        stddev = np.array([[1e-6, 1e3, 1e-6, 1e-6]])
        assert np.isfinite(acquisition(normal(mean, stddev), [0.0])).all()

    def test_it_can_be_traced_and_differentiated(self, acquisition, case):
        mean, stddev, best = case
        mean = tf.constant(mean)

        @tf.function
        def gradient(mean):
            with tf.GradientTape() as tape:
                tape.watch(mean)
                scores = acquisition(normal(mean, stddev), best)
            return tape.gradient(scores, mean)

        assert np.isfinite(gradient(mean)).all()

    def test_it_is_documented(self, acquisition):
        for part in ("Args:", "Returns:", "Sources:", "Example:", "score = "):
            assert part in acquisition.__doc__


def cdf(x):
    return np.vectorize(lambda value: 0.5 * math.erfc(-value / math.sqrt(2)))(x)


def pdf(x):
    return np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)


@pytest.mark.parametrize("exploration", [0.0, 0.3])
def test_expected_improvement_equals_the_numpy_reference(case, exploration):
    mean, stddev, best = case
    improvement = mean - best[:, np.newaxis] - exploration
    z = improvement / stddev
    scores = functools.partial(acquisitions.get("expected_improvement"), exploration=exploration)(
        normal(mean, stddev), best
    )
    np.testing.assert_allclose(scores, improvement * cdf(z) + stddev * pdf(z), atol=1e-9)
    assert (scores.numpy() > -1e-15).all()


def test_expected_improvement_is_an_expectation():
    draws = np.random.default_rng(0).normal(0.2, 0.7, size=200_000)
    expected = np.maximum(draws - 0.5, 0).mean()
    score = acquisitions.get("expected_improvement")(normal([[0.2]], [[0.7]]), [0.5])
    np.testing.assert_allclose(score, [[expected]], atol=3e-3)


def test_probability_of_improvement_equals_the_numpy_reference(case):
    mean, stddev, best = case
    scores = acquisitions.get("probability_of_improvement")(normal(mean, stddev), best)
    np.testing.assert_allclose(scores, cdf((mean - best[:, np.newaxis]) / stddev), atol=1e-9)


def test_upper_confidence_bound_equals_the_numpy_reference(case):
    mean, stddev, best = case
    function = acquisitions.get("upper_confidence_bound")
    np.testing.assert_allclose(function(normal(mean, stddev), best), mean + 2 * stddev)
    np.testing.assert_allclose(
        function(normal(mean, stddev), best, exploration=0.5), mean + 0.5 * stddev
    )


def test_names_are_the_files_of_the_folder():
    folder = pathlib.Path(esnac_tf.acquisitions.__file__).parent
    assert acquisitions.names() == sorted(
        path.stem for path in folder.glob("*.py") if path.stem != "__init__"
    )


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UnknownNameError) as error:
        acquisitions.get("expected_improvment")
    assert "Did you mean 'expected_improvement'?" in str(error.value)
    assert "upper_confidence_bound" in str(error.value)
    assert "esnac_tf/acquisitions/" in str(error.value)


def test_names_need_no_tensorflow():
    code = (
        "import sys; from esnac_tf import acquisitions; acquisitions.names(); "
        "sys.exit('tensorflow' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
