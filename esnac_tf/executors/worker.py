"""A process that trains students: action sets come in, trials and weights go out."""

from __future__ import annotations

import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from esnac_tf.architecture import ActionSet
from esnac_tf.errors import UserError
from esnac_tf.quiet_start import start_tensorflow

if TYPE_CHECKING:
    from esnac_tf.evaluation import Evaluator
    from esnac_tf.executors.parcel import Parcel

# The name of a callback of a training, "on_epoch" or "on_batch", and what it was called with.
Event = tuple[str, tuple[Any, ...]]


class Worker:
    """Trains students on the devices that this process sees.

    One thread may ask for `events` while another is in `evaluate`.

    Args:
        num_cpus: CPUs of its own; 0: as any other process.
        num_gpus: GPUs of its own; 0: it uses none.
    """

    def __init__(self, num_cpus: int, num_gpus: int) -> None:
        start_tensorflow()
        import tensorflow as tf

        if num_cpus not in (0, os.cpu_count()):  # else as in any other process
            tf.config.threading.set_intra_op_parallelism_threads(num_cpus)
        if not num_gpus and tf.config.list_physical_devices("GPU"):
            tf.config.set_visible_devices([], "GPU")
        self._evaluator: Evaluator | None = None
        self._events: list[Event] = []

    def prepare(self, fetch: Callable[[], Parcel]) -> bool:
        """Makes itself an evaluator, if it has none yet.

        Args:
            fetch: Gets what it is made of.

        Returns:
            Whether it could: False if the training data is not on this machine, and must be sent.
        """
        from esnac_tf.executors.parcel import DataMissingError

        try:
            self._prepared(fetch)
        except DataMissingError:
            return False
        return True

    def _prepared(self, fetch: Callable[[], Parcel]) -> Evaluator:
        from esnac_tf.executors.parcel import unpack

        if self._evaluator is None:
            parcel = fetch()
            folder = _folder(parcel.name)
            folder.mkdir(exist_ok=True)
            tempfile.tempdir = str(folder)  # TensorFlow leaves files there
            self._evaluator = unpack(parcel, folder)
        return self._evaluator

    def evaluate(
        self,
        fetch: Callable[[], Parcel],
        proposals: Mapping[int, ActionSet],
        step: int,
    ) -> tuple[Any, ...]:
        """Trains students together.

        Args:
            fetch: As for `prepare`: a process that died and was started again has no evaluator.
            proposals: Actions by the number of their trial.
            step: The search step they belong to, from 0.

        Returns:
            A list of their trials, and for each its weights, None if it failed.

        Raises:
            UserError: As `Evaluator.evaluate`, or the training data must be sent.
        """
        from esnac_tf.executors.parcel import DataMissingError

        self._events = []
        try:
            results = self._prepared(fetch).evaluate(
                proposals,
                step,
                lambda *arguments: self._events.append(("on_epoch", arguments)),
                lambda *arguments: self._events.append(("on_batch", arguments)),
            )
        except DataMissingError:
            raise
        except UserError as error:
            raise UserError(str(error)) from None  # of one argument, which can be pickled
        students = [item.student and item.student() for item in results]
        weights = [student and student.get_weights() for student in students]
        return [item.trial for item in results], *weights

    def events(self) -> list[Event]:
        """What happened in the training under way since this was asked last."""
        events, self._events = self._events, []
        return events


def remove_folder(name: str) -> None:
    """Removes what workers kept on the disk of this machine, by the name of their parcel."""
    shutil.rmtree(_folder(name), ignore_errors=True)


def _folder(name: str) -> pathlib.Path:
    """One for all workers of a machine; who dies leaves it to the others."""
    return pathlib.Path(tempfile.gettempdir()) / f"esnac_tf_{name}"
