"""The best students while a search goes on: what the full training starts from."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence

import keras

from esnac_tf.distillation.array_files import read_arrays, write_arrays
from esnac_tf.evaluation import Evaluated
from esnac_tf.trial import Trial


class BestStudents:
    """The best students so far: their trials here, their weights in files.

    Args:
        folder: Where the weights are kept.
        size: How many students are kept, at least 1.

    Attributes:
        trials: Their trials, best objective first.
    """

    def __init__(self, folder: pathlib.Path, size: int) -> None:
        self._folder = folder
        self._size = size
        self.trials: list[Trial] = []

    def add(self, evaluated: Sequence[Evaluated]) -> None:
        """Keeps the weights of those that are among the best, and drops those that fell out."""
        ranked = sorted(
            [*self.trials, *(item.trial for item in evaluated if item.trial.is_complete)],
            # Not as they came: of equally good ones the first proposed is the better.
            key=lambda trial: (-float(trial.objective or 0.0), trial.number),
        )
        kept, dropped = ranked[: self._size], ranked[self._size :]
        numbers = {trial.number for trial in kept}
        self.keep([item for item in evaluated if item.trial.number in numbers])
        for trial in dropped:
            self._path(trial).unlink(missing_ok=True)
        self.trials = kept

    def keep(self, evaluated: Sequence[Evaluated]) -> None:
        """Writes the weights of students, as far as they are here."""
        for item in evaluated:
            student = item.student and item.student()
            if student is not None:
                write_arrays(self._path(item.trial), _key(item.trial), student.get_weights())

    def lost(self) -> list[Trial]:
        """Those whose weights are not there, as when more are to be kept than at first."""
        return [t for t in self.trials if read_arrays(self._path(t), _key(t)) is None]

    def leave_out_lost(self) -> list[Trial]:
        """Forgets those whose weights are not there, and returns them."""
        lost = self.lost()
        self.trials = [trial for trial in self.trials if trial not in lost]
        return lost

    def restore(self, model: keras.Model, trial: Trial) -> None:
        """Gives a model the weights of one of the best."""
        model.set_weights(read_arrays(self._path(trial), _key(trial)))

    def _path(self, trial: Trial) -> pathlib.Path:
        return self._folder / f"trial_{trial.number:05d}.npz"


def _key(trial: Trial) -> str:
    return json.dumps(trial.actions.to_json())
