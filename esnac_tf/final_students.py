"""What becomes of the best students: trained fully, tested once, measured, exported, told."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from typing import Any

import keras

from esnac_tf import exporters
from esnac_tf.best_students import BestStudents
from esnac_tf.compilation import compile_like
from esnac_tf.distillation import TrainingOutcome, evaluate, train
from esnac_tf.distillation.checkpoint import kept_training
from esnac_tf.distillation.machines import joined
from esnac_tf.errors import UserError
from esnac_tf.footprint import Footprint, footprints
from esnac_tf.full_training import FullyTrained, train_once
from esnac_tf.graph.cost import count_flops, count_params
from esnac_tf.joint_machines import follow_order, full_training_order
from esnac_tf.objectives import Measurement
from esnac_tf.profiling import measured, seconds_so_far
from esnac_tf.result import SearchResult, Student
from esnac_tf.search_setup import SearchSetup
from esnac_tf.teacher_measurement import is_chance
from esnac_tf.trial import Trial, pareto_front


def train_fully(setup: SearchSetup, best: BestStudents) -> list[Student]:
    """Trains the best students to the end, together.

    Returns:
        The students, best objective first.

    Raises:
        UserError: There are none.
    """
    config = setup.config
    if not best.trials:
        raise UserError(
            "The search has no complete trial, so there is no student to train.\n"
            "Raise --num_steps, or look at the failures in trials.jsonl."
        )
    with measured("building"), setup.distribution.scope():
        models = [
            setup.builder.build(trial.actions, name=f"{setup.model.name}_student_{trial.number}")
            for trial in best.trials
        ]
    for model, trial in zip(models, best.trials, strict=True):
        best.restore(model, trial)
    if config.full_epochs:
        outcomes = train_once(
            models,
            best.trials,
            config.full_settings(setup.purpose.task.is_classifier),
            setup.run,
            lambda: _train(setup, models, best.trials),
            setup.purpose.task.metric.quality,
            setup.display.message,
        )
    else:
        outcomes = [FullyTrained(float(trial.validation_metric or 0.0)) for trial in best.trials]
    students = [
        _student(setup, model, trial, outcome)
        for model, trial, outcome in zip(models, best.trials, outcomes, strict=True)
    ]
    return sorted(students, key=lambda student: -student.objective)


def finish(
    setup: SearchSetup, students: Sequence[Student], trials: Sequence[Trial]
) -> SearchResult:
    """Tests and measures students, writes the summary, then exports to a folder that is kept.

    Args:
        setup: The search.
        students: The best students, trained.
        trials: All trials.

    Returns:
        What the search found.
    """
    models = [setup.teacher, *(student.model for student in students)]
    with measured("evaluation"):
        metrics = _test(setup, models)
        x, *_ = next(iter(setup.validation))
        sizes = footprints(models, x)
    students = [
        dataclasses.replace(student, test_metric=value, **dataclasses.asdict(footprint))
        for student, value, footprint in zip(students, metrics[1:], sizes[1:], strict=True)
    ]
    _compile(setup, students)
    front = pareto_front(trials, setup.purpose.task.metric.quality)

    def write_summary() -> dict[str, Any]:
        summary = _summary(setup, students, trials, front, metrics[0], sizes[0])
        setup.run.write_summary(summary)
        return summary

    summary = write_summary()  # before the exports: a failure there takes no figures with it
    if setup.run.is_kept:
        with measured("writing"):
            students = [_export(setup, student) for student in students]
        summary = write_summary()
    ordered = sorted(trials, key=lambda trial: trial.number)
    return SearchResult(tuple(students), tuple(ordered), tuple(front), summary, setup.run.path)


def _train(
    setup: SearchSetup, models: Sequence[keras.Model], trials: Sequence[Trial]
) -> list[TrainingOutcome]:
    """Trains models fully, on all machines if there are several."""
    training = setup.config.full_training(setup.purpose.task.is_classifier)
    machines, seed = joined(), setup.config.seed
    if machines is not None:
        order = full_training_order(models, trials, training)
        with setup.progress("Full training", training.epochs) as callbacks:
            machines.tell(order)
            outcomes, trained = follow_order(machines, order, setup, seed, *callbacks)
        for model, student in zip(models, trained, strict=True):
            model.set_weights(student.get_weights())
        return outcomes
    # On one device each, students of the search may have been compiled; on several none can be.
    jit_compile = training.jit_compile and setup.distribution.num_replicas_in_sync == 1
    training = dataclasses.replace(training, jit_compile=jit_compile)
    settings = setup.config.full_settings(setup.purpose.task.is_classifier)
    names = [json.dumps([trial.to_json(), settings, repr(training)]) for trial in trials]
    with (
        setup.progress("Full training", training.epochs) as (on_epoch, on_batch),
        kept_training(setup.run.training_path("full"), names) as checkpoint,
    ):
        return train(
            models,
            setup.batches,
            setup.validation,
            training,
            loss=setup.purpose.full_loss,
            teacher=setup.teacher,
            strategy=setup.distribution,
            task=setup.purpose.task,
            on_epoch=on_epoch,
            on_batch=on_batch,
            at_once=setup.at_once,
            checkpoint=checkpoint,
            seed=seed,
        )


def _student(
    setup: SearchSetup, model: keras.Model, trial: Trial, outcome: FullyTrained
) -> Student:
    """A student and what its training came to; the user is told of what went wrong."""
    if outcome.failure is not None:
        # Those of classifiers are whole numbers.
        is_classifier = setup.purpose.task.is_classifier
        labels = "" if is_classifier else ", or look for NaN among the labels"
        setup.display.warning(
            f"The full training of trial {trial.number} ended early: {outcome.failure}. "
            f"Lower full_learning_rate{labels}."
        )
    elif setup.config.full_epochs and not outcome.best_epoch:
        setup.display.warning(
            f"The full training did not improve trial {trial.number}: it keeps the weights of "
            "the search. Lower full_learning_rate, or raise full_epochs."
        )
    value = outcome.validation_metric
    if is_chance(value, setup.purpose):
        setup.display.warning(
            f"Trial {trial.number} is hardly better than chance: train longer "
            "(--search_epochs, --full_epochs), on more examples or with smaller batches."
        )
    metric = setup.purpose.task.metric
    quality = metric.quality(value)
    if metric.name != "accuracy" and quality < setup.measured.quality / 2:
        teacher = metric.quality(setup.measured.quality)  # which is its own inverse
        setup.display.warning(
            f"Trial {trial.number} is less than half as good as the teacher: its {metric.name} is "
            f"{value:.6g}, the teacher's {teacher:.6g}. Raise search_epochs or "
            "full_epochs, or take less away (removal_probabilities, max_shrinkage)."
        )
    measurement = Measurement(count_params(model), count_flops(model), quality)
    return Student(
        model=model,
        trial=trial,
        num_params=measurement.num_params,
        flops=measurement.flops,
        validation_metric=value,
        test_metric=None,
        objective=setup.objective(measurement, setup.measured),
        times_smaller=setup.measured.num_params / measurement.num_params,
        best_epoch=outcome.best_epoch,
        failure=outcome.failure,
    )


def _test(setup: SearchSetup, models: Sequence[keras.Model]) -> Sequence[float | None]:
    """The metric of models on the test data, looked at once; None without any."""
    if setup.test is None:
        return [None] * len(models)
    task = setup.purpose.task
    setup.display.message(f"Measuring test {task.metric.name}.")
    return evaluate(models, setup.test, setup.distribution, task)


def _compile(setup: SearchSetup, students: Sequence[Student]) -> None:
    """Compiles students as the teacher was given, so that they drop into its place."""
    with setup.distribution.scope():
        for student in students:
            try:
                compile_like(student.model, setup.model)
            except UserError as error:
                setup.display.warning(str(error))
                return


def _export(setup: SearchSetup, student: Student) -> Student:
    """The student, saved in the run folder in all formats asked for."""
    stem = setup.run.students_path / f"trial_{student.trial.number:05d}"
    exports, failures = {}, {}
    for name in setup.config.export:
        setup.display.message(f"Exporting trial {student.trial.number} as {name}.")
        try:
            path = exporters.get(name).export(student.model, stem)
        except UserError as error:
            failures[name] = str(error)
            setup.display.message(f"That failed: {error}")
        else:
            exports[name] = str(path.relative_to(setup.run.path))
    return dataclasses.replace(student, exports=exports, export_failures=failures)


def _summary(
    setup: SearchSetup,
    students: Sequence[Student],
    trials: Sequence[Trial],
    front: Sequence[Trial],
    test_metric: float | None,
    footprint: Footprint,
) -> dict[str, Any]:
    """What summary.json holds; `test_metric` and `footprint` are the teacher's."""
    return {
        "teacher": {
            **(setup.run.teacher() or {}),
            "name": setup.model.name,
            **dataclasses.asdict(footprint),
            f"test_{setup.purpose.task.metric.name}": test_metric,
        },
        "students": [student.to_json() for student in students],
        "front": [trial.number for trial in front],
        "settings": setup.config.free(),
        "num_trials": len(trials),
        "num_failed_trials": sum(not trial.is_complete for trial in trials),
        "duration_secs": time.perf_counter() - setup.start_secs,
        "profile": seconds_so_far(),
    }
