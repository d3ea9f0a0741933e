"""What a search gives: the best students, and everything that was tried."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from esnac_tf.trial import Trial

if TYPE_CHECKING:
    import keras


@dataclasses.dataclass(frozen=True)
class Student:
    """One of the best students, trained fully.

    Attributes:
        model: The student, a plain Keras model.
        trial: The trial that found it.
        num_params: Its parameters.
        flops: Multiply-adds of one example.
        validation_metric: The metric on held-out data after the full training.
        test_metric: The same on the test data, looked at once, at the very end; None without.
        objective: f(x) with this validation metric.
        times_smaller: Parameters of the teacher / parameters of the student.
        latency_secs: Median wall time of one example on the CPU; None where a GPU is.
        file_bytes: Size of its `.keras` file; None where it can't be saved.
        best_epoch: The epoch of the full training, from 1, whose weights these are; 0 if the
            weights of the search were better, or there was no full training.
        failure: None, or in one line why the full training ended early.
        exports: Where it is saved, by format, relative to the run folder; empty without one.
        export_failures: Why it could not be saved, by format.
    """

    model: keras.Model
    trial: Trial
    num_params: int
    flops: int
    validation_metric: float
    test_metric: float | None
    objective: float
    times_smaller: float
    latency_secs: float | None = None
    file_bytes: int | None = None
    best_epoch: int = 0
    failure: str | None = None
    exports: Mapping[str, str] = dataclasses.field(default_factory=dict)
    export_failures: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def validation_accuracy(self) -> float | None:
        """The metric on held-out data, where it is the accuracy."""
        return self.validation_metric if self.trial.metric == "accuracy" else None

    @property
    def test_accuracy(self) -> float | None:
        """The metric on the test data, where it is the accuracy."""
        return self.test_metric if self.trial.metric == "accuracy" else None

    def to_json(self) -> dict[str, Any]:
        """The student as summary.json has it: all but the model."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del values["model"]
        values["trial"] = self.trial.number
        metric = values["metric"] = self.trial.metric
        for part in ("validation", "test"):
            values[f"{part}_{metric}"] = values.pop(f"{part}_metric")
        values["actions"] = self.trial.actions.to_json()
        values["compression_ratio"] = 1 - 1 / self.times_smaller
        values["exports"] = dict(self.exports)
        values["export_failures"] = dict(self.export_failures)
        return values


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        students: The best students, best objective first.
        trials: All trials, in the order of their numbers.
        front: The Pareto front of them: no other trial is as good in both parameters and the metric
            of the search, and better in one. Fewest parameters first.
        summary: What summary.json holds.
        run_dir: The run folder; None if none was asked for.
    """

    students: tuple[Student, ...]
    trials: tuple[Trial, ...]
    front: tuple[Trial, ...]
    summary: Mapping[str, Any]
    run_dir: pathlib.Path | None
