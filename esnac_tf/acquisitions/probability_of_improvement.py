"""Probability of improvement: how likely a candidate is to beat the best observation."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tensorflow_probability as tfp


def probability_of_improvement(predictive_distribution: Any, best_observations: Any) -> Any:
    """The probability that a normal f is above the best observation.

        score = 1 - norm.cdf((best_observations[:, None] - mean) / stddev)

    It counts any improvement alike, so it explores less than expected improvement.

    Args:
        predictive_distribution: Has `mean()` and `stddev()` of shape `[K, M]`, stddev above 0.
        best_observations: `[K]`.

    Returns:
        Scores `[K, M]`, 0 to 1.

    Sources:
        [1] Kushner. A New Method of Locating the Maximum Point of an Arbitrary Multipeak Curve
            in the Presence of Noise. Journal of Basic Engineering 86, 1964.

    Example:
        >>> predictive = tfp.distributions.MultivariateNormalDiag([[0.0, 1.0]], [[1.0, 1.0]])
        >>> probability_of_improvement(predictive, [0.0]).numpy().round(4)
        array([[0.5   , 0.8413]], dtype=float32)
    """
    best = tf.cast(best_observations, predictive_distribution.dtype)
    return tfp.experimental.bayesopt.acquisition.GaussianProcessProbabilityOfImprovement(
        predictive_distribution,
        # TFP takes the maximum over the last axis, and broadcasts what is left to [K, M].
        observations=best[:, tf.newaxis, tf.newaxis],
    )()
