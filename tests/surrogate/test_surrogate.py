"""Surrogate: what it learns, what it predicts, and that nothing breaks it."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from esnac_tf import acquisitions
from esnac_tf.errors import UserError
from esnac_tf.surrogate import Surrogate, SurrogateConfig, SurrogateError
from esnac_tf.surrogate.gaussian_process import leave_one_out_log_likelihood

K, T, F, H = 3, 6, 12, 8
CONFIG = SurrogateConfig(num_kernels=K, num_layers=1, hidden_size=H, max_steps=3)


def random_data(num_observations, seed=0, length=T):
    generator = np.random.default_rng(seed)
    encodings = generator.random([num_observations, length, F]).astype(np.float32)
    encodings *= generator.random([num_observations, 1, 1]).astype(np.float32)
    return encodings, encodings.mean(axis=(1, 2)).astype(np.float64) * 4 - 1


@pytest.fixture(scope="module")
def surrogate():
    """Shared, so that it compiles once; each test fits it anew."""
    return Surrogate(F, CONFIG, chunk_size=7)


@pytest.fixture(scope="module")
def trained():
    """One that trains until its kernels stop."""
    config = dataclasses.replace(CONFIG, max_steps=60, tolerance=0.01, learning_rate=0.01)
    surrogate = Surrogate(F, config)
    report = surrogate.fit(*random_data(30), seed=3)
    return surrogate, report


def weights_of(surrogate, k):
    return [variable.numpy()[k] for variable in surrogate.embedding.trainable_variables]


def test_training_raises_the_likelihood_of_every_kernel(trained):
    _, report = trained
    gains = np.subtract(report.final_log_likelihoods, report.initial_log_likelihoods)
    assert (gains > 0.1).all()
    assert report.duration_secs > 0


def test_reported_likelihoods_are_those_of_the_final_weights(trained):
    surrogate, report = trained
    encodings, observations = random_data(30)
    embedded = tf.cast(surrogate.embedding(encodings), tf.float64)
    gram = surrogate.kernel.on_embeddings().matrix(embedded, embedded)
    actual = leave_one_out_log_likelihood(gram, observations, 0.05, surrogate.subset)
    stopped = np.array(report.num_steps) < 60
    assert stopped.any()
    np.testing.assert_allclose(
        actual.numpy()[stopped], np.array(report.final_log_likelihoods)[stopped], atol=1e-4
    )


def test_a_stopped_kernel_is_frozen_while_others_go_on(trained):
    surrogate, report = trained
    first = int(np.argmin(report.num_steps))
    assert 6 <= report.num_steps[first] < max(report.num_steps)
    capped = Surrogate(
        F,
        dataclasses.replace(surrogate.config, max_steps=report.num_steps[first], tolerance=0.0),
    )
    assert capped.fit(*random_data(30), seed=3).num_steps == (report.num_steps[first],) * K
    for actual, expected in zip(
        weights_of(surrogate, first), weights_of(capped, first), strict=True
    ):
        np.testing.assert_array_equal(actual, expected)
    last = int(np.argmax(report.num_steps))
    assert not np.allclose(weights_of(surrogate, last)[0], weights_of(capped, last)[0])


def test_training_helps_to_predict_what_was_not_seen(trained):
    surrogate, _ = trained
    candidates, truth = random_data(40, seed=8)
    mean = surrogate.predict(candidates).mean().numpy().mean(axis=0)
    assert np.corrcoef(mean, truth)[0, 1] > 0.8


@pytest.mark.parametrize("num_kernels", [1, K])
def test_predictions_and_expected_improvement_equal_the_numpy_reference(num_kernels):
    surrogate = Surrogate(F, dataclasses.replace(CONFIG, num_kernels=num_kernels), chunk_size=7)
    encodings, observations = random_data(20)
    candidates, _ = random_data(9, seed=1)
    surrogate.fit(encodings, observations, seed=1)
    predictive = surrogate.predict(candidates)
    x, y = (np.asarray(surrogate.embedding(e), np.float64) for e in (encodings, candidates))

    def gram(a, b):
        return np.exp(-((a[:, np.newaxis] - b[np.newaxis]) ** 2).sum(-1) / 0.02)

    assert (predictive.batch_shape, predictive.event_shape) == ([num_kernels], [9])
    scores = acquisitions.get("expected_improvement")(predictive, surrogate.best_observations)
    assert scores.shape == [num_kernels, 9]
    normal_cdf = np.vectorize(lambda z: 0.5 * math.erfc(-z / math.sqrt(2)))
    for k in range(num_kernels):
        own = surrogate.subset[k]
        inverse = np.linalg.inv(gram(x[k][own], x[k][own]) + 0.05 * np.eye(own.sum()))
        cross = gram(y[k], x[k][own])
        mean = cross @ inverse @ observations[own]
        variance = 1 - np.einsum("mn,nl,ml->m", cross, inverse, cross)
        np.testing.assert_allclose(predictive.mean()[k], mean, atol=1e-4)
        np.testing.assert_allclose(predictive.stddev()[k] ** 2, variance, atol=1e-4)
        gain, stddev = mean - observations[own].max(), np.sqrt(variance)
        density = np.exp(-((gain / stddev) ** 2) / 2) / math.sqrt(2 * math.pi)
        np.testing.assert_allclose(
            scores[k], gain * normal_cdf(gain / stddev) + stddev * density, atol=1e-4
        )


def test_chunks_and_own_candidates_change_nothing(surrogate):
    surrogate.fit(*random_data(10), seed=0)
    candidates, _ = random_data(17, seed=1)
    expected = surrogate.predict(candidates)
    separately = [surrogate.predict(candidates[i : i + 1]).mean() for i in range(17)]
    np.testing.assert_allclose(tf.concat(separately, axis=-1), expected.mean(), atol=1e-5)
    own = surrogate.predict(np.broadcast_to(candidates, [K, *candidates.shape]))
    np.testing.assert_allclose(own.mean(), expected.mean(), atol=1e-5)
    np.testing.assert_allclose(own.stddev(), expected.stddev(), atol=1e-5)
    shifted = np.stack([np.roll(candidates, k, axis=0) for k in range(K)])
    for k, mean in enumerate(surrogate.predict(shifted).mean()):
        np.testing.assert_allclose(mean, np.roll(expected.mean()[k], k), atol=1e-5)


def test_features_that_are_always_zero_may_be_left_out(surrogate):
    columns = [1, 2, 5, 7, 11]
    (few, observations), (candidates, _) = random_data(10), random_data(4, seed=1)
    few, candidates = few[..., columns], candidates[..., columns]

    def whole(encodings):
        filled = np.zeros([*encodings.shape[:-1], F], np.float32)
        filled[..., columns] = encodings
        return filled

    surrogate.fit(whole(few), observations, seed=2)
    expected = surrogate.predict(whole(candidates)).mean()
    other = Surrogate(F, CONFIG, columns=columns)
    other.fit(few, observations, seed=2)
    np.testing.assert_allclose(other.predict(candidates).mean(), expected, atol=1e-4)
    own = other.predict(np.stack([candidates] * K))
    np.testing.assert_allclose(own.mean(), expected, atol=1e-4)
    for actual, value in zip(weights_of(other, 0), weights_of(surrogate, 0), strict=True):
        np.testing.assert_allclose(actual, value, atol=1e-5)


def test_functions_are_traced_once():
    surrogate = Surrogate(F, CONFIG, chunk_size=8)
    for num_observations in (1, 2, 9, 17, 48):
        encodings, observations = random_data(num_observations)
        surrogate.fit(encodings, observations, seed=num_observations)
        surrogate.predict(encodings)
        surrogate.predict(np.stack([encodings] * K))
        assert surrogate.num_traces == 2  # Training, embedding.
    surrogate.condition(*random_data(5, length=T + 3), seed=0)  # Another teacher.
    assert surrogate.num_traces == 2


def test_nothing_is_warned_of_while_observations_grow(caplog):
    surrogate = Surrogate(F, CONFIG)
    with caplog.at_level("WARNING", logger="tensorflow"):
        for num_observations in range(8, 120, 16):  # each its own shape
            surrogate.condition(*random_data(num_observations), seed=0)
            surrogate.predict(random_data(8)[0])
    assert not caplog.records


def test_equal_seeds_give_equal_predictions_and_others_do_not(surrogate):
    data, candidates = random_data(12), random_data(4, seed=1)[0]
    means = []
    for seed in (5, 6, 5):
        surrogate.fit(*data, seed=seed)
        means.append(surrogate.predict(candidates).mean().numpy())
    np.testing.assert_array_equal(means[0], means[2])
    assert not np.allclose(means[0], means[1])


def test_subsets_are_random_halves(surrogate):
    draws = []
    for seed in range(10):
        surrogate.condition(*random_data(40), seed=seed)
        draws.append(surrogate.subset)
    draws = np.concatenate(draws)
    assert draws.shape == (10 * K, 40)
    assert abs(draws.mean() - 0.5) < 0.05
    assert len(np.unique(draws, axis=0)) == len(draws)


@pytest.mark.parametrize(("probability", "smallest", "largest"), [(0.0, 2, 2), (1.0, 9, 9)])
def test_subsets_at_the_ends_of_the_range(probability, smallest, largest):
    surrogate = Surrogate(F, dataclasses.replace(CONFIG, subset_probability=probability))
    surrogate.condition(*random_data(9), seed=0)
    sizes = surrogate.subset.sum(axis=-1)
    assert (sizes.min(), sizes.max()) == (smallest, largest)


@pytest.mark.parametrize("num_observations", [1, 2])
def test_very_few_observations_are_all_used(surrogate, num_observations):
    encodings, observations = random_data(num_observations)
    report = surrogate.fit(encodings, observations, seed=0)
    assert report.subset_sizes == (num_observations,) * K
    assert np.isfinite(surrogate.predict(encodings).mean()).all()


def test_best_observations_are_those_of_the_subset(surrogate):
    _, observations = random_data(12)
    surrogate.fit(random_data(12)[0], observations - 5, seed=2)
    expected = [(observations - 5)[subset].max() for subset in surrogate.subset]
    np.testing.assert_array_equal(surrogate.best_observations, expected)
    assert surrogate.best_observations.shape == (K,)


def test_what_is_believed_lowers_uncertainty_alone(surrogate):
    encodings, observations = random_data(12)
    surrogate.fit(encodings, observations, seed=0)
    pending, _ = random_data(4, seed=5)
    candidates = np.concatenate([pending, random_data(6, seed=6)[0]])
    before, best = surrogate.predict(candidates), surrogate.best_observations
    surrogate.believe(pending[:1])
    surrogate.believe(pending)
    after = surrogate.predict(candidates)
    np.testing.assert_allclose(after.mean(), before.mean(), atol=1e-9)
    assert (after.stddev().numpy() <= before.stddev().numpy() + 1e-12).all()
    assert (after.stddev().numpy()[:, :4] < before.stddev().numpy()[:, :4]).all()
    believed = before.mean().numpy()[:, :4].max(axis=1)
    np.testing.assert_allclose(surrogate.best_observations, np.maximum(best, believed))
    assert surrogate.subset.shape == (K, 12)
    # As if the pending ones had been observed with what was predicted, by each kernel.
    noise = CONFIG.observation_noise_variance
    for kernel in range(K):
        own = surrogate.subset[kernel]
        points = np.concatenate([encodings[own], pending, candidates])
        embedded = tf.cast(surrogate.embedding(points), tf.float64)
        gram = surrogate.kernel.on_embeddings().matrix(embedded, embedded).numpy()[kernel]
        known = int(own.sum()) + 4
        inverse = np.linalg.inv(gram[:known, :known] + noise * np.eye(known))
        cross = gram[known:, :known]
        variance = np.diag(gram)[known:] - np.sum(cross @ inverse * cross, axis=1)
        np.testing.assert_allclose(after.stddev().numpy()[kernel] ** 2, variance, atol=1e-6)
    surrogate.believe(pending[:0])
    np.testing.assert_allclose(surrogate.predict(candidates).stddev(), before.stddev())
    np.testing.assert_array_equal(surrogate.best_observations, best)


@pytest.mark.parametrize("name", ["expected_improvement", "probability_of_improvement"])
def test_less_is_expected_of_what_is_evaluated_already(surrogate, name):
    """Even where it is believed to be better than all that is known."""
    surrogate.condition(random_data(12)[0], np.full(12, -1.0), seed=0)
    pending, _ = random_data(1, seed=5)
    score = acquisitions.get(name)
    predictive, best = surrogate.predict(pending), surrogate.best_observations
    assert (predictive.mean().numpy()[:, 0] > best).all()
    before = score(predictive, best)
    surrogate.believe(pending)
    after = score(surrogate.predict(pending), surrogate.best_observations)
    assert (after.numpy() < before.numpy()).all()


@pytest.mark.parametrize("case", ["one", "constant", "duplicates"])
def test_beliefs_of_awkward_data_are_finite(surrogate, case):
    encodings, observations = random_data(1 if case == "one" else 8)
    if case == "constant":
        observations = np.zeros_like(observations)
    surrogate.fit(encodings, observations, seed=0)
    surrogate.believe(np.repeat(encodings[:1], 3, axis=0) if case == "duplicates" else encodings)
    assert np.isfinite(surrogate.predict(encodings).stddev()).all()


@pytest.mark.parametrize("case", ["duplicates", "constant", "zeros"])
def test_awkward_data_are_no_error(surrogate, case):
    encodings, observations = random_data(10)
    if case == "duplicates":
        encodings[1:] = encodings[0]
    elif case == "constant":
        observations[:] = 0.7
    else:
        encodings[:] = 0
    report = surrogate.fit(encodings, observations, seed=0)
    assert np.isfinite(report.final_log_likelihoods).all()
    predictive = surrogate.predict(encodings)
    assert np.isfinite(predictive.mean()).all()
    assert (predictive.stddev().numpy() > 0).all()


def test_no_gradient_is_none(surrogate):
    encodings, observations = random_data(10)
    assert len(surrogate.trainable_variables) == 3
    with tf.GradientTape() as tape:
        embedded = tf.cast(surrogate.embedding(encodings), tf.float64)
        gram = surrogate.kernel.on_embeddings().matrix(embedded, embedded)
        value = leave_one_out_log_likelihood(gram, observations)
    gradients = tape.gradient(value, surrogate.trainable_variables)
    assert all(gradient is not None and np.any(gradient) for gradient in gradients)


def test_condition_keeps_the_kernels_and_draws_the_subsets_of_fit(surrogate):
    surrogate.fit(*random_data(12), seed=4)
    subset, before = surrogate.subset, weights_of(surrogate, 0)
    expected = surrogate.predict(random_data(3)[0]).mean()
    surrogate.condition(*random_data(12), seed=4)
    np.testing.assert_array_equal(surrogate.subset, subset)
    np.testing.assert_array_equal(surrogate.predict(random_data(3)[0]).mean(), expected)
    surrogate.condition(*random_data(5, seed=9, length=T + 3), seed=4)  # Another teacher.
    for actual, value in zip(weights_of(surrogate, 0), before, strict=True):
        np.testing.assert_array_equal(actual, value)


def test_kernels_go_through_a_checkpoint(surrogate, tmp_path):
    surrogate.fit(*random_data(8), seed=0)
    path = tf.train.Checkpoint(embedding=surrogate.embedding).write(str(tmp_path / "kernels"))
    other = Surrogate(F, CONFIG)
    tf.train.Checkpoint(embedding=other.embedding).read(path).assert_consumed()
    for actual, expected in zip(weights_of(other, 1), weights_of(surrogate, 1), strict=True):
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_data_that_are_not_finite_are_a_surrogate_error(surrogate, value):
    encodings, observations = random_data(6)
    observations[3] = value
    with pytest.raises(SurrogateError, match=f"Observation 3 is {value}"):
        surrogate.fit(encodings, observations, seed=0)
    encodings[2, 1, 1] = value
    with pytest.raises(SurrogateError, match="Encoding 2"):
        surrogate.fit(encodings, random_data(6)[1], seed=0)


def test_a_bad_fit_is_a_surrogate_error_and_the_next_fit_is_good(surrogate):
    encodings, observations = random_data(6)
    with pytest.raises(SurrogateError, match="log likelihood"):
        surrogate.fit(encodings, observations * 1e200, seed=0)  # Its square overflows.
    with pytest.raises(RuntimeError, match="fit"):
        surrogate.predict(encodings)
    surrogate.fit(encodings, observations, seed=0)
    assert np.isfinite(surrogate.predict(encodings).mean()).all()
    with pytest.raises(SurrogateError, match="prediction"):
        surrogate.predict(np.full([1, T, F], np.nan))


def test_a_warm_start_goes_on_from_the_weights_of_the_last_fit():
    surrogate = Surrogate(F, dataclasses.replace(CONFIG, warm_steps=2, tolerance=0.0))
    surrogate.fit(*random_data(12), seed=0)
    before = weights_of(surrogate, 1)
    report = surrogate.fit(*random_data(16), seed=1, warm_start=True)
    assert report.num_steps == (2,) * K
    moved = [np.abs(a - b).max() for a, b in zip(weights_of(surrogate, 1), before, strict=True)]
    assert 0 < max(moved) < 0.01  # two steps of Adam, 0.001 each
    surrogate.fit(*random_data(16), seed=1)
    assert not np.allclose(weights_of(surrogate, 1)[1], before[1], atol=0.01)


@pytest.mark.parametrize("kernels", [[1], [2, 0]])
def test_some_kernels_come_out_as_if_all_were_fitted(kernels):
    data, candidates = random_data(16), random_data(5, seed=9)[0]
    everything, some = Surrogate(F, CONFIG), Surrogate(F, CONFIG)
    everything.fit(*random_data(12), seed=0)
    some.fit(*random_data(12), seed=0)
    before = [weights_of(some, kernel) for kernel in range(K)]
    report, expected = some.fit(*data, seed=1, kernels=kernels), everything.fit(*data, seed=1)
    assert report.subset_sizes == tuple(np.array(expected.subset_sizes)[kernels])
    assert report.final_log_likelihoods == tuple(np.array(expected.final_log_likelihoods)[kernels])
    for kernel in set(range(K)) - set(kernels):
        for old, new in zip(before[kernel], weights_of(some, kernel), strict=True):
            np.testing.assert_array_equal(old, new)
    for surrogate in (some, everything):
        surrogate.believe(candidates[:2])
    for own in (candidates, np.stack([candidates] * len(kernels))):
        predicted, of_all = some.predict(own), everything.predict(candidates)
        np.testing.assert_array_equal(predicted.mean(), of_all.mean().numpy()[kernels])
        np.testing.assert_array_equal(predicted.stddev(), of_all.stddev().numpy()[kernels])
    np.testing.assert_array_equal(some.best_observations, everything.best_observations[kernels])
    np.testing.assert_array_equal(some.subset, everything.subset[kernels])


def test_without_training_steps_the_initial_kernels_predict():
    surrogate = Surrogate(F, dataclasses.replace(CONFIG, max_steps=0))
    report = surrogate.fit(*random_data(6), seed=0)
    assert report.num_steps == (0,) * K
    assert surrogate.predict(random_data(2)[0]).mean().shape == [K, 2]


def test_nothing_is_predicted_before_a_fit():
    surrogate = Surrogate(F, CONFIG)
    for use in (
        lambda: surrogate.predict(random_data(1)[0]),
        lambda: surrogate.best_observations,
        lambda: surrogate.subset,
    ):
        with pytest.raises(RuntimeError, match="fit"):
            use()


@pytest.mark.parametrize(
    ("encodings", "observations", "message"),
    [
        ([4, T, F + 1], [4], "encodings"),
        ([T, F], [4], "encodings"),
        ([0, T, F], [0], "encodings"),
        ([4, T, F], [5], "observations"),
        ([4, T, F], [4, 1], "observations"),
    ],
)
def test_wrong_shapes_are_refused(surrogate, encodings, observations, message):
    with pytest.raises(ValueError, match=message):
        surrogate.fit(np.zeros(encodings), np.zeros(observations), 0)


def test_wrong_candidates_are_refused(surrogate):
    surrogate.condition(*random_data(3), seed=0)
    for shape in ([0, T, F], [T, F], [2, T, F + 1], [K + 1, 2, T, F]):
        with pytest.raises(ValueError, match="candidates must be"):
            surrogate.predict(np.zeros(shape))
    with pytest.raises(ValueError, match="chunk_size"):
        Surrogate(F, CONFIG, chunk_size=0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_kernels", 0),
        ("num_layers", 0),
        ("hidden_size", 0),
        ("length_scale", 0.0),
        ("observation_noise_variance", float("nan")),
        ("observation_noise_variance", 0.99e-4),
        ("learning_rate", -1.0),
        ("weight_decay", -1.0),
        ("max_steps", -1),
        ("tolerance", -1e-3),
        ("min_steps", -1),
        ("running_mean_weight", 1.0),
        ("subset_probability", 1.1),
    ],
)
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(UserError, match=name):
        SurrogateConfig(**{name: value})


def test_the_least_noise_is_accepted_and_bears_duplicates():
    surrogate = Surrogate(F, dataclasses.replace(CONFIG, observation_noise_variance=1e-4))
    encodings, observations = random_data(8)
    encodings[1:] = encodings[0]
    report = surrogate.fit(encodings, observations, seed=0)
    assert np.isfinite(report.final_log_likelihoods).all()


def test_the_defaults_are_those_of_the_paper():
    assert SurrogateConfig() == SurrogateConfig(
        8, 4, 64, 0.1, 0.05, 1e-3, 5e-4, 100, 1e-3, 6, 0.5, 0.5
    )


def test_settings_need_no_tensorflow():
    code = (
        "import sys; from esnac_tf.surrogate import SurrogateConfig; SurrogateConfig(); "
        "sys.exit('tensorflow' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_names_of_the_package():
    import esnac_tf.surrogate

    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        esnac_tf.surrogate.nothing  # noqa: B018
