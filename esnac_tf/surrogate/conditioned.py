"""Some of the kernels, and what they know beside their weights."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from esnac_tf.surrogate import gaussian_process
from esnac_tf.surrogate.observations import SurrogateError


@dataclasses.dataclass(frozen=True, eq=False)
class Conditioned:
    """L kernels with a Gaussian process each that knows observations.

    Attributes:
        kernels: Their numbers.
        kernel: On embeddings.
        noise: The variance of the noise on an observation.
        embedded: What was observed, embedded by each kernel, `[L, N, D]`.
        observations: `[N]`, or `[L, N]` where each kernel has its own.
        subset: Which of them each kernel knows, `[L, N]`.

    Raises:
        SurrogateError: An embedding is not finite.
    """

    kernels: tuple[int, ...]
    kernel: Any
    noise: float
    embedded: npt.NDArray[np.float32]
    observations: npt.NDArray[np.float64]
    subset: npt.NDArray[np.bool_]
    _posterior: gaussian_process.Posterior = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        if not np.isfinite(self.embedded).all():
            raise SurrogateError("An embedding of an architecture is not finite.")
        posterior = gaussian_process.Posterior(
            self.kernel, self.embedded, self.observations, self.noise, mask=self.subset
        )
        object.__setattr__(self, "_posterior", posterior)

    @property
    def best(self) -> npt.NDArray[np.float64]:
        """The highest observation that each kernel knows, `[L]`."""
        return np.max(np.where(self.subset, self.observations, -np.inf), axis=-1)

    def predict(self, embedded: npt.NDArray[np.float32]) -> tuple[Any, Any]:
        """Mean and standard deviation, `[L, M]` each, of candidates embedded, `[L, M, D]`."""
        return self._posterior.predict(embedded)

    def believing(self, embedded: npt.NDArray[np.float32]) -> Conditioned:
        """The same with candidates, embedded `[L, M, D]`, observed as they are predicted.

        Raises:
            SurrogateError: An embedding is not finite.
        """
        mean, _ = self.predict(embedded)
        known = np.broadcast_to(self.observations, self.subset.shape)
        return dataclasses.replace(
            self,
            embedded=np.concatenate([self.embedded, embedded], axis=1),
            observations=np.concatenate([known, mean], axis=1),
            subset=np.concatenate([self.subset, np.ones(mean.shape, np.bool_)], axis=1),
        )
