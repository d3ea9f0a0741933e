"""The search, readable from top to bottom: suggest, evaluate, record, learn; then train fully.

`compress` and `search_students` are the Python API; the command line stands on them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import shutil
import tempfile
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import keras

from esnac_tf import executors, strategies
from esnac_tf.architecture import ActionSet
from esnac_tf.best_students import BestStudents
from esnac_tf.config import SearchConfig
from esnac_tf.diagnosis import require_success
from esnac_tf.display import Display
from esnac_tf.distillation.interruption import interruptible
from esnac_tf.distillation.machines import joined
from esnac_tf.errors import UnknownNameError, UserError
from esnac_tf.evaluation import Evaluated, Evaluator, OnFinished
from esnac_tf.executors import Executor, ExecutorContext
from esnac_tf.final_students import finish, train_fully
from esnac_tf.joint_machines import agree_on_search
from esnac_tf.profiling import measured, profiled
from esnac_tf.purpose import find_purpose, named_settings
from esnac_tf.record import RunFolder
from esnac_tf.result import SearchResult
from esnac_tf.resuming import check_resume
from esnac_tf.scalars import ScalarWriter
from esnac_tf.search_setup import SearchSetup, prepare, targets_folder
from esnac_tf.strategies import Strategy, StrategyContext
from esnac_tf.trial import LOST, Trial, best_trial


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
        The best students, all trials, the front of those that no other beats in parameters or
        in the metric without losing in the other, and a summary.

    Raises:
        UserError: The model or the data can't be used, a setting is out of range, the run
            folder holds another run, or no student could be trained.
    """
    config, objects = named_settings(_config(config, settings), metric, loss, distillation_loss)
    check_resume(run_dir, config.resume)
    executors.check(config.executor, config.placement())
    machines = joined()
    if machines is not None:
        if not machines.is_chief:
            raise UserError(
                "This machine is not the chief of those in TF_CONFIG.\n"
                "Call esnac_tf.joint_machines.assist here, and search_students on the chief."
            )
        # Several strategies that exchange gradients would get into each other's way.
        config = dataclasses.replace(config, distribute="none")
    purpose = find_purpose(model, config, **objects)
    display = display or Display(quiet=True)
    with (
        profiled(),
        contextlib.nullcontext() if machines is None else machines.lasting(),
        interruptible(),
        tempfile.TemporaryDirectory() as scratch,
        RunFolder(run_dir or scratch, is_kept=bool(run_dir)) as run,
    ):
        fixed = {**config.fixed(), **purpose.settings, **(run_config or {})}
        run.check_or_write_config(fixed, config.free())
        with measured("teacher"):
            setup = prepare(model, train, validation, test, config, purpose, run, display)
            if machines is not None:  # told before the search, not after it
                agree_on_search(machines, model, setup.config, setup)
        search = _Search(setup)
        students = train_fully(setup, search.run_steps())
        result = finish(setup, students, search.trials)
    return result if run_dir else dataclasses.replace(result, run_dir=None)


class _Search:
    """The steps of a search."""

    def __init__(self, setup: SearchSetup) -> None:
        self._setup, self._config = setup, setup.config
        self._run, self._display = setup.run, setup.display
        self.trials = setup.run.trials()
        self._lost: list[Trial] = []  # to be submitted again

    def run_steps(self) -> BestStudents:
        """Suggests, evaluates, records and learns; trials of an earlier process count."""
        config = self._config
        with measured("import"):  # of TensorFlow Probability, mostly
            strategy = strategies.create(
                config.strategy,
                StrategyContext(
                    self._setup.space,
                    config.seed,
                    config.acquisition,
                    config.num_candidates,
                    config.surrogate(),
                ),
            )
        best = BestStudents(self._run.path / "checkpoints", config.num_best)
        best.add([Evaluated(trial, None) for trial in self.trials])
        if self.trials:
            self._display.message(f"Going on after {len(self.trials)} trials in {self._run.path}.")
        with (
            ScalarWriter(self._run.tensorboard_path) as scalars,
            self._executor(functools.partial(self._keep, best, scalars)) as executor,
        ):
            if config.asynchronous:
                self._run_asynchronously(strategy, executor)
            else:
                self._run_in_steps(strategy, executor)
        self._restore(best)
        # Also what a process with other settings kept here.
        shutil.rmtree(targets_folder(self._run), ignore_errors=True)
        self._run.remove_trainings("search")
        return best

    def _run_in_steps(self, strategy: Strategy, executor: Executor) -> None:
        """Proposes the next students when all of a step are finished."""
        config = self._config
        with self._display.phase("Search", config.num_steps) as phase:
            for step in range(config.num_steps):
                numbers = range(step * config.num_kernels, (step + 1) * config.num_kernels)
                known = self._trials_of(numbers)
                missing: dict[int, ActionSet] = {}
                if len(known) < config.num_kernels:
                    phase.update(f"step {step + 1}: choosing students")
                    with measured("surrogate"):
                        suggested = strategy.suggest(len(numbers))
                    proposals = dict(zip(numbers, suggested, strict=False))
                    if not proposals:
                        self._display.message("There is no student left that was not tried.")
                        break
                    done = {trial.number for trial in known}
                    missing = {n: actions for n, actions in proposals.items() if n not in done}
                    phase.update(f"step {step + 1}: {len(missing)} students")
                    if missing and config.halving_factor > 1:
                        missing = proposals  # all of a step are compared; some are known then
                    if missing:
                        secs = max(t.duration_secs for t in self._train(executor, missing, step))
                        self._display.step_finished(step, secs)
                    require_success(self._trials_of(numbers), self.trials)
                with measured("surrogate"):
                    strategy.update(self._trials_of(numbers))
                phase.advance(is_new=bool(missing))

    def _run_asynchronously(self, strategy: Strategy, executor: Executor) -> None:
        """Proposes the next student whenever there is room for one."""
        config = self._config
        total = config.num_steps * config.num_kernels
        known = sorted(self.trials, key=lambda trial: trial.number)
        done = {trial.number for trial in known}
        free = [number for number in range(total) if number not in done]
        pending: dict[int, ActionSet] = {}
        with self._display.phase("Search", total) as phase:
            phase.advance(len(known), is_new=False)
            with measured("surrogate"):
                for trial in known:
                    strategy.update([trial])
            while free or pending:
                room = self._wait(executor)
                finished = self._trials_of(pending)
                for trial in finished:
                    del pending[trial.number]
                    with measured("surrogate"):
                        strategy.update([trial])
                    phase.advance()
                if finished:
                    require_success([], self.trials)
                if room and free:
                    phase.update("choosing students")
                    with measured("surrogate"):
                        count = min(room, len(free))
                        suggested = strategy.suggest(count, list(pending.values()))
                    if not suggested:
                        self._display.message("There is no student left that was not tried.")
                        free = []
                    for actions in suggested:
                        number = free.pop(0)
                        pending[number] = actions
                        executor.submit({number: actions}, number // config.num_kernels)
                phase.update(f"{len(pending)} students")

    def _trials_of(self, numbers: Collection[int]) -> list[Trial]:
        """Those trials of some numbers that are there, in the order of their numbers."""
        trials = [trial for trial in self.trials if trial.number in numbers]
        return sorted(trials, key=lambda trial: trial.number)

    def _train(
        self, executor: Executor, proposals: Mapping[int, ActionSet], step: int
    ) -> list[Trial]:
        """Trains students, and returns their trials."""
        executor.submit(proposals, step)
        while len(trials := self._trials_of(proposals)) < len(proposals):
            self._wait(executor)
        return trials

    def _wait(self, executor: Executor) -> int:
        """Waits, submits again what was lost, and returns for how many more there is room."""
        room = executor.wait()
        lost, self._lost = self._lost, []
        for step in sorted({trial.step for trial in lost}):
            again = {trial.number: trial.actions for trial in lost if trial.step == step}
            executor.submit(again, step)
        return max(0, room - len(lost))

    @measured("writing")
    def _keep(
        self, best: BestStudents, scalars: ScalarWriter, evaluated: Sequence[Evaluated]
    ) -> None:
        """Writes finished trials to the run folder, and the weights of the best."""
        first, known = len(self.trials), {trial.number for trial in self.trials}
        evaluated = [item for item in evaluated if item.trial.number not in known]
        for item in evaluated:  # Before all else: what fails below must lose none of them.
            self._run.append(item.trial)
            (self._lost if item.trial.state == LOST else self.trials).append(item.trial)
        if self._lost:
            numbers = ", ".join(str(trial.number) for trial in self._lost)
            self._display.message(f"A worker died; trained again: trials {numbers}.")
        best.add(evaluated)
        for index, trial in enumerate(self.trials[first:], start=first):
            leader = best_trial(self.trials[: index + 1])
            scalars.write(trial, leader.objective if leader else None)
            self._display.trial_finished(trial, leader, self._config.search_epochs)

    def _restore(self, best: BestStudents) -> None:
        """Trains those of the best again whose weights are not there; they come out the same."""
        lost: dict[tuple[int, int], dict[int, ActionSet]] = {}
        for trial in best.lost():
            training = trial.step, trial.num_epochs or self._config.search_epochs
            lost.setdefault(training, {})[trial.number] = trial.actions
        for (step, num_epochs), again in sorted(lost.items()):
            self._display.message(
                f"Training again for their weights: trials {', '.join(map(str, again))}."
            )
            changes = {"search_epochs": num_epochs, "halving_factor": 1}
            with self._executor(best.keep, "local", **changes) as executor:
                executor.submit(again, step)
                executor.wait()
        for trial in best.leave_out_lost():
            self._display.warning(f"Trial {trial.number} failed this time and is left out.")

    def _executor(
        self, on_finished: OnFinished, name: str | None = None, **changes: Any
    ) -> contextlib.AbstractContextManager[Executor]:
        """What trains students, with other settings than the search's where given."""
        setup, config = self._setup, dataclasses.replace(self._config, **changes)
        evaluator = Evaluator(
            builder=setup.builder,
            groups=setup.groups,
            teacher_measurement=setup.measured,
            objective=setup.objective,
            batches=setup.search_batches,
            validation=setup.validation,
            config=config.search_training(),
            loss=setup.purpose.search_loss,
            task=setup.purpose.task,
            seed=config.seed,
            halving_factor=config.halving_factor,
            at_once=setup.at_once,
            checkpoint_path=setup.run.training_path("search"),
        )
        context = ExecutorContext(
            evaluator,
            on_finished,
            setup.progress,
            self._display.message,
            config.placement(),
        )
        return executors.opened(name or config.executor, context)


def _config(config: SearchConfig | None, settings: Mapping[str, Any]) -> SearchConfig:
    """One config from a config and single settings."""
    known = {field.name for field in dataclasses.fields(SearchConfig)}
    for name in settings:
        if name not in known:
            raise UnknownNameError("setting", name, known, "esnac_tf/config.py")
    return dataclasses.replace(config or SearchConfig(), **settings)
