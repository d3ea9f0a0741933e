"""Upper confidence bound: how good a candidate might well be."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tensorflow_probability as tfp


def upper_confidence_bound(
    predictive_distribution: Any, best_observations: Any, *, exploration: float = 2.0
) -> Any:
    """The mean plus some standard deviations.

        score = mean + exploration * stddev

    Args:
        predictive_distribution: Has `mean()` and `stddev()` of shape `[K, M]`.
        best_observations: `[K]`; has no influence.
        exploration: Standard deviations to add, at least 0 (TFP's own default is 0.01).

    Returns:
        Scores `[K, M]`, in units of the objective.

    Sources:
        [1] Srinivas, Krause, Kakade, Seeger. Gaussian Process Optimization in the Bandit
            Setting: No Regret and Experimental Design. ICML 2010.

    Example:
        >>> predictive = tfp.distributions.MultivariateNormalDiag([[0.0, 1.0]], [[1.0, 0.5]])
        >>> upper_confidence_bound(predictive, [0.0]).numpy()
        array([[2., 2.]], dtype=float32)
    """
    best = tf.cast(best_observations, predictive_distribution.dtype)
    return tfp.experimental.bayesopt.acquisition.GaussianProcessUpperConfidenceBound(
        predictive_distribution,
        observations=best[:, tf.newaxis, tf.newaxis],
        exploration=exploration,
    )()
