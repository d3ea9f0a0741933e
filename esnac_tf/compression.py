"""The search, readable from top to bottom: suggest, evaluate, record, learn; then train fully.

`compress` and `search_students` are the Python API; the command line stands on them.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from esnac_tf import exporters, objectives, strategies
from esnac_tf.architecture import ActionSet
from esnac_tf.best_students import BestStudents
from esnac_tf.compilation import compile_like
from esnac_tf.config import SearchConfig
from esnac_tf.datasets.given import given_evaluation_batches, given_training_batches
from esnac_tf.diagnosis import require_success
from esnac_tf.display import Display
from esnac_tf.distillation import (
    TrainingOutcome,
    evaluate,
    get_strategy,
    train,
)
from esnac_tf.distillation.interruption import interruptible
from esnac_tf.errors import UnknownNameError, UserError
from esnac_tf.evaluation import Evaluated, Evaluator, OnFinished
from esnac_tf.footprint import footprints
from esnac_tf.full_training import FullyTrained, train_once
from esnac_tf.graph.checks import check_examples, check_searchable
from esnac_tf.graph.cost import count_flops, count_params
from esnac_tf.graph.teacher import analyse
from esnac_tf.objectives import Measurement
from esnac_tf.purpose import Purpose, check_labels, find_purpose, with_outputs
from esnac_tf.record import RunFolder
from esnac_tf.result import SearchResult, Student
from esnac_tf.scalars import ScalarWriter
from esnac_tf.search_space.space import SearchSpace
from esnac_tf.strategies import StrategyContext
from esnac_tf.student import StudentBuilder
from esnac_tf.teacher_measurement import is_chance, measure_teacher
from esnac_tf.training_progress import training_progress
from esnac_tf.trial import best_trial


def compress(model: keras.Model, train: Any, validation: Any, **settings: Any) -> keras.Model:
    """Finds a smaller model that does what a trained model does.

    Args:
        model: A trained functional or Sequential Keras model. One with one output [B, C] that
            is not compiled, or with a cross entropy of classes, is a classifier: it gives
            logits, or probabilities if it ends in a softmax.
        train: What `fit` takes: (x, y) arrays or structures of arrays, or batches as a
            tf.data.Dataset or a keras.utils.PyDataset; classes as numbers or one-hot.
        validation: Held-out data of the same form; it chooses among students and is never
            trained on.
        **settings: As of `search_students`.

    Returns:
        The student with the best objective, a plain Keras model.

    Raises:
        UserError: The model or the data can't be used, or a setting is out of range.

    Example:
        >>> import numpy as np
        >>> keras.utils.set_random_seed(0)
        >>> x = np.random.default_rng(0).normal(size=(256, 8)).astype("float32")
        >>> y = (x[:, 0] > 0).astype(int)
        >>> inputs = keras.Input((8,))
        >>> hidden = keras.layers.Dense(32, activation="relu")(inputs)
        >>> teacher = keras.Model(inputs, keras.layers.Dense(2)(hidden))
        >>> teacher.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> _ = teacher.fit(x[:192], y[:192], epochs=5, verbose=0)
        >>> student = compress(
        ...     teacher, (x[:192], y[:192]), (x[192:], y[192:]), strategy="random",
        ...     num_steps=1, num_kernels=2, search_epochs=1, full_epochs=1, batch_size=32,
        ... )
        >>> student.count_params() < teacher.count_params()
        True
    """
    return search_students(model, train, validation, **settings).students[0].model


def search_students(
    model: keras.Model,
    train: Any,
    validation: Any,
    *,
    test: Any = None,
    run_dir: str | os.PathLike[str] | None = None,
    config: SearchConfig | None = None,
    run_config: Mapping[str, Any] | None = None,
    display: Display | None = None,
    metric: Any = None,
    loss: Any = None,
    distillation_loss: Any = None,
    **settings: Any,
) -> SearchResult:
    """Searches for small students of a trained model, and trains the best fully.

    Args:
        model: A trained functional or Sequential Keras model, as for `compress`.
        train: Training data: (x, y) arrays, a tf.data.Dataset of batches, or batches by epoch
            (`esnac_tf.datasets.pipelines.TrainingBatches`).
        validation: Held-out data: (x, y) arrays or a tf.data.Dataset of batches.
        test: Data that is looked at once, at the very end; None leaves it out.
        run_dir: The run folder. With one, a search that was interrupted goes on where it was.
            None keeps nothing on disk.
        config: All settings in one value; or give single ones as keywords.
        run_config: More settings for the run folder to remember and hold against those of a
            resumed run, such as where model and data came from.
        display: Where progress is shown; None shows nothing.
        metric: What students are judged by: "accuracy", "loss", the name of a Keras metric, a
            `keras.metrics.Metric`, or a dict with one metric by the name of an output. None:
            the accuracy of a classifier, the loss of any other model. `metric_direction` says
            whether more or less is better where its name does not tell.
        loss: The loss with the labels: the name of a Keras loss, a `keras.losses.Loss`, or a
            list or dict of these by output. None: the cross entropy of a classifier, or what
            the model is compiled with.
        distillation_loss: The loss of the search: one of `esnac_tf.distillation.losses` for a
            classifier; for any other model a Keras loss between the teacher's outputs and the
            student's, None: the mean squared error.
        **settings: Fields of `esnac_tf.config.SearchConfig` by name, such as `num_steps`.

    Returns:
        The best students, all trials, and a summary.

    Raises:
        UserError: The model or the data can't be used, a setting is out of range, the run
            folder holds another run, or no student could be trained.
    """
    asked = {"metric": metric, "loss": loss, "distillation_loss": distillation_loss}
    names = {name: value for name, value in asked.items() if isinstance(value, str)}
    config = _config(config, {**settings, **names})
    objects = {name: value for name, value in asked.items() if name not in names}
    purpose = find_purpose(model, config, **objects)
    display = display or Display(quiet=True)
    with (
        interruptible(),
        tempfile.TemporaryDirectory() as scratch,
        RunFolder(run_dir or scratch) as run,
    ):
        fixed = {**config.fixed(), **purpose.settings, **(run_config or {})}
        run.check_or_write_config(fixed, config.free())
        search = _Search(model, train, validation, test, config, purpose, run, display)
        best = search.run_steps()
        students = search.train_fully(best)
        result = search.finish(search.test(students), export=bool(run_dir))
    return result if run_dir else dataclasses.replace(result, run_dir=None)


class _Search:
    """A search under way."""

    def __init__(
        self,
        model: keras.Model,
        train_data: Any,
        validation_data: Any,
        test_data: Any,
        config: SearchConfig,
        purpose: Purpose,
        run: RunFolder,
        display: Display,
    ) -> None:
        self._start_secs = time.perf_counter()
        self._config, self._run, self._display = config, run, display
        self._name, self._given = model.name, model
        self._graph = analyse(model, config.channel_groups, config.protect)
        check_searchable(self._graph)
        size, labels = config.batch_size, (purpose.num_classes, purpose.task.is_classifier)
        self._batches = given_training_batches(train_data, size, config.seed, *labels)
        self._validation = given_evaluation_batches(validation_data, size, *labels)
        self._test = None
        if test_data is not None:
            self._test = given_evaluation_batches(test_data, size, *labels)
        first_epoch = self._batches.epoch(0)
        check_examples(model, first_epoch, "training")
        check_examples(model, self._validation, "validation")
        if self._test is not None:
            check_examples(model, self._test, "test")
        self._distribution = get_strategy(config.distribute)
        self._builder = StudentBuilder(model, self._graph, config.channel_importance)
        with self._distribution.scope():
            self._teacher = self._builder.build(ActionSet())
        x, y = next(iter(first_epoch))
        self._purpose = with_outputs(purpose, model, x)
        check_labels(self._purpose, model, x, y)
        self._objective = objectives.get(config.objective)
        self._measured = measure_teacher(
            self._teacher,
            self._purpose,
            self._batches,
            self._validation,
            self._distribution,
            run,
            display,
        )
        self._trials = run.trials()

    def run_steps(self) -> BestStudents:
        """Suggests, evaluates, records and learns; trials of an earlier process count."""
        config = self._config
        strategy = strategies.create(
            config.strategy,
            StrategyContext(
                SearchSpace(self._graph, config.max_shrinkage, config.round_channels_to),
                config.seed,
                config.acquisition,
                config.num_candidates,
                config.surrogate(),
            ),
        )
        best = BestStudents(self._run.path / "checkpoints", config.num_best)
        best.add([Evaluated(trial, None) for trial in self._trials])
        if self._trials:
            self._display.message(f"Going on after {len(self._trials)} trials in {self._run.path}.")
        with (
            ScalarWriter(self._run.tensorboard_path) as scalars,
            self._display.phase("Search", config.num_steps) as phase,
        ):
            for step in range(config.num_steps):
                numbers = range(step * config.num_kernels, (step + 1) * config.num_kernels)
                finished = [trial for trial in self._trials if trial.number in numbers]
                if len(finished) < config.num_kernels:
                    phase.update(f"step {step + 1}: choosing students")
                    proposals = dict(zip(numbers, strategy.suggest(len(numbers)), strict=False))
                    if not proposals:
                        self._display.message("There is no student left that was not tried.")
                        break
                    done = {trial.number for trial in finished}
                    missing = {n: actions for n, actions in proposals.items() if n not in done}
                    phase.update(f"step {step + 1}: {len(missing)} students")
                    keep = functools.partial(self._keep, best, scalars)
                    evaluated = self._evaluate(missing, step, keep) if missing else []
                    finished += [item.trial for item in evaluated]
                    if evaluated:
                        secs = max(item.trial.duration_secs for item in evaluated)
                        self._display.step_finished(step, secs)
                    require_success(finished, self._trials)
                strategy.update(sorted(finished, key=lambda trial: trial.number))
                phase.advance()
        self._restore(best)
        return best

    def _keep(
        self, best: BestStudents, scalars: ScalarWriter, evaluated: Sequence[Evaluated]
    ) -> None:
        """Writes finished trials to the run folder, and the weights of the best."""
        first = len(self._trials)
        for item in evaluated:  # Before all else: what fails below must lose none of them.
            self._run.append(item.trial)
            self._trials.append(item.trial)
        best.add(evaluated)
        for index, trial in enumerate(self._trials[first:], start=first):
            leader = best_trial(self._trials[: index + 1])
            scalars.write(trial, leader.objective if leader else None)
            self._display.trial_finished(trial, leader)

    def _restore(self, best: BestStudents) -> None:
        """Trains those of the best again whose weights are not there; they come out the same."""
        lost = best.lost()
        for step in sorted({trial.step for trial in lost}):
            again = {trial.number: trial.actions for trial in lost if trial.step == step}
            self._display.message(
                f"Training again for their weights: trials {', '.join(map(str, again))}."
            )
            best.keep(self._evaluate(again, step))

    def train_fully(self, best: BestStudents) -> list[Student]:
        """Trains the best students to the end, together; best objective first."""
        config = self._config
        if not best.trials:
            raise UserError(
                "The search has no complete trial, so there is no student to train.\n"
                "Raise --num_steps, or look at the failures in trials.jsonl."
            )
        with self._distribution.scope():
            models = [
                self._builder.build(trial.actions, name=f"{self._name}_student_{trial.number}")
                for trial in best.trials
            ]
        for model, trial in zip(models, best.trials, strict=True):
            best.restore(model, trial)
        if config.full_epochs:
            settings = config.full_settings()
            outcomes = train_once(
                models,
                best.trials,
                settings,
                self._run,
                lambda: self._train_models(models),
                self._purpose.task.metric.quality,
                self._display.message,
            )
        else:
            outcomes = [FullyTrained(float(t.validation_metric or 0.0)) for t in best.trials]
        students = []
        quality = self._purpose.task.metric.quality
        for model, trial, outcome in zip(models, best.trials, outcomes, strict=True):
            if outcome.failure is not None:
                self._display.message(
                    f"The full training of trial {trial.number} ended early: {outcome.failure}."
                )
            elif config.full_epochs and not outcome.best_epoch:
                self._display.message(
                    f"The full training did not improve trial {trial.number}: it keeps the "
                    "weights of the search. Raise --full_epochs, or lower --batch_size."
                )
            value = outcome.validation_metric
            if is_chance(value, self._purpose):
                self._display.warning(
                    f"Trial {trial.number} is hardly better than chance: train longer "
                    "(--search_epochs, --full_epochs), on more examples or with smaller batches."
                )
            measured = Measurement(count_params(model), count_flops(model), quality(value))
            students.append(
                Student(
                    model=model,
                    trial=trial,
                    num_params=measured.num_params,
                    flops=measured.flops,
                    validation_metric=value,
                    test_metric=None,
                    objective=self._objective(measured, self._measured),
                    times_smaller=self._measured.num_params / measured.num_params,
                    best_epoch=outcome.best_epoch,
                    failure=outcome.failure,
                )
            )
        return sorted(students, key=lambda student: -student.objective)

    def _train_models(self, models: Sequence[keras.Model]) -> list[TrainingOutcome]:
        training = self._config.full_training()
        with self._progress("Full training", training.epochs) as (on_epoch, on_batch):
            return train(
                models,
                self._batches,
                self._validation,
                training,
                loss=self._purpose.full_loss,
                teacher=self._teacher,
                strategy=self._distribution,
                task=self._purpose.task,
                on_epoch=on_epoch,
                on_batch=on_batch,
                seed=self._config.seed,
            )

    def test(self, students: Sequence[Student]) -> list[Student]:
        """Looks at the test data, once; without any the students stay as they are."""
        self._test_metric = None
        if self._test is None:
            return list(students)
        task = self._purpose.task
        self._display.message(f"Measuring test {task.metric.name}.")
        models = [self._teacher, *(student.model for student in students)]
        values = evaluate(models, self._test, self._distribution, task)
        self._test_metric = values[0]
        return [
            dataclasses.replace(student, test_metric=value)
            for student, value in zip(students, values[1:], strict=True)
        ]

    def finish(self, students: Sequence[Student], export: bool) -> SearchResult:
        """Writes the summary, then exports: what fails there takes nothing with it."""
        students = self._measure_footprints(students)
        self._compile(students)
        self._run.write_summary(self._summary(students))
        if export:
            students = [self._export(student) for student in students]
        summary = self._summary(students)
        self._run.write_summary(summary)
        trials = sorted(self._trials, key=lambda trial: trial.number)
        return SearchResult(tuple(students), tuple(trials), summary, self._run.path)

    def _measure_footprints(self, students: Sequence[Student]) -> list[Student]:
        """Latency and file size of teacher and students, side by side."""
        x, *_ = next(iter(self._validation))
        measured = footprints([self._teacher, *(student.model for student in students)], x)
        self._footprint = measured[0]
        return [
            dataclasses.replace(student, **dataclasses.asdict(footprint))
            for student, footprint in zip(students, measured[1:], strict=True)
        ]

    def _compile(self, students: Sequence[Student]) -> None:
        """Compiles students as the teacher was given, so that they drop into its place."""
        with self._distribution.scope():
            for student in students:
                try:
                    compile_like(student.model, self._given)
                except UserError as error:
                    self._display.warning(str(error))
                    return

    def _export(self, student: Student) -> Student:
        """The student, saved in the run folder in all formats asked for."""
        stem = self._run.students_path / f"trial_{student.trial.number:05d}"
        exports, failures = {}, {}
        for name in self._config.export:
            self._display.message(f"Exporting trial {student.trial.number} as {name}.")
            try:
                path = exporters.get(name).export(student.model, stem)
            except UserError as error:
                failures[name] = str(error)
                self._display.message(f"That failed: {error}")
            else:
                exports[name] = str(path.relative_to(self._run.path))
        return dataclasses.replace(student, exports=exports, export_failures=failures)

    def _summary(self, students: Sequence[Student]) -> dict[str, Any]:
        """What summary.json holds."""
        return {
            "teacher": {
                **(self._run.teacher() or {}),
                "name": self._name,
                **dataclasses.asdict(self._footprint),
                f"test_{self._purpose.task.metric.name}": self._test_metric,
            },
            "students": [student.to_json() for student in students],
            "settings": self._config.free(),
            "num_trials": len(self._trials),
            "num_failed_trials": sum(not trial.is_complete for trial in self._trials),
            "duration_secs": time.perf_counter() - self._start_secs,
        }

    def _evaluator(self) -> Evaluator:
        return Evaluator(
            builder=self._builder,
            teacher=self._teacher,
            teacher_measurement=self._measured,
            objective=self._objective,
            batches=self._batches,
            validation=self._validation,
            config=self._config.search_training(),
            loss=self._purpose.search_loss,
            distribution=self._distribution,
            task=self._purpose.task,
            seed=self._config.seed,
        )

    def _evaluate(
        self,
        proposals: Mapping[int, ActionSet],
        step: int,
        on_finished: OnFinished | None = None,
    ) -> list[Evaluated]:
        progress = self._progress(f"Step {step + 1}", self._config.search_epochs)
        with progress as (on_epoch, on_batch):
            return self._evaluator().evaluate(proposals, step, on_epoch, on_batch, on_finished)

    def _progress(self, title: str, num_epochs: int) -> Any:
        metric = self._purpose.task.metric.name
        return training_progress(self._display, title, num_epochs, self._batches, metric)


def _config(config: SearchConfig | None, settings: Mapping[str, Any]) -> SearchConfig:
    """One config from a config and single settings."""
    known = {field.name for field in dataclasses.fields(SearchConfig)}
    for name in settings:
        if name not in known:
            raise UnknownNameError("setting", name, known, "esnac_tf/config.py")
    return dataclasses.replace(config or SearchConfig(), **settings)
