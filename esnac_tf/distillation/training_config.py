"""How long and with what optimizer a model is trained: a frozen value, plain Python."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from esnac_tf.errors import UserError

OPTIMIZERS = ("adam", "sgd")


# Where the teacher's scores of the training data come from in the search.
TEACHER_TARGETS = ("auto", "kept", "computed")

# Which values of a metric are better; "auto" goes by its name.
DIRECTIONS = ("auto", "max", "min")


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """How a model is trained.

    Formula:
        gradient = d loss / d v + weight_decay * v          for every trainable variable v
        learning_rate(epoch) = learning_rate * 0.1 ** ((epoch - 1) // learning_rate_drop_epochs)

    Weight decay is L2 added to the gradient, as PyTorch's optimizers have it and as ESNAC
    was trained: on every trainable variable, biases and BatchNormalization's gamma and beta
    included. (The `weight_decay` of Keras' own optimizers is another thing, decoupled from
    the gradient as in AdamW: with Adam the two differ much.)

    Args:
        epochs: Passes over the batches, at least 1.
        optimizer: "adam" or "sgd".
        learning_rate: That of the first epoch; above 0.
        momentum: Of "sgd", in [0, 1); "adam" doesn't use it.
        weight_decay: At least 0.
        learning_rate_drop_epochs: The learning rate is divided by 10 every this many
            epochs; 0 means never.
        mixed_precision: Compute in float16 with loss scaling. The models stay float32
            models. Faster on GPUs with tensor cores; several times slower on CPUs.
        batch_norm_momentum: The momentum of BatchNormalization at most, in [0, 1], while it
            trains: high ones keep a student's moving statistics at the teacher's for long.
        jit_compile: Compile forward and backward passes with XLA. A student's first step
            then takes some seconds longer. On several devices models are trained without it.

    Raises:
        UserError: If an argument is out of its range.

    Example:
        >>> config = TrainingConfig(epochs=3, learning_rate=0.1, learning_rate_drop_epochs=2)
        >>> [round(config.learning_rate_at(epoch), 4) for epoch in (1, 2, 3)]
        [0.1, 0.1, 0.01]
    """

    epochs: int
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 5e-4
    learning_rate_drop_epochs: int = 0
    mixed_precision: bool = False
    batch_norm_momentum: float = 0.9
    jit_compile: bool = False

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise UserError(f"epochs must be at least 1, received {self.epochs}.")
        if self.optimizer not in OPTIMIZERS:
            raise UserError(
                f"optimizer must be one of {', '.join(OPTIMIZERS)}, received {self.optimizer!r}."
            )
        if not 0 < self.learning_rate < math.inf:
            raise UserError(f"learning_rate must be above 0, received {self.learning_rate}.")
        if not 0 <= self.momentum < 1:
            raise UserError(f"momentum must be in [0, 1), received {self.momentum}.")
        if not 0 <= self.batch_norm_momentum <= 1:
            raise UserError(
                f"batch_norm_momentum must be in [0, 1], received {self.batch_norm_momentum}."
            )
        if not 0 <= self.weight_decay < math.inf:
            raise UserError(f"weight_decay must be at least 0, received {self.weight_decay}.")
        if self.learning_rate_drop_epochs < 0:
            raise UserError(
                "learning_rate_drop_epochs must be at least 0 (0 means never), "
                f"received {self.learning_rate_drop_epochs}."
            )

    def learning_rate_at(self, epoch: int) -> float:
        """Returns the learning rate of an epoch, counted from 1."""
        if not self.learning_rate_drop_epochs:
            return self.learning_rate
        return self.learning_rate * 0.1 ** ((epoch - 1) // self.learning_rate_drop_epochs)

    @classmethod
    def search(cls, **changes: Any) -> TrainingConfig:
        """Returns how the paper trains a candidate: 10 epochs of Adam, meant for `logit_mse`.

        Example:
            >>> TrainingConfig.search(epochs=2).epochs
            2
        """
        return cls(**{"epochs": 10, "optimizer": "adam", "learning_rate": 1e-3, **changes})

    @classmethod
    def full(cls, **changes: Any) -> TrainingConfig:
        """Returns how the paper fully trains the best students: 300 epochs of SGD.

        Example:
            >>> config = TrainingConfig.full()
            >>> config.optimizer, config.learning_rate, config.learning_rate_drop_epochs
            ('sgd', 0.01, 100)
        """
        sgd = {"optimizer": "sgd", "learning_rate": 0.01, "learning_rate_drop_epochs": 100}
        return cls(**{"epochs": 300, **sgd, **changes})

    @classmethod
    def teacher(cls, **changes: Any) -> TrainingConfig:
        """Returns how the paper trains a teacher from scratch: 400 epochs of SGD.

        Example:
            >>> TrainingConfig.teacher().learning_rate
            0.1
        """
        sgd = {"optimizer": "sgd", "learning_rate": 0.1, "learning_rate_drop_epochs": 100}
        return cls(**{"epochs": 400, **sgd, **changes})
