"""K learned kernels with a Gaussian process each: fit to trials, predict candidates."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tensorflow_probability as tfp

from esnac_tf.surrogate import gaussian_process
from esnac_tf.surrogate.adam import adam_state, adam_step
from esnac_tf.surrogate.conditioned import Conditioned
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
from esnac_tf.surrogate.parallel import map_parallel

tfd = tfp.distributions


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

    Of all kernels, or of some: after `fit` of L of the K kernels, their own are the predictions.

    Kernels learned on one teacher serve for another with the same F (any T): call `condition`.
    Save them with `tf.train.Checkpoint(embedding=surrogate.embedding)`.

    Args:
        num_features: F, the width of an encoding's rows; at least 1.
        config: Sizes and training settings.
        chunk_size: Sequences that a core embeds at a time; at least 1.
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
        self._columns = None if columns is None else np.asarray(columns, np.int64)
        self._num_columns = num_features if self._columns is None else len(self._columns)
        number, encodings = tf.TensorSpec([], tf.int32), [None, None, self._num_columns]
        # Functions of this object, so that they hold its variables and are freed with it.
        self._traced_train = tf.function(
            self._train_kernel,
            input_signature=[
                number,
                tf.TensorSpec(encodings, tf.float32),
                tf.TensorSpec([None], tf.float64),
                tf.TensorSpec([], tf.int32),
            ],
        )
        self._traced_embed = tf.function(
            self._embed, input_signature=[number, tf.TensorSpec(encodings, tf.float32)]
        )
        self._conditioned: Conditioned | None = None
        self._believed: Conditioned | None = None  # the same, with what is believed

    @property
    def num_traces(self) -> int:
        """How often a function was traced so far: once each at most."""
        functions = (self._traced_train, self._traced_embed)
        return sum(function.experimental_get_tracing_count() for function in functions)

    @property
    def best_observations(self) -> npt.NDArray[np.float64]:
        """The highest observation in each kernel's own subset, `[L]`; also one it believes in.

        Raises:
            RuntimeError: Nothing was fitted yet.
        """
        return (self._believed or self._require_conditioned()).best

    @property
    def subset(self) -> npt.NDArray[np.bool_]:
        """Which of the observations last given are in each kernel's own subset, `[L, N]`.

        Raises:
            RuntimeError: Nothing was fitted yet.
        """
        return self._require_conditioned().subset.copy()

    def fit(
        self,
        encodings: npt.ArrayLike,
        observations: npt.ArrayLike,
        seed: int,
        warm_start: bool = False,
        kernels: Sequence[int] | None = None,
    ) -> FitReport:
        """Trains kernels, each on its own random subset, and conditions on it.

        A kernel stops, and its weights stay, when its log likelihood is nearer than `tolerance`
        to its running mean after more than `min_steps` steps.

        Args:
            encodings: Floats `[N, T, F]`, N at least 1.
            observations: `[N]`, higher is better.
            seed: Seed of initial weights and subsets, a non-negative integer. On one machine
                equal seeds and data give equal results.
            warm_start: Whether training goes on from the weights that the kernels have, for
                `warm_steps` steps at most; else they get new ones.
            kernels: The numbers from 0 of the L kernels that are trained, and predict afterwards,
                as they would if all were; the weights of the others stay. None: all.

        Returns:
            How training went.

        Raises:
            ValueError: Shapes don't fit.
            SurrogateError: Data, log likelihood or embeddings are not finite.
        """
        start = time.perf_counter()
        data = check_observations(encodings, observations, self._num_columns)
        weights_seed, subset_seed = np.random.SeedSequence(seed).generate_state(2)
        self._conditioned = self._believed = None
        numbers = tuple(range(self.config.num_kernels) if kernels is None else kernels)
        if not warm_start:
            self.embedding.reinitialize(int(weights_seed), numbers)
        subset = self._draw_subset(data, int(subset_seed))[list(numbers)]
        max_steps = self.config.warm_steps if warm_start else self.config.max_steps
        initial, final, num_steps = self._train(data, numbers, subset, max_steps)
        self._condition(data, numbers, subset)
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
        self._conditioned = self._believed = None
        numbers = tuple(range(self.config.num_kernels))
        self._condition(data, numbers, self._draw_subset(data, int(subset_seed)))

    def believe(self, candidates: npt.ArrayLike) -> None:
        """Takes candidates whose observations are still to come for what is predicted of them.

        Means stay as they are, what is near a candidate is less uncertain, and a candidate that is
        believed to be the best counts as such, until the next `fit` or `condition`: so little is
        expected to be gained near it, and the next choice lies elsewhere. It is the kriging
        believer [1]. `subset` knows nothing of it.

        Args:
            candidates: Floats `[M, T, F]`: all of them; those given before are forgotten. M may
                be 0.

        Raises:
            RuntimeError: Nothing was fitted yet.
            ValueError: Shapes don't fit.
            SurrogateError: Candidates or their embeddings are not finite.

        Sources:
            [1] Ginsbourger, Le Riche, Carraro. Kriging Is Well-Suited to Parallelize
                Optimization. 2010, section 4.2.

        Example:
            >>> config = SurrogateConfig(num_kernels=2, num_layers=1, hidden_size=4)
            >>> surrogate = Surrogate(num_features=5, config=config)
            >>> surrogate.condition(np.zeros([1, 6, 5]), [0.5], seed=0)
            >>> before = surrogate.predict(np.ones([1, 6, 5]))
            >>> surrogate.believe(np.ones([1, 6, 5]))
            >>> after = surrogate.predict(np.ones([1, 6, 5]))
            >>> np.allclose(before.mean(), after.mean())
            True
            >>> bool(np.all(after.stddev() < before.stddev()))
            True
        """
        conditioned = self._require_conditioned()
        self._believed = None
        if len(np.asarray(candidates)):
            self._believed = conditioned.believing(self._embedded(conditioned, candidates))

    def predict(self, candidates: npt.ArrayLike) -> Any:
        """Predicts the noise-free objective of each candidate by itself, with what is believed.

        Args:
            candidates: Floats `[M, T, F]`, predicted by all kernels, or `[L, M, T, F]`, each
                kernel's own. M is at least 1.

        Returns:
            A `tfd.MultivariateNormalDiag` in float64 of batch shape `[L]` and event shape `[M]`:
            `mean()` and `stddev()` are `[L, M]`, and stddev is above 0. It holds marginals;
            candidates are not correlated in it.

        Raises:
            RuntimeError: Nothing was fitted yet.
            ValueError: Shapes don't fit.
            SurrogateError: Candidates or predictions are not finite.
        """
        conditioned = self._believed or self._require_conditioned()
        mean, stddev = conditioned.predict(self._embedded(conditioned, candidates))
        if not (np.isfinite(mean).all() and np.isfinite(stddev).all()):
            raise SurrogateError("A prediction is not finite; check the candidates' encodings.")
        return tfd.MultivariateNormalDiag(loc=mean, scale_diag=stddev)

    def _draw_subset(self, data: ObservedArchitectures, seed: int) -> npt.NDArray[np.bool_]:
        config = self.config
        return draw_subset(
            config.num_kernels, len(data.observations), config.subset_probability, seed
        )

    def _train(
        self,
        data: ObservedArchitectures,
        kernels: tuple[int, ...],
        subset: npt.NDArray[np.bool_],
        max_steps: int,
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """First and last log likelihoods and numbers of steps, `[L]` each."""
        encodings, observations = tf.constant(data.encodings), tf.constant(data.observations)
        chosen, limit = tf.constant(subset), tf.constant(max_steps, tf.int32)

        def of_kernel(row: Any, number: Any) -> Any:
            members = tf.where(chosen[row])[:, 0]
            own = tf.gather(encodings, members), tf.gather(observations, members)
            return self._traced_train(number, *own, limit)

        results = map_parallel(of_kernel, range(len(kernels)), kernels)
        first, latest, num_steps, *weights = zip(*results, strict=True)
        for number, likelihood, count in zip(kernels, latest, num_steps, strict=True):
            if count < max_steps and not np.isfinite(likelihood):
                raise SurrogateError(
                    f"The log likelihood of kernel {number} was not finite in training step "
                    f"{int(count) + 1}."
                )
        for variable, values in zip(self.embedding.all_weights, weights, strict=True):
            variable.scatter_update(tf.IndexedSlices(tf.stack(values), list(kernels)))
        return np.array(first), np.array(latest), np.array(num_steps, np.int64)

    def _train_kernel(
        self, number: Any, encodings: Any, observations: Any, max_steps: Any
    ) -> tuple[Any, ...]:
        """Trains one kernel on its own observations; changes no variable.

        Returns:
            Its first and its last log likelihood, the number of steps, and its weights.
        """
        config = self.config
        state = adam_state(self.embedding.weights_of(number))
        unknown = tf.constant(np.nan, tf.float64)

        def goes_on(step: Any, goes_on: Any, *_: Any) -> Any:
            return goes_on & (step <= max_steps)

        def train(
            step: Any, _: Any, count: Any, first: Any, latest: Any, running: Any, state: Any
        ) -> tuple[Any, ...]:
            weights = [weight for weight, *_ in state]
            latest, gradients = self._gradients(weights, encodings, observations)
            settled = (tf.abs(latest - running) < config.tolerance) & (step > config.min_steps)
            past = tf.where(step > 1, tf.cast(config.running_mean_weight, tf.float64), 0.0)
            moves = tf.math.is_finite(latest) & ~settled
            after = adam_step(state, gradients, step, config.learning_rate, config.weight_decay)
            return (
                step + 1,
                moves,
                count + tf.cast(moves, tf.int32),
                tf.where(step > 1, first, latest),
                latest,
                past * running + (1.0 - past) * latest,
                tf.nest.map_structure(lambda new, old: tf.where(moves, new, old), after, state),
            )

        start = (tf.constant(1), tf.constant(True), tf.constant(0), unknown, unknown,
                 tf.zeros([], tf.float64), state)  # fmt: skip
        _, _, count, first, latest, _, state = tf.while_loop(goes_on, train, start)
        return first, latest, count, *(weight for weight, *_ in state)

    def _gradients(
        self, weights: Sequence[Any], encodings: Any, observations: Any
    ) -> tuple[Any, list[Any]]:
        """A kernel's log likelihood, and minus its gradient by the kernel's weights."""
        with tf.GradientTape() as tape:
            tape.watch(weights)
            embedded = self.embedding.embed(weights, encodings, self._columns)
            embedded = tf.cast(embedded, tf.float64)
            log_likelihood = gaussian_process.leave_one_out_log_likelihood(
                self.kernel.on_embeddings().matrix(embedded, embedded),
                observations,
                self.config.observation_noise_variance,
            )
            loss = -log_likelihood
        return log_likelihood, tape.gradient(loss, weights)

    def _condition(
        self,
        data: ObservedArchitectures,
        kernels: tuple[int, ...],
        subset: npt.NDArray[np.bool_],
    ) -> None:
        self._conditioned = Conditioned(
            kernels,
            self.kernel.on_embeddings(),
            self.config.observation_noise_variance,
            self._embed_all(data.encodings, kernels),
            data.observations,
            subset,
        )

    def _embedded(
        self, conditioned: Conditioned, candidates: npt.ArrayLike
    ) -> npt.NDArray[np.float32]:
        """Candidates as kernels embed them, `[L, M, D]`."""
        kernels = conditioned.kernels
        checked = check_candidates(candidates, len(kernels), self._num_columns)
        return self._embed_all(checked, kernels)

    def _embed_all(
        self, sequences: npt.NDArray[np.float32], kernels: tuple[int, ...]
    ) -> npt.NDArray[np.float32]:
        """Embeddings `[L, N, D]` of sequences `[N, T, C]` or `[L, N, T, C]`."""
        size = self.chunk_size
        starts = range(0, sequences.shape[-3], size)
        shared = sequences.ndim == 3
        values = tf.constant(sequences)

        def of_chunk(row: Any, number: Any, start: Any) -> Any:
            own = values[start : start + size] if shared else values[row, start : start + size]
            return self._traced_embed(number, own)

        chosen = [(row, kernel, start) for row, kernel in enumerate(kernels) for start in starts]
        chunks = map_parallel(of_chunk, *zip(*chosen, strict=True))
        count = len(starts)
        rows = range(len(kernels))
        return np.stack([np.concatenate(chunks[row * count : (row + 1) * count]) for row in rows])

    def _embed(self, number: Any, sequences: Any) -> Any:
        return self.embedding.embed(self.embedding.weights_of(number), sequences, self._columns)

    def _require_conditioned(self) -> Conditioned:
        if self._conditioned is None:
            raise RuntimeError("The surrogate holds no observations yet; call fit() first.")
        return self._conditioned
