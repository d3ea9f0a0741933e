"""The full training of the best students: done once, kept, and never to their harm."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from esnac_tf.distillation import TrainingOutcome
from esnac_tf.distillation.array_files import read_arrays, write_arrays
from esnac_tf.profiling import measured
from esnac_tf.record import RunFolder
from esnac_tf.trial import Trial


@dataclasses.dataclass(frozen=True)
class FullyTrained:
    """What the full training of one student came to.

    Attributes:
        validation_metric: Of the weights that the student has now.
        best_epoch: The epoch they are from, from 1; 0: the search.
        failure: None, or in one line why the training ended early.
    """

    validation_metric: float
    best_epoch: int = 0
    failure: str | None = None


def train_once(
    models: Sequence[keras.Model],
    trials: Sequence[Trial],
    settings: Mapping[str, Any],
    run: RunFolder,
    train: Callable[[], Sequence[TrainingOutcome]],
    quality: Callable[[float], float],
    message: Callable[[str], None],
) -> list[FullyTrained]:
    """Trains students fully, or takes what an earlier process came to.

    A student whose training did not reach the metric that it had keeps the weights of the
    search.

    Args:
        models: The students with the weights of the search; they get their final ones.
        trials: Their trials.
        settings: All that the outcome depends on beside models and data, as JSON values.
        run: The run folder, which keeps weights and outcomes.
        train: Trains the models.
        quality: How good a value of the metric is.
        message: Tells the user something.

    Returns:
        One outcome for each student.

    Raises:
        UserError: The run folder can't be written.
    """
    numbers = [trial.number for trial in trials]
    paths = [run.path / "checkpoints" / f"full_{number:05d}.npz" for number in numbers]
    key = {"trials": numbers, **settings}
    names = [json.dumps([key, trial.actions.to_json()]) for trial in trials]
    recorded = run.full_training()
    kept = _outcomes(recorded, key)
    if kept is not None:
        weights = [read_arrays(path, name) for path, name in zip(paths, names, strict=True)]
        if all(own is not None for own in weights):
            for model, own in zip(models, weights, strict=True):
                model.set_weights(own)
            return kept
    if recorded is not None and recorded.get("settings") != key:
        message("The full training is done again: its settings, or the best students, changed.")
    before = [model.get_weights() for model in models]
    results = []
    for model, trial, weights, outcome in zip(models, trials, before, train(), strict=True):
        value, epoch = float(trial.validation_metric or 0.0), 0
        if outcome.validation_metric is not None and outcome.quality >= quality(value):
            value, epoch = outcome.validation_metric, outcome.best_epoch
        else:
            model.set_weights(weights)
        results.append(FullyTrained(value, epoch, outcome.failure))
    with measured("writing"):
        for model, path, name in zip(models, paths, names, strict=True):
            write_arrays(path, name, model.get_weights())
        run.write_full_training(
            {"settings": key, "students": [dataclasses.asdict(result) for result in results]}
        )
    run.remove_trainings("full")
    return results


def _outcomes(recorded: Any, key: Mapping[str, Any]) -> list[FullyTrained] | None:
    """What an earlier process came to; None if it had other settings, or the file was changed."""
    if recorded is None or recorded.get("settings") != key:
        return None
    try:
        outcomes = [FullyTrained(**values) for values in recorded["students"]]
    except (TypeError, KeyError):
        return None
    types = [(type(o.validation_metric), type(o.best_epoch), type(o.failure)) for o in outcomes]
    whole = all(
        value in (int, float) and epoch is int and failure in (str, type(None))
        for value, epoch, failure in types
    )
    return outcomes if whole and len(outcomes) == len(key["trials"]) else None
