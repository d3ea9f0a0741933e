"""What a surrogate is given: checked observations, each kernel's subset, checked candidates."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt


class SurrogateError(Exception):
    """The data or the training gave numbers that are not finite: there is nothing to predict with.

    A strategy falls back to random proposals. The surrogate can be fitted again.

    Example:
        >>> raise SurrogateError("Observation 3 is nan.")
        Traceback (most recent call last):
            ...
        esnac_tf.surrogate.observations.SurrogateError: Observation 3 is nan.
    """


@dataclasses.dataclass(frozen=True)
class ObservedArchitectures:
    """What was observed, checked.

    Attributes:
        encodings: Finite floats `[N, T, F]`.
        observations: Finite, `[N]`.
    """

    encodings: npt.NDArray[np.float32]
    observations: npt.NDArray[np.float64]


def check_observations(
    encodings: npt.ArrayLike, observations: npt.ArrayLike, num_features: int
) -> ObservedArchitectures:
    """Observed architectures as arrays that can be computed with.

    Args:
        encodings: Floats `[N, T, F]`, N and T at least 1.
        observations: `[N]`.
        num_features: F.

    Raises:
        ValueError: Shapes don't fit.
        SurrogateError: A number is not finite.

    Example:
        >>> check_observations(np.zeros([2, 4, 3]), [0, 1], num_features=3).observations
        array([0., 1.])
    """
    with np.errstate(over="ignore"):  # What becomes infinite is refused below.
        encodings = np.asarray(encodings, np.float32)
    observations = np.asarray(observations, np.float64)
    if encodings.ndim != 3 or encodings.shape[-1] != num_features or 0 in encodings.shape:
        raise ValueError(
            f"encodings must be [N, T, {num_features}] with N and T at least 1, "
            f"received {encodings.shape}."
        )
    if observations.shape != encodings.shape[:1]:
        raise ValueError(
            f"observations must be [{len(encodings)}], one for each encoding, "
            f"received {observations.shape}."
        )
    if not np.isfinite(observations).all():
        number = int(np.argmin(np.isfinite(observations)))
        raise SurrogateError(f"Observation {number} is {observations[number]}.")
    if not np.isfinite(encodings).all():
        number = int(np.argmin(np.isfinite(encodings).all(axis=(1, 2))))
        raise SurrogateError(f"Encoding {number} holds a number that is not finite.")
    return ObservedArchitectures(encodings, observations)


def check_candidates(
    candidates: npt.ArrayLike, num_kernels: int, num_features: int
) -> npt.NDArray[np.float32]:
    """Candidates as an array that can be computed with.

    Args:
        candidates: Floats `[M, T, F]` or `[K, M, T, F]`, M and T at least 1.
        num_kernels: K.
        num_features: F.

    Raises:
        ValueError: Shapes don't fit.

    Example:
        >>> check_candidates(np.zeros([2, 5, 4, 3]), num_kernels=2, num_features=3).shape
        (2, 5, 4, 3)
    """
    candidates = np.asarray(candidates, np.float32)
    fits = candidates.ndim in (3, 4) and candidates.shape[-1] == num_features
    if not fits or 0 in candidates.shape or candidates.shape[:-3] not in ((), (num_kernels,)):
        raise ValueError(
            f"candidates must be [M, T, {num_features}] or [{num_kernels}, M, T, {num_features}] "
            f"with no dimension of 0, received {candidates.shape}."
        )
    return candidates


def draw_subset(
    num_kernels: int, num_observations: int, probability: float, seed: int
) -> npt.NDArray[np.bool_]:
    """Each kernel's own random subset of the observations.

    Args:
        num_kernels: K.
        num_observations: N.
        probability: Chance of an observation to be in a kernel's subset, 0 to 1.
        seed: Seed of the draws, a non-negative integer.

    Returns:
        Booleans `[K, N]`: each kernel has two observations at least, or all if there are fewer.

    Example:
        >>> draw_subset(2, 3, probability=0.0, seed=0).sum(axis=-1)
        array([2, 2])
    """
    generator = np.random.default_rng(seed)
    draws = generator.random((num_kernels, num_observations))
    subset = draws < probability
    # With fewer than two points there is nothing to leave out; the lowest draws come first.
    lowest = np.argsort(draws, axis=-1)[:, :2]
    np.put_along_axis(subset, lowest, True, axis=-1)
    return subset
