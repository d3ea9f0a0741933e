"""K learned kernels with a Gaussian process each: fit to trials, predict candidates."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tensorflow_probability as tfp

from esnac_tf.surrogate import gaussian_process
from esnac_tf.surrogate.adam import PerKernelAdam
from esnac_tf.surrogate.config import SurrogateConfig
from esnac_tf.surrogate.embedding import SequenceEmbedding
from esnac_tf.surrogate.fit_report import FitReport
from esnac_tf.surrogate.kernel import ArchitectureKernel
from esnac_tf.surrogate.observations import (
    ObservedArchitectures,
    SurrogateError,
    check_candidates,
    check_observations,
    draw_subset,
)

tfd = tfp.distributions


@dataclasses.dataclass(frozen=True)
class _Conditioned:
    """What predictions depend on beside the weights."""

    posterior: gaussian_process.Posterior
    observations: npt.NDArray[np.float64]
    subset: npt.NDArray[np.bool_]


class Surrogate(tf.Module):
    """K kernels on learned embeddings, each trained on its own random half of the observations.

    `fit` maximises, for each kernel by itself,

        mean([log_p(observations[i] | observations of the subset but i) for i in subset])

    over the weights of its embedding (see `leave_one_out_log_likelihood`), then `predict` gives K
    Gaussian process posteriors. Their prior has mean 0 and variance 1, and observations are taken
    as they are. The search gives the paper's objective raw, with 0 for the teacher [1]: so far
    from all observations a student is expected to be as good as the teacher, which gains nothing,
    and objectives, mostly between 0 and 1, vary less than the prior allows, so that what was not
    tried looks worth trying. Observations on another scale should be standardised first.

    A subset is gathered before training rather than masked in it, since the time is that of the
    LSTMs and grows with the number of sequences: half the data, half the time. Functions are
    traced once, for any N, M and T.

    Kernels learned on one teacher serve for another with the same F (any T): call `condition`.
    Save them with `tf.train.Checkpoint(embedding=surrogate.embedding)`.

    Args:
        num_features: F, the width of an encoding's rows; at least 1.
        config: Sizes and training settings.
        chunk_size: Sequences embedded at a time in `predict`, which bounds its memory; at least 1.
        columns: Whole numbers `[C]` below F: all encodings hold these features alone, `[..., C]`
            in the place of F, as the others are zero in all of them. There are weights for all F
            even so, and results are the same. None: all of them.
        name: Name of the module.

    Raises:
        ValueError: A size is below 1.

    Sources:
        [1] Cao, Wang, Kitani. Learnable Embedding Space for Efficient Neural Architecture
            Compression. ICLR 2019, section 3.

    Example:
        >>> config = SurrogateConfig(num_kernels=2, num_layers=1, hidden_size=4, max_steps=3)
        >>> surrogate = Surrogate(num_features=5, config=config)
        >>> encodings = np.random.default_rng(0).random([10, 6, 5], np.float32)  # [N, T, F]
        >>> report = surrogate.fit(encodings, encodings.mean(axis=(1, 2)), seed=0)
        >>> report.num_steps
        (3, 3)
        >>> predictive = surrogate.predict(encodings[:4])
        >>> predictive.mean().shape, predictive.stddev().shape  # [K, M]
        (TensorShape([2, 4]), TensorShape([2, 4]))
        >>> surrogate.best_observations.shape  # [K]
        (2,)
    """

    def __init__(
        self,
        num_features: int,
        config: SurrogateConfig | None = None,
        chunk_size: int = 128,
        columns: npt.ArrayLike | None = None,
        name: str = "surrogate",
    ) -> None:
        super().__init__(name=name)
        if chunk_size < 1:
            raise ValueError(f"chunk_size must be at least 1, received {chunk_size}.")
        self.config = config or SurrogateConfig()
        self.chunk_size = chunk_size
        self.embedding = SequenceEmbedding(
            num_kernels=self.config.num_kernels,
            num_features=num_features,
            num_layers=self.config.num_layers,
            hidden_size=self.config.hidden_size,
        )
        self.kernel = ArchitectureKernel(self.embedding, length_scale=self.config.length_scale)
        self._optimizer = PerKernelAdam(
            self.embedding.trainable_variables,
            learning_rate=self.config.learning_rate,
            weight_decay=self.config.weight_decay,
        )
        self._columns = None if columns is None else np.asarray(columns, np.int64)
        self._num_columns = num_features if self._columns is None else len(self._columns)
        num_kernels, own = self.config.num_kernels, [None, None, self._num_columns]

        def spec(shape: Sequence[int | None], dtype: Any) -> Any:
            return tf.TensorSpec(shape, dtype)

        # Functions of this object, so that they hold its variables and are freed with it.
        self._traced_fit_step = tf.function(
            self._fit_step,
            input_signature=[
                spec([num_kernels, *own], tf.float32),
                spec([num_kernels, None], tf.float64),
                spec([num_kernels, None], tf.bool),
                spec([], tf.int32),
                spec([num_kernels], tf.float64),
                spec([num_kernels], tf.bool),
            ],
        )
        self._traced_embed = tf.function(self._embed, input_signature=[spec(own, tf.float32)])
        self._traced_embed_own = tf.function(
            self._embed, input_signature=[spec([num_kernels, *own], tf.float32)]
        )
        self._conditioned: _Conditioned | None = None

    @property
    def num_traces(self) -> int:
        """How often a function was traced so far: once each at most."""
        functions = (self._traced_fit_step, self._traced_embed, self._traced_embed_own)
        return sum(function.experimental_get_tracing_count() for function in functions)

    @property
    def best_observations(self) -> npt.NDArray[np.float64]:
        """The highest observation in each kernel's own subset, `[K]`.

        Raises:
            RuntimeError: Nothing was fitted yet.
        """
        conditioned = self._require_conditioned()
        observations = np.where(conditioned.subset, conditioned.observations, -np.inf)
        return np.max(observations, axis=-1)

    @property
    def subset(self) -> npt.NDArray[np.bool_]:
        """Which of the observations last given are in each kernel's own subset, `[K, N]`.

        Raises:
            RuntimeError: Nothing was fitted yet.
        """
        conditioned = self._require_conditioned()
        return conditioned.subset.copy()

    def fit(
        self,
        encodings: npt.ArrayLike,
        observations: npt.ArrayLike,
        seed: int,
    ) -> FitReport:
        """Trains all kernels anew, each on its own random subset, and conditions on it.

        A kernel stops, and its weights stay, when its log likelihood is nearer than `tolerance`
        to its running mean after more than `min_steps` steps.

        Args:
            encodings: Floats `[N, T, F]`, N at least 1.
            observations: `[N]`, higher is better.
            seed: Seed of initial weights and subsets, a non-negative integer. On one machine
                equal seeds and data give equal results.

        Returns:
            How training went.

        Raises:
            ValueError: Shapes don't fit.
            SurrogateError: Data, log likelihood or embeddings are not finite.
        """
        start = time.perf_counter()
        data = check_observations(encodings, observations, self._num_columns)
        weights_seed, subset_seed = np.random.SeedSequence(seed).generate_state(2)
        self._conditioned = None
        self.embedding.reinitialize(int(weights_seed))
        subset = self._draw_subset(data, int(subset_seed))
        initial, final, num_steps = self._train(data, subset)
        self._condition(data, subset)
        return FitReport(
            initial_log_likelihoods=tuple(float(value) for value in initial),
            final_log_likelihoods=tuple(float(value) for value in final),
            num_steps=tuple(int(count) for count in num_steps),
            subset_sizes=tuple(int(size) for size in subset.sum(axis=-1)),
            duration_secs=time.perf_counter() - start,
        )

    def condition(
        self,
        encodings: npt.ArrayLike,
        observations: npt.ArrayLike,
        seed: int,
    ) -> None:
        """Draws new subsets and conditions on them, with the kernels as they are.

        It is `fit` without training: for kernels learned while compressing another teacher.

        Args:
            encodings: Floats `[N, T, F]`, N at least 1.
            observations: `[N]`, higher is better.
            seed: Seed of the subsets; the subsets are those of `fit` with the same seed.

        Raises:
            ValueError: Shapes don't fit.
            SurrogateError: Data or embeddings are not finite.

        Example:
            >>> config = SurrogateConfig(num_kernels=2, num_layers=1, hidden_size=4)
            >>> surrogate = Surrogate(num_features=5, config=config)
            >>> surrogate.condition(np.ones([1, 6, 5]), [0.0], seed=0)
            >>> surrogate.best_observations
            array([0., 0.])
        """
        data = check_observations(encodings, observations, self._num_columns)
        _, subset_seed = np.random.SeedSequence(seed).generate_state(2)
        self._conditioned = None
        self._condition(data, self._draw_subset(data, int(subset_seed)))

    def predict(self, candidates: npt.ArrayLike) -> Any:
        """Predicts the noise-free objective of each candidate by itself.

        Args:
            candidates: Floats `[M, T, F]`, predicted by all kernels, or `[K, M, T, F]`, each
                kernel's own. M is at least 1.

        Returns:
            A `tfd.MultivariateNormalDiag` in float64 of batch shape `[K]` and event shape `[M]`:
            `mean()` and `stddev()` are `[K, M]`, and stddev is above 0. It holds marginals;
            candidates are not correlated in it.

        Raises:
            RuntimeError: Nothing was fitted yet.
            ValueError: Shapes don't fit.
            SurrogateError: Candidates or predictions are not finite.
        """
        conditioned = self._require_conditioned()
        candidates = check_candidates(candidates, self.config.num_kernels, self._num_columns)
        predicted = [conditioned.posterior.predict(e) for e in self._embed_chunks(candidates)]
        mean, stddev = (tf.concat(parts, axis=-1) for parts in zip(*predicted, strict=True))
        if not (np.isfinite(mean).all() and np.isfinite(stddev).all()):
            raise SurrogateError("A prediction is not finite; check the candidates' encodings.")
        return tfd.MultivariateNormalDiag(loc=mean, scale_diag=stddev)

    def _draw_subset(self, data: ObservedArchitectures, seed: int) -> npt.NDArray[np.bool_]:
        config = self.config
        return draw_subset(
            config.num_kernels, len(data.observations), config.subset_probability, seed
        )

    def _train(
        self, data: ObservedArchitectures, subset: npt.NDArray[np.bool_]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        num_kernels = self.config.num_kernels
        sizes = subset.sum(axis=-1)
        width = int(sizes.max())
        exists = np.arange(width) < sizes[:, np.newaxis]  # [K, width]
        # A stable sort of "not in the subset" puts its members first, in their order.
        members = np.argsort(~subset, axis=-1, kind="stable")[:, :width]
        inputs = (
            tf.constant(data.encodings[members]),
            tf.constant(data.observations[members]),
            tf.constant(exists),
        )
        self._optimizer.reset()
        running = tf.zeros([num_kernels], tf.float64)
        active = tf.ones([num_kernels], tf.bool)
        first = latest = np.full(num_kernels, np.nan)
        num_steps = np.zeros(num_kernels, np.int64)
        for step in range(1, self.config.max_steps + 1):
            log_likelihood, running, active = self._traced_fit_step(
                *inputs, tf.constant(step), running, active
            )
            latest = log_likelihood.numpy()
            if not np.isfinite(latest).all():
                raise SurrogateError(
                    f"The log likelihood of kernel {int(np.argmin(np.isfinite(latest)))} "
                    f"was not finite in training step {step}."
                )
            first = latest if step == 1 else first
            num_steps += active.numpy()
            if not active.numpy().any():
                break
        return first, latest, num_steps

    def _fit_step(
        self,
        encodings: Any,
        observations: Any,
        exists: Any,
        step: Any,
        running: Any,
        active: Any,
    ) -> tuple[Any, Any, Any]:
        """Evaluates all kernels, decides which go on, and moves those."""
        config = self.config
        variables = self.embedding.trainable_variables
        with tf.GradientTape() as tape:
            embedded = tf.cast(self._embed(encodings), tf.float64)
            log_likelihood = gaussian_process.leave_one_out_log_likelihood(
                self.kernel.on_embeddings().matrix(embedded, embedded),
                observations,
                config.observation_noise_variance,
                mask=exists,
            )
            # No kernel has a part in another's likelihood, so the sum trains each by itself.
            loss = -tf.reduce_sum(log_likelihood)
        gradients = tape.gradient(loss, variables)
        settled = tf.abs(log_likelihood - running) < config.tolerance
        active &= ~(settled & (step > config.min_steps))
        weight = tf.where(step > 1, tf.cast(config.running_mean_weight, tf.float64), 0.0)
        running = weight * running + (1.0 - weight) * log_likelihood
        self._optimizer.apply(gradients, active)
        return log_likelihood, running, active

    def _condition(self, data: ObservedArchitectures, subset: npt.NDArray[np.bool_]) -> None:
        embedded = tf.concat(list(self._embed_chunks(data.encodings)), axis=1)
        if not np.isfinite(embedded).all():
            raise SurrogateError("An embedding of the observed architectures is not finite.")
        posterior = gaussian_process.Posterior(
            self.kernel.on_embeddings(),
            embedded,
            data.observations,
            self.config.observation_noise_variance,
            mask=subset,
        )
        self._conditioned = _Conditioned(posterior, data.observations, subset)

    def _embed_chunks(self, sequences: npt.NDArray[np.float32]) -> Iterator[Any]:
        """Embeddings `[K, at most chunk_size, D]` of sequences `[N, T, C]` or `[K, N, T, C]`."""
        axis = sequences.ndim - 3
        embed = self._traced_embed_own if axis else self._traced_embed
        for start in range(0, sequences.shape[axis], self.chunk_size):
            part = (slice(None),) * axis + (slice(start, start + self.chunk_size),)
            yield embed(tf.constant(sequences[part]))

    def _embed(self, sequences: Any) -> Any:
        return self.embedding(sequences, self._columns)

    def _require_conditioned(self) -> _Conditioned:
        if self._conditioned is None:
            raise RuntimeError("The surrogate holds no observations yet; call fit() first.")
        return self._conditioned
