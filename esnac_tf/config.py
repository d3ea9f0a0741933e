"""All settings of a search, in one frozen value; their names are those of the flags."""

from __future__ import annotations

import dataclasses
import math
import numbers
from typing import Any

from esnac_tf import acquisitions, executors, exporters, objectives, strategies
from esnac_tf.architecture import CHANNEL_GROUPS, CHANNEL_IMPORTANCE, check_protect
from esnac_tf.distillation import (
    DIRECTIONS,
    DISTRIBUTE,
    OPTIMIZERS,
    TEACHER_TARGETS,
    TrainingConfig,
    losses,
)
from esnac_tf.errors import UserError
from esnac_tf.executors import Placement
from esnac_tf.resuming import RESUME
from esnac_tf.search_space import REMOVAL_PROBABILITIES
from esnac_tf.surrogate import SurrogateConfig

# Settings that are the name of something.
_NAMES = ("strategy", "acquisition", "objective", "channel_groups", "channel_importance",
          "metric", "metric_direction", "loss", "distillation_loss", "full_loss",
          "full_optimizer", "teacher_targets", "distribute", "executor", "ray_address",
          "resume")  # fmt: skip

# NumPy, and so keras.utils.set_random_seed, takes no larger seed.
_SEED_LIMIT = 2**32

# Settings that may differ between a run and its continuation: they change no trial.
_FREE = ("num_steps", "num_best", "full_epochs", "full_optimizer", "full_learning_rate",
         "full_loss", "teacher_targets", "export", "distribute", "executor", "ray_address",
         "cpus_per_candidate", "gpus_per_candidate")  # fmt: skip

FULL_OPTIMIZERS = ("auto", *OPTIMIZERS)

# Of the full training, where none is given.
_LEARNING_RATES = {"sgd": 0.01, "adam": 0.001}


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """Settings of a search; the defaults are the paper's.

    Attributes:
        num_steps: Search steps, 0 or more.
        num_kernels: K, kernels and so students of a step, 1 or more.
        num_candidates: Random students that each kernel compares, 1 or more.
        kernel_steps: Gradient steps of a kernel at most, 1 or more.
        kernel_warm_steps: Gradient steps at most of a kernel that goes on from the last search
            step, 0 or more; 0: every search step trains new kernels, as in the paper.
        search_epochs: Epochs of distillation of each student, 1 or more.
        search_learning_rate: Of Adam, above 0.
        halving_factor: Successive halving, 1 or more: of the students of a step one in so many is
            trained on after a part of the epochs, those with the best objectives; 1: all are
            trained to the end, as in the paper. It has no effect with more than there are students
            or epochs, or where students are trained one at a time. The executor "local" only.
        num_best: How many of the best students are trained fully, 1 or more.
        full_epochs: Epochs of the full training, 0 or more; 0 leaves it out.
        full_optimizer: Of the full training: "sgd", "adam", or "auto": SGD, as in the paper, for
            classifiers, and Adam, which the size of the losses does not matter to, for any other
            model.
        full_learning_rate: Of the full training, above 0; divided by 10 after each third of the
            epochs. None: 0.01 for SGD, 0.001 for Adam.
        batch_size: Examples in a batch over all devices, 1 or more.
        weight_decay: L2 penalty, 0 or more.
        strategy: Name of a strategy.
        acquisition: Name of an acquisition function.
        objective: Name of an objective.
        channel_groups: "width" (as in the paper) or "dependency".
        max_shrinkage: The largest ratio by which the width of a width group shrinks, above 0 and
            at most 1; rounding down can take a little more, also from what follows the group.
        max_params: The most parameters that a student may have, 1 or more; None: any number.
        removal_probabilities: With what probabilities a removable layer is removed from students
            that are drawn: for each student one of these, 0 to 1.
        round_channels_to: N, 1 or more. With more than 1, each layer that makes N channels or more
            keeps a multiple of N, or all that it has.
        protect: A regular expression: layers whose names, or models' names, it finds stay as they
            are, with the channels that they take and make; empty for none.
        channel_importance: How kept channels are chosen: "l2", "l1", "batch_norm" or "first" (the
            paper's).
        metric: What students are judged by on held-out data: "accuracy", "loss", or the name of
            a Keras metric; "auto": the accuracy of a classifier, the loss of any other model.
        metric_direction: "max" if more is better, "min" if less is, or "auto": by its name.
        loss: Name of the Keras loss with the labels of a model that is no classifier; "auto":
            that it is compiled with. Of a classifier it is the cross entropy.
        distillation_loss: Name of the loss of the search: one of this package's, or of a model
            that is no classifier of Keras's.
        teacher_targets: Where the teacher's outputs come from that the students of the search
            learn from: "computed" with every batch; "kept": computed once for every epoch and
            kept in the run folder, for students see the same batches in every search step; "auto":
            kept if there are several steps and they take no more than 1 GiB.
        full_loss: Name of the loss of the full training.
        distribute: "none" (one device), "mirrored" (each batch is divided among all devices),
            "grouped" (each student of the search is trained on one of them), or "auto": as
            "mirrored" on several GPUs, or in a long search what is faster there, else "none".
        executor: Name of an executor: where the students of the search are trained.
        ray_address: With the executor "ray", the address of a cluster to join, "auto" for one that
            runs on this machine; empty: that in RAY_ADDRESS, or else one is started here, and
            stopped in the end.
        cpus_per_candidate: With the executor "ray", CPUs of a student, 1 or more. None: as many as
            still let the most students be trained at once.
        gpus_per_candidate: With the executor "ray", GPUs of a student: a whole number, or less
            than 1 for students that share a GPU and are trained together on it. None: 1 if there
            are GPUs, else 0. A batch is divided among the GPUs of a student.
        asynchronous: Whether the next student is proposed as soon as one is finished, and not
            after all of a step are. Each worker then has one student at a time, and what is
            proposed depends on who is finished first, unless there is one worker.
        mixed_precision: Whether to compute in float16. None: on GPUs, in a long search, if that is
            faster there (`esnac_tf.calibration`). Kept teacher's outputs are of float32.
        jit_compile: Whether to compile training steps with XLA. None: in a long search, if that is
            faster there.
        export: Names of export formats.
        resume: Whether a run in the run folder goes on: "auto" (if there is one), "never" (then the
            folder must hold none) or "required" (it must hold one).
        seed: Seed of all that is random, 0 or more and below 2 ** 32.

    Raises:
        UserError: A value is of another type or out of range, or a name is not known.

    Example:
        >>> SearchConfig(num_steps=3).num_kernels
        8
        >>> SearchConfig(num_kernels=0)
        Traceback (most recent call last):
            ...
        esnac_tf.errors.UserError: num_kernels must be at least 1, received 0.
    """

    num_steps: int = 20
    num_kernels: int = 8
    num_candidates: int = 1000
    kernel_steps: int = 100
    kernel_warm_steps: int = 0
    search_epochs: int = 10
    search_learning_rate: float = 1e-3
    halving_factor: int = 1
    num_best: int = 4
    full_epochs: int = 300
    full_optimizer: str = "auto"
    full_learning_rate: float | None = None
    batch_size: int = 128
    weight_decay: float = 5e-4
    strategy: str = "esnac"
    acquisition: str = "expected_improvement"
    objective: str = "params"
    channel_groups: str = "width"
    max_shrinkage: float = 1.0
    max_params: int | None = None
    removal_probabilities: tuple[float, ...] = REMOVAL_PROBABILITIES
    round_channels_to: int = 1
    protect: str = ""
    channel_importance: str = "l2"
    metric: str = "auto"
    metric_direction: str = "auto"
    loss: str = "auto"
    distillation_loss: str = "logit_mse"
    teacher_targets: str = "auto"
    full_loss: str = "cross_entropy"
    distribute: str = "auto"
    executor: str = "local"
    ray_address: str = ""
    cpus_per_candidate: int | None = None
    gpus_per_candidate: float | None = None
    asynchronous: bool = False
    mixed_precision: bool | None = None
    jit_compile: bool | None = None
    export: tuple[str, ...] = ("saved_model", "keras")
    resume: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (
            ("num_steps", 0),
            ("num_kernels", 1),
            ("num_candidates", 1),
            ("kernel_steps", 1),
            ("kernel_warm_steps", 0),
            ("search_epochs", 1),
            ("halving_factor", 1),
            ("num_best", 1),
            ("full_epochs", 0),
            ("batch_size", 1),
            ("round_channels_to", 1),
            ("seed", 0),
            ("max_params", 1),
            ("cpus_per_candidate", 1),
        ):
            value = getattr(self, name)
            if value is None and name in ("max_params", "cpus_per_candidate"):
                continue
            if not isinstance(value, numbers.Integral) or isinstance(value, bool):
                raise UserError(f"{name} must be a whole number, received {value!r}.")
            if value < least:
                raise UserError(f"{name} must be at least {least}, received {value}.")
            object.__setattr__(self, name, int(value))
        if self.seed >= _SEED_LIMIT:
            raise UserError(f"seed must be below 2 ** 32 = {_SEED_LIMIT}, received {self.seed}.")
        for name in ("search_learning_rate", "full_learning_rate", "weight_decay", "max_shrinkage"):
            value = getattr(self, name)
            if value is None and name == "full_learning_rate":
                continue
            if not isinstance(value, numbers.Real) or isinstance(value, bool):
                raise UserError(f"{name} must be a number, received {value!r}.")
            object.__setattr__(self, name, float(value))
            if name.endswith("learning_rate") and not 0 < getattr(self, name) < math.inf:
                raise UserError(f"{name} must be above 0, received {getattr(self, name)}.")
        if not 0 < self.max_shrinkage <= 1:
            raise UserError(
                f"max_shrinkage must be above 0 and at most 1, received {self.max_shrinkage}."
            )
        rates = self.removal_probabilities
        if not isinstance(rates, (tuple, list)) or not rates or not all(map(_is_share, rates)):
            raise UserError(
                f"removal_probabilities must be numbers from 0 to 1, received {rates!r}.\n"
                "Give for instance 0, 0.1 and 0.3."
            )
        object.__setattr__(self, "removal_probabilities", tuple(map(float, rates)))
        gpus = self.gpus_per_candidate
        if gpus is not None and not (
            isinstance(gpus, numbers.Real)
            and not isinstance(gpus, bool)
            and (0 <= gpus < 1 or (1 <= gpus < math.inf and gpus == int(gpus)))
        ):
            raise UserError(
                "gpus_per_candidate must be a whole number or a share from 0 to 1, received "
                f"{gpus!r}."
            )
        if not isinstance(self.asynchronous, bool):
            raise UserError(f"asynchronous must be True or False, received {self.asynchronous!r}.")
        for name in ("mixed_precision", "jit_compile"):
            if not isinstance(getattr(self, name), (bool, type(None))):
                raise UserError(
                    f"{name} must be True, False or None, received {getattr(self, name)!r}."
                )
        for name in _NAMES:
            if not isinstance(getattr(self, name), str):
                raise UserError(f"{name} must be a name, received {getattr(self, name)!r}.")
        check_protect(self.protect)
        for name, known in (
            ("channel_groups", CHANNEL_GROUPS),
            ("channel_importance", CHANNEL_IMPORTANCE),
            ("distribute", DISTRIBUTE),
            ("metric_direction", DIRECTIONS),
            ("full_optimizer", FULL_OPTIMIZERS),
            ("teacher_targets", TEACHER_TARGETS),
            ("resume", RESUME),
        ):
            if getattr(self, name) not in known:
                raise UserError(
                    f"{name} must be one of {', '.join(known)}, received {getattr(self, name)!r}."
                )
        export = (self.export,) if isinstance(self.export, str) else self.export
        if not isinstance(export, (tuple, list)) or not all(isinstance(n, str) for n in export):
            raise UserError(
                f"export must be a tuple of names, received {export!r}.\n"
                'Give for instance export=("saved_model", "keras"), or () for none.'
            )
        object.__setattr__(self, "export", tuple(export))
        strategies.FAMILY.check(self.strategy)
        acquisitions.FAMILY.check(self.acquisition)
        objectives.get(self.objective)
        losses.FAMILY.check(self.full_loss)
        executors.FAMILY.check(self.executor)
        for name in self.export:
            exporters.FAMILY.check(name)
        for name in ("ray_address", "cpus_per_candidate", "gpus_per_candidate"):
            if self.executor == "local" and getattr(self, name) not in (None, ""):
                raise UserError(
                    f"{name} is for executor='ray', received executor='local'.\n"
                    f"Give that executor, or leave {name} out."
                )
        if self.halving_factor > 1 and self.executor != "local":
            raise UserError(
                f"halving_factor={self.halving_factor} compares the students of a step, and "
                f"executor={self.executor!r} trains them apart.\nLeave one of the two out."
            )
        self.search_training()
        self.full_training()

    def search_training(self) -> TrainingConfig:
        """How students are trained in the search."""
        return TrainingConfig.search(
            epochs=self.search_epochs,
            learning_rate=self.search_learning_rate,
            weight_decay=self.weight_decay,
            mixed_precision=bool(self.mixed_precision),
            jit_compile=bool(self.jit_compile),
        )

    def full_training(self, is_classifier: bool = True) -> TrainingConfig:
        """How the best students of a classifier, or of another model, are trained in the end."""
        epochs = max(1, self.full_epochs)
        optimizer = self.full_optimizer
        if optimizer == "auto":
            optimizer = "sgd" if is_classifier else "adam"
        return TrainingConfig.full(
            epochs=epochs,
            optimizer=optimizer,
            learning_rate=self.full_learning_rate or _LEARNING_RATES[optimizer],
            learning_rate_drop_epochs=-(-epochs // 3),
            weight_decay=self.weight_decay,
            mixed_precision=bool(self.mixed_precision),
            jit_compile=bool(self.jit_compile),
        )

    def surrogate(self) -> SurrogateConfig:
        """Settings of the surrogate."""
        return SurrogateConfig(
            num_kernels=self.num_kernels,
            max_steps=self.kernel_steps,
            warm_steps=self.kernel_warm_steps,
        )

    def placement(self) -> Placement:
        """Where students shall be trained."""
        return Placement(
            self.num_kernels, self.ray_address, self.cpus_per_candidate, self.gpus_per_candidate
        )

    def fixed(self) -> dict[str, Any]:
        """The settings that must be the same when a run is resumed, as JSON values."""
        return {name: value for name, value in self._json().items() if not self._is_free(name)}

    def full_settings(self, is_classifier: bool = True) -> dict[str, Any]:
        """What among `free` the full training depends on, as JSON values."""
        training = self.full_training(is_classifier)
        return {
            "full_epochs": self.full_epochs,
            "full_optimizer": training.optimizer,
            "full_learning_rate": training.learning_rate,
            "full_loss": self.full_loss,
        }

    def free(self) -> dict[str, Any]:
        """The settings that may differ when a run is resumed, as JSON values."""
        return {name: value for name, value in self._json().items() if self._is_free(name)}

    def _is_free(self, name: str) -> bool:
        # Successive halving compares the students that are trained on one device.
        return name in _FREE and not (name == "distribute" and self.halving_factor > 1)

    def _json(self) -> dict[str, Any]:
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self).items()
            if name != "resume"  # of a process, not of the run
        }


def _is_share(value: object) -> bool:
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return is_number and 0 <= value <= 1  # type: ignore[operator]
