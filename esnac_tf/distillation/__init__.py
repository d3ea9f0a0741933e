"""Trains students: many at once, on shared batches and one teacher forward pass.

| file | holds |
|---|---|
| `training.py` | `train`: the epochs, the best epoch's weights, failures kept apart |
| `joint_step.py` | one `tf.function`: the teacher's pass, then every student's update |
| `student_update.py` | one student's loss, gradients and optimizer, on one replica |
| `optimizers.py` | Keras's optimizers in one operation a variable |
| `step_error.py` | a student's errors, told from those of data and machines |
| `at_once.py` | how many students have room at once |
| `student_progress.py` | a student in training: what is known of it, kept and restored |
| `checkpoint.py`, `array_files.py` | a training that another process goes on with |
| `interruption.py` | Ctrl+C and SIGTERM, which wait for the end of an epoch |
| `student_groups.py` | `train_in_groups`: students shared out among devices |
| `successive_halving.py` | which students are trained to the end |
| `teacher_targets.py` | the teacher's scores of the training data, computed once |
| `task.py` | what models are for: their outputs, their metric |
| `output_losses.py` | Keras losses of outputs of any shape and number |
| `evaluation.py` | the accuracy of many models at once |
| `metric_evaluation.py` | `evaluate`: any metric |
| `replica_statistics.py` | statistics of other layers, averaged across replicas |
| `mixed_precision.py` | float32 models that compute in float16 for a while |
| `batch_normalization.py` | layers that follow short trainings, on several devices as on one |
| `freed_graphs.py` | graphs of a training, which TensorFlow would keep |
| `unfreezing.py` | frozen layers that train for a while |
| `machines.py` | several machines, and what the chief tells the others |
| `devices.py` | `get_strategy`: the devices by name, `DISTRIBUTE`: the names |
| `losses/` | one file a loss, found by its name |
| `training_config.py`, `training_outcome.py` | frozen values, plain Python |

Nothing here imports TensorFlow until a function that computes is first used.

Example:
    >>> from esnac_tf import distillation
    >>> distillation.TrainingConfig.search().epochs
    10
    >>> "logit_mse" in distillation.losses.names()
    True
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from esnac_tf.distillation import losses
from esnac_tf.distillation.devices import DISTRIBUTE, get_strategy
from esnac_tf.distillation.training_config import (
    DIRECTIONS,
    OPTIMIZERS,
    TEACHER_TARGETS,
    TrainingConfig,
)
from esnac_tf.distillation.training_outcome import EpochRecord, TrainingOutcome

__all__ = [
    "DIRECTIONS",
    "DISTRIBUTE",
    "OPTIMIZERS",
    "TEACHER_TARGETS",
    "EpochRecord",
    "TrainingConfig",
    "TrainingOutcome",
    "evaluate",
    "get_strategy",
    "losses",
    "train",
]

if TYPE_CHECKING:
    from esnac_tf.distillation.metric_evaluation import evaluate
    from esnac_tf.distillation.training import train


def __getattr__(name: str) -> Any:
    """Loads the functions that need TensorFlow on first use (PEP 562)."""
    if name == "train":
        from esnac_tf.distillation.training import train

        return train
    if name == "evaluate":
        from esnac_tf.distillation.metric_evaluation import evaluate

        return evaluate
    raise AttributeError(f"module 'esnac_tf.distillation' has no attribute {name!r}")
