"""What the teacher says of the training data: computed once, and kept for all students.

The batches of an epoch are the same whenever that epoch is trained, augmentation included. So the
teacher's pass over epoch e serves every student of the search that is trained for more than e
epochs, and all of them learn from just what a pass of their own would have given.
"""

from __future__ import annotations

import pathlib
import threading
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from esnac_tf.datasets.digests import digest_of
from esnac_tf.distillation.array_files import read_arrays, write_arrays
from esnac_tf.distillation.devices import on_replicas, share_out, without_tuning
from esnac_tf.distillation.task import Task
from esnac_tf.errors import UserError
from esnac_tf.profiling import measured

# Of the largest score: devices and compilers round differently.
_TOLERANCE = 1e-3


class TeacherTargets:
    """Training batches with the teacher's scores of them.

    An epoch's scores are computed when it is first asked for, and written to a file; later they are
    read from it. A file that is damaged, or of other weights, or in which the number of batches or
    the first of them or its scores are others, is computed again.

    Args:
        batches: Of which `epoch(e)` gives the same at every call.
        teacher: Built under the strategy's scope.
        task: How its outputs are read.
        strategy: The strategy of the scope.
        folder: Where the files are kept.
        jit_compile: Compile the teacher's pass with XLA.
        told: Called with one line if a file can't be written: the scores are computed each time
            from then on. None: that is an error.

    Attributes:
        batches: As given.
        batch_size: As of `batches`.
        num_batches: Likewise; None if it is not known.

    Example:
        >>> import tempfile
        >>> class OneBatch:
        ...     batch_size = 2
        ...     def epoch(self, epoch):
        ...         return tf.data.Dataset.from_tensors((tf.eye(2), tf.range(2)))
        >>> teacher = keras.Sequential([keras.Input((2,)), keras.layers.Rescaling(3.0)])
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> device = tf.distribute.get_strategy()
        >>> targets = TeacherTargets(OneBatch(), teacher, Task(), device, folder)
        >>> for batch in targets.epoch(0):
        ...     x, y, weight, scores = targets.split(batch)
        >>> scores.numpy().tolist()
        [[3.0, 0.0], [0.0, 3.0]]
    """

    def __init__(
        self,
        batches: Any,
        teacher: keras.Model,
        task: Task,
        strategy: tf.distribute.Strategy,
        folder: pathlib.Path,
        jit_compile: bool = False,
        told: Callable[[str], None] | None = None,
    ) -> None:
        self.batch_size = batches.batch_size
        self.num_batches = getattr(batches, "num_batches", None)
        self.batches, self._strategy, self._folder = batches, strategy, folder
        self._told = told
        self._weights_digest = digest_of(teacher.get_weights())
        self._structure: Any = None
        self._is_full = False
        self._lock = threading.Lock()

        forward = scores_of(teacher, task, jit_compile)
        self._forward = on_replicas(strategy, forward)

    def epoch(self, epoch: int) -> tf.data.Dataset:
        """The batches of an epoch with their scores; `split` takes them apart.

        Args:
            epoch: From 0 up.

        Raises:
            UserError: The file can't be written, and nobody is told instead.
        """
        dataset = self.batches.epoch(epoch)
        with measured("teacher", whole=True), self._lock:  # groups of students ask at once
            scores = self._scores(epoch, dataset)
        with tf.device("CPU:0"):
            targets = tf.data.Dataset.from_tensor_slices(tuple(scores))
            return tf.data.Dataset.zip(dataset, targets).prefetch(2)

    def split(self, batch: Any) -> tuple[Any, Any, Any, Any]:
        """An element of `epoch`, as the strategy distributes it: x, y, weight or None, scores."""
        (x, y, *weight), scores = batch
        structured = tf.nest.pack_sequence_as(self._structure, list(scores))
        return x, y, (weight[0] if weight else None), structured

    def _scores(self, epoch: int, dataset: tf.data.Dataset) -> list[np.ndarray]:
        """The scores of all batches, [number of batches, B, ...] for each output."""
        first = next(iter(without_tuning(dataset.take(1))))
        # The teacher's outputs may be a dict or a list; files and tf.data see a flat one.
        [self._structure] = self._pass(tf.data.Dataset.from_tensors(first))
        number = int(dataset.cardinality())
        key = digest_of([np.array(self._weights_digest), np.array(number), *tf.nest.flatten(first)])
        path = self._folder / f"epoch_{epoch:05d}.npz"
        kept = read_arrays(path, key)
        now = tf.nest.flatten(self._structure)
        if kept is not None and all(map(_are_close, kept, now)):
            return kept
        batches = [tf.nest.flatten(scores) for scores in self._pass(dataset)]
        scores = [np.stack(output) for output in zip(*batches, strict=True)]
        if not self._is_full:
            try:
                write_arrays(path, key, scores)
            except UserError as error:
                if self._told is None:
                    raise
                self._is_full = True
                self._told(f"The teacher's outputs are not kept. {str(error).splitlines()[0]}")
        return scores

    def _pass(self, dataset: tf.data.Dataset) -> list[Any]:
        """The teacher's scores of each batch, of all replicas together."""
        results = []
        for x, *_ in share_out(dataset, self._strategy):
            scores = tf.nest.map_structure(self._together, self._forward(x))
            results.append(scores)
        return results

    def _together(self, scores: Any) -> np.ndarray:
        parts = self._strategy.experimental_local_results(scores)
        return np.concatenate([part.numpy() for part in parts])


def scores_of(teacher: keras.Model, task: Task, jit_compile: bool) -> Callable[[Any], Any]:
    """The teacher's forward pass, on one replica."""

    def forward(x: Any) -> Any:
        return task.scores(teacher(x, training=False))

    return tf.function(forward, autograph=False, jit_compile=True) if jit_compile else forward


def _are_close(kept: np.ndarray, first: np.ndarray) -> bool:
    """Whether kept scores begin with those of the first batch, but for rounding."""
    if kept.shape[1:] != first.shape:
        return False
    tolerance = _TOLERANCE * float(np.abs(first).max(initial=0.0))
    return bool(np.allclose(kept[0], first, rtol=0.0, atol=tolerance, equal_nan=True))
