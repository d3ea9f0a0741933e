"""Expected improvement: how far above the best observation a candidate is expected to come."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tensorflow_probability as tfp


def expected_improvement(
    predictive_distribution: Any, best_observations: Any, *, exploration: float = 0.0
) -> Any:
    """The mean of max(f - best_observation - exploration, 0) for a normal f, in closed form.

        improvement = mean - best_observations[:, None] - exploration
        z = improvement / stddev
        score = improvement * norm.cdf(z) + stddev * norm.pdf(z)

    Args:
        predictive_distribution: Has `mean()` and `stddev()` of shape `[K, M]`, stddev above 0.
        best_observations: `[K]`.
        exploration: Improvement that is not counted, in units of the objective; at least 0. The
            paper has 0 (TFP's own default is 0.01).

    Returns:
        Scores `[K, M]`, at least 0 (down to rounding, 1e-16).

    Sources:
        [1] Jones, Schonlau, Welch. Efficient Global Optimization of Expensive Black-Box
            Functions. Journal of Global Optimization 13, 1998, equation 15.

    Example:
        >>> predictive = tfp.distributions.MultivariateNormalDiag([[0.0, 1.0]], [[1.0, 1.0]])
        >>> expected_improvement(predictive, [0.0]).numpy().round(4)
        array([[0.3989, 1.0833]], dtype=float32)
    """
    best = tf.cast(best_observations, predictive_distribution.dtype)
    return tfp.experimental.bayesopt.acquisition.GaussianProcessExpectedImprovement(
        predictive_distribution,
        # TFP takes the maximum over the last axis, and broadcasts what is left to [K, M].
        observations=best[:, tf.newaxis, tf.newaxis],
        exploration=exploration,
    )()
