"""The surrogate's settings, as a frozen value that needs no TensorFlow."""

from __future__ import annotations

import dataclasses

from esnac_tf.errors import UserError

# With less, float32 embeddings of near duplicates leave a Gram matrix that has no inverse.
MIN_NOISE_VARIANCE = 1e-4


@dataclasses.dataclass(frozen=True)
class SurrogateConfig:
    """Settings of the surrogate; the defaults are the paper's [1].

    Attributes:
        num_kernels: K, kernels trained side by side; at least 1.
        num_layers: Bidirectional LSTM layers in an embedding; at least 1.
        hidden_size: Units of one direction of a layer, so D = 2 * hidden_size; at least 1.
        length_scale: Distance between unit-length embeddings at which the kernel has fallen to
            exp(-1/2); above 0. The paper's length_scale**2 is 0.01.
        observation_noise_variance: Variance of the noise on an observation; at least 1e-4, which
            keeps Gram matrices of near duplicates invertible.
        learning_rate: Adam's step size; above 0.
        weight_decay: Coupled decay: weight_decay * weight is added to the gradient before Adam
            sees it, as PyTorch's Adam does (AdamW's is decoupled); at least 0.
        max_steps: Most training steps of a kernel; at least 0.
        tolerance: A kernel is done when its mean log likelihood (nats a point) is nearer than
            this to its running mean; at least 0, and 0 never stops early.
        min_steps: Training steps before a kernel may be done; at least 0.
        running_mean_weight: Weight of the past in the running mean; 0 to below 1.
        subset_probability: Chance of each observation to be in a kernel's own subset; 0 to 1.
        warm_steps: Most training steps of a kernel that goes on from the weights of the last fit;
            at least 0. 0: each fit begins anew, as the paper's do.

    Raises:
        UserError: A value is out of its range.

    Sources:
        [1] Cao, Wang, Kitani. Learnable Embedding Space for Efficient Neural Architecture
            Compression. ICLR 2019. arXiv 1902.00383, section 3.

    Example:
        >>> SurrogateConfig().length_scale
        0.1
        >>> SurrogateConfig(num_kernels=0)
        Traceback (most recent call last):
            ...
        esnac_tf.errors.UserError: num_kernels must be at least 1, received 0.
    """

    num_kernels: int = 8
    num_layers: int = 4
    hidden_size: int = 64
    length_scale: float = 0.1
    observation_noise_variance: float = 0.05
    learning_rate: float = 1e-3
    weight_decay: float = 5e-4
    max_steps: int = 100
    tolerance: float = 1e-3
    min_steps: int = 6
    running_mean_weight: float = 0.5
    subset_probability: float = 0.5
    warm_steps: int = 0

    def __post_init__(self) -> None:
        # Written as "not value >= bound", so that NaN is refused too.
        for name in ("num_kernels", "num_layers", "hidden_size"):
            if not getattr(self, name) >= 1:
                raise UserError(f"{name} must be at least 1, received {getattr(self, name)}.")
        for name in ("length_scale", "learning_rate"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name} must be above 0, received {getattr(self, name)}.")
        if not self.observation_noise_variance >= MIN_NOISE_VARIANCE:
            raise UserError(
                f"observation_noise_variance must be at least {MIN_NOISE_VARIANCE}, "
                f"received {self.observation_noise_variance}."
            )
        for name in ("weight_decay", "max_steps", "warm_steps", "tolerance", "min_steps"):
            if not getattr(self, name) >= 0:
                raise UserError(f"{name} must be at least 0, received {getattr(self, name)}.")
        if not 0 <= self.running_mean_weight < 1:
            raise UserError(
                f"running_mean_weight must be from 0 to below 1, "
                f"received {self.running_mean_weight}."
            )
        if not 0 <= self.subset_probability <= 1:
            raise UserError(
                f"subset_probability must be from 0 to 1, received {self.subset_probability}."
            )
