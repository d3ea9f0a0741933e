"""A trial: one evaluated student, as a frozen value that reads and writes JSON."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

from esnac_tf.architecture import ActionSet

COMPLETE = "complete"
FAILED = "failed"
LOST = "lost"


@dataclasses.dataclass(frozen=True)
class Trial:
    """One student that was proposed and evaluated.

    Attributes:
        number: Position in the search, from 0.
        state: "complete", "failed" with the reason in `failure`, or "lost": what evaluated it is
            gone, and it is evaluated again.
        actions: What was done to the teacher to get this student.
        num_params: Trainable weights of the student; None where it could not be built.
        flops: Multiply-adds of one example; None where it could not be built.
        validation_metric: The metric on held-out data; an accuracy is 0 to 1; None if failed.
        objective: The value f(x) that the search maximises; None if failed.
        duration_secs: Wall seconds of the evaluation; a trial that shared its training with
            others of the same step is given the whole step's training time.
        step: The search step that proposed it, from 0.
        best_epoch: Epoch (from 1) whose weights were kept; None if failed.
        failure: One line that says why the trial failed; None if complete.
        num_epochs: Epochs that the student was trained; None if failed.
        metric: Name of the metric.

    Example:
        >>> trial = Trial(0, COMPLETE, ActionSet(), 100, 2000, 0.5, 0.4, 1.0)
        >>> Trial.from_json(trial.to_json()) == trial
        True
    """

    number: int
    state: str
    actions: ActionSet
    num_params: int | None
    flops: int | None
    validation_metric: float | None
    objective: float | None
    duration_secs: float
    step: int = 0
    best_epoch: int | None = None
    failure: str | None = None
    num_epochs: int | None = None
    metric: str = "accuracy"

    @property
    def validation_accuracy(self) -> float | None:
        """The metric, where that is the accuracy."""
        return self.validation_metric if self.metric == "accuracy" else None

    @property
    def is_complete(self) -> bool:
        """Whether the student was trained and measured."""
        return self.state == COMPLETE

    def to_json(self) -> dict[str, Any]:
        """The trial as a JSON object: the fields of this class, under their names.

        Only the value of the metric is under the metric's name: `validation_accuracy`, say.
        """
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values["actions"] = self.actions.to_json()
        values[f"validation_{self.metric}"] = values.pop("validation_metric")
        return values

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Trial:
        """The inverse of `to_json`; fields that this version does not know are ignored.

        Raises:
            ValueError: A value is not what it should be.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        kept = {name: value for name, value in values.items() if name in known}
        metric = kept.setdefault("metric", "accuracy")
        kept["validation_metric"] = values.get(f"validation_{metric}")
        kept["actions"] = ActionSet.from_json(kept["actions"])
        trial = cls(**kept)
        trial._check()
        return trial

    def _check(self) -> None:
        """Refuses values of other types, as a file may hold that somebody has changed."""
        counts = (self.number, self.step, *map(_or_zero, (self.num_params, self.flops)),
                  *map(_or_zero, (self.best_epoch, self.num_epochs)))  # fmt: skip
        # None where it was not finite, too.
        figures = map(_or_zero, (self.duration_secs, self.validation_metric, self.objective))
        is_right = (
            all(type(count) is int and count >= 0 for count in counts)
            and all(type(figure) in (int, float) for figure in figures)
            and self.state in (COMPLETE, FAILED, LOST)
            and isinstance(self.metric, str)
            and isinstance(self.failure, (str, type(None)))
        )
        if not is_right:
            raise ValueError("a value is not what it should be")


def _or_zero(value: Any) -> Any:
    return 0 if value is None else value


def best_trial(trials: Sequence[Trial]) -> Trial | None:
    """The trial with the highest objective, the first of equally good ones; None if all failed.

    Example:
        >>> best_trial([]) is None
        True
    """
    complete = [trial for trial in trials if trial.is_complete]
    return max(complete, key=lambda trial: float(trial.objective or 0.0), default=None)


def pareto_front(trials: Sequence[Trial], quality: Callable[[float], float]) -> list[Trial]:
    """The Pareto front of few parameters and high quality, fewest parameters first.

    No other trial is as good in both as one of the front, and better in one.

    Of trials with equal parameters and quality the first proposed stands for all.

    Args:
        trials: Any trials; failed ones are left out.
        quality: How good a value of the metric is.

    Example:
        >>> trials = [Trial(n, COMPLETE, ActionSet(), params, 0, accuracy, 0.0, 1.0)
        ...           for n, (params, accuracy) in enumerate([(9, 0.9), (5, 0.7), (7, 0.6)])]
        >>> [trial.number for trial in pareto_front(trials, lambda accuracy: accuracy)]
        [1, 0]
    """
    complete = [
        (
            int(trial.num_params or 0),
            -quality(float(trial.validation_metric or 0.0)),
            trial.number,
            trial,
        )
        for trial in trials
        if trial.is_complete
    ]
    front: list[Trial] = []
    least = math.inf
    for _, loss, _, trial in sorted(complete, key=lambda row: row[:3]):
        if loss < least:
            front.append(trial)
            least = loss
    return front
