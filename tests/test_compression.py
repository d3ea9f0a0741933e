"""The whole search in Python: what comes out, what is kept, and how it goes on."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy

import esnac_tf
from esnac_tf import executors, exporters
from esnac_tf.architecture import ActionSet
from esnac_tf.compression import search_students
from esnac_tf.display import Display
from esnac_tf.distillation import joint_step, teacher_targets
from esnac_tf.errors import UserError
from esnac_tf.evaluation import Evaluated, Evaluator
from esnac_tf.strategies.history import History
from esnac_tf.trial_log import read_trials

ROOT = pathlib.Path(__file__).parents[1]


def search(model=None, train=toy.TRAIN, validation=toy.VALIDATION, test=None, **settings):
    model = toy.teacher() if model is None else model
    return search_students(model, train, validation, test=test, **{**toy.SHORT, **settings})


def comparable(trials):
    """Trials without what depends on the machine's speed."""
    return [dataclasses.replace(trial, duration_secs=0.0) for trial in trials]


def without_secs(value):
    """A summary without what two runs measure differently."""
    if isinstance(value, dict):
        kept = {key: part for key, part in value.items() if not key.endswith("_secs")}
        varying = ("file_bytes", "profile")
        return {key: without_secs(part) for key, part in kept.items() if key not in varying}
    return [without_secs(part) for part in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A search of two steps that nothing disturbed: (teacher, its first weights, result)."""
    teacher = toy.teacher()
    before = teacher.get_weights()
    run_dir = tmp_path_factory.mktemp("finished") / "run"
    return teacher, before, search(teacher, test=toy.TEST, run_dir=run_dir)


class TestResult:
    def test_the_teacher_is_untouched(self, finished):
        teacher, before, _ = finished
        for one, other in zip(teacher.get_weights(), before, strict=True):
            np.testing.assert_array_equal(one, other)
        assert len(teacher.get_layer("stem")._inbound_nodes) == 1

    def test_the_front_is_what_no_trial_beats(self, finished):
        _, _, result = finished
        assert result.front
        assert result.summary["front"] == [trial.number for trial in result.front]

        def beats(one, other):
            pair = (one.num_params, -one.validation_accuracy)
            against = (other.num_params, -other.validation_accuracy)
            return pair != against and all(a <= b for a, b in zip(pair, against, strict=True))

        for trial in result.trials:
            beaten = any(beats(other, trial) for other in result.trials)
            alike = [(t.num_params, t.validation_accuracy) for t in result.front]
            assert beaten != ((trial.num_params, trial.validation_accuracy) in alike)

    @pytest.mark.parametrize("strategy", ["random", "esnac"])
    def test_a_budget_of_parameters_is_kept(self, strategy):
        largest = toy.teacher().count_params() // 3
        result = search(max_params=largest, strategy=strategy)
        assert all(trial.num_params <= largest for trial in result.trials)
        assert all(student.num_params <= largest for student in result.students)

    def test_the_best_come_first_and_are_smaller(self, finished):
        teacher, _, result = finished
        assert len(result.students) == 2
        objectives = [student.objective for student in result.students]
        assert objectives == sorted(objectives, reverse=True)
        best = sorted((trial.objective for trial in result.trials), reverse=True)[:2]
        assert sorted((s.trial.objective for s in result.students), reverse=True) == best
        for student in result.students:
            assert student.model.count_params() < teacher.count_params()
            assert isinstance(student.model, keras.Model)

    def test_trials_are_numbered_and_all_there(self, finished):
        _, _, result = finished
        assert [trial.number for trial in result.trials] == list(range(6))
        assert [trial.step for trial in result.trials] == [0, 0, 0, 1, 1, 1]
        assert len({trial.actions for trial in result.trials}) == 6


class TestTeacherTargets:
    def test_kept_or_computed_the_trials_are_the_same(self, tmp_path):
        kept = search(teacher_targets="kept", strategy="random", full_epochs=0)
        computed = search(teacher_targets="computed", strategy="random", full_epochs=0)
        for one, other in zip(kept.trials, computed.trials, strict=True):
            assert one.actions == other.actions
            assert one.validation_accuracy == pytest.approx(other.validation_accuracy, abs=0.02)

    def test_the_teacher_computes_each_epoch_once(self, monkeypatch, tmp_path):
        written = []
        write = teacher_targets.write_arrays
        monkeypatch.setattr(
            teacher_targets,
            "write_arrays",
            lambda path, *rest: [written.append(path.name), write(path, *rest)],
        )
        search(run_dir=tmp_path, strategy="random", full_epochs=0)
        assert written == [f"epoch_{epoch:05d}.npz" for epoch in range(len(written))]
        assert len(written) == toy.SHORT["search_epochs"]
        assert not (tmp_path / "checkpoints" / "teacher_targets").exists()

    def test_a_dataset_of_its_own_order_has_none_kept(self, monkeypatch):
        dataset = tf.data.Dataset.from_tensor_slices(toy.TRAIN).shuffle(64).batch(16)
        monkeypatch.setattr(teacher_targets.TeacherTargets, "epoch", None)
        search(train=dataset, strategy="random", full_epochs=0)
        with pytest.raises(UserError, match="the same in every search step"):
            search(train=dataset, teacher_targets="kept")


class TestSuccessiveHalving:
    SETTINGS = {"strategy": "random", "full_epochs": 0, "num_kernels": 4, "search_epochs": 4}

    @pytest.fixture(scope="class")
    @classmethod
    def halved(cls, tmp_path_factory):
        run_dir = tmp_path_factory.mktemp("halved") / "run"
        return search(run_dir=run_dir, halving_factor=2, **cls.SETTINGS)

    def test_the_worse_halves_end_early(self, halved):
        for step in range(2):
            trials = [trial for trial in halved.trials if trial.step == step]
            assert sorted(trial.num_epochs for trial in trials) == [1, 1, 2, 4]
        whole = search(**self.SETTINGS)
        assert all(trial.num_epochs == 4 for trial in whole.trials)

    def test_who_goes_on_is_trained_as_in_a_whole_search(self, halved):
        whole = search(**self.SETTINGS)
        for one, other in zip(halved.trials, whole.trials, strict=True):
            assert one.actions == other.actions
            assert one.validation_accuracy <= other.validation_accuracy
            if one.num_epochs == 4:
                assert one.validation_accuracy == other.validation_accuracy
                assert one.best_epoch == other.best_epoch

    def test_lost_weights_come_out_the_same(self, halved, tmp_path):
        """Also those of a student that was discarded."""
        run = tmp_path / "run"
        shutil.copytree(halved.run_dir, run)
        shutil.rmtree(run / "checkpoints")
        settings = {**self.SETTINGS, "halving_factor": 2, "num_best": 8, "run_dir": run}
        result = search(**settings)
        assert {student.trial.num_epochs for student in result.students} == {1, 2, 4}
        for student in result.students:
            accuracy = toy.accuracy(student.model, toy.VALIDATION)
            assert accuracy == pytest.approx(student.trial.validation_accuracy)


class Slots:
    """An executor of two places, in which what was submitted last is finished first."""

    def __init__(self, context, losses=()):
        self.context, self.losses = context, list(losses)
        self.submitted, self.most = [], 0

    def submit(self, proposals, step):
        self.submitted.extend((number, actions, step) for number, actions in proposals.items())
        self.most = max(self.most, len(self.submitted))

    def wait(self):
        if self.submitted:
            number, actions, step = self.submitted.pop()
            if number in self.losses:
                self.losses.remove(number)
                trial = self.context.evaluator.failed(number, actions, step, "its worker died")
                lost = dataclasses.replace(trial, state="lost")
                self.context.on_finished([Evaluated(lost, None)])
            else:
                self.context.evaluator.evaluate(
                    {number: actions}, step, on_finished=self.context.on_finished
                )
        return 2 - len(self.submitted)


@pytest.fixture
def slots(monkeypatch):
    """The executors that were opened, and trials that are lost once each."""
    made, losses = [], []

    @contextlib.contextmanager
    def opened(name, context):
        made.append(Slots(context, losses))
        yield made[-1]

    monkeypatch.setattr(executors, "opened", opened)
    return made, losses


class TestLostTrials:
    @pytest.mark.parametrize("asynchronous", [False, True])
    def test_they_are_recorded_and_trained_again(self, slots, tmp_path, asynchronous, capsys):
        slots[1].extend([0, 1, 4, 4])
        settings = {"full_epochs": 0, "asynchronous": asynchronous}
        result = search(run_dir=tmp_path, display=Display(), **settings)
        assert sorted(trial.number for trial in result.trials) == list(range(6))
        assert all(trial.is_complete for trial in result.trials)
        lines = map(json.loads, (tmp_path / "trials.jsonl").read_text().splitlines())
        lost = [line for line in lines if line["state"] == "lost"]
        assert sorted(line["number"] for line in lost) == [0, 1, 4, 4]
        actions = {trial.number: trial.actions.to_json() for trial in result.trials}
        assert all(line["actions"] == actions[line["number"]] for line in lost)
        kept = sorted(read_trials(tmp_path), key=lambda trial: trial.number)
        assert kept == list(result.trials)
        assert "A worker died; trained again: trials 4." in capsys.readouterr().out


class TestAsynchronous:
    @pytest.mark.parametrize("strategy", ["random", "evolution", "esnac"])
    def test_one_at_a_time_it_is_the_search_in_steps_of_one(self, strategy):
        settings = {"strategy": strategy, "num_steps": 6, "num_kernels": 1, "full_epochs": 0}
        one, other = search(**settings), search(asynchronous=True, **settings)
        assert comparable(one.trials) == comparable(other.trials)

    @pytest.mark.parametrize("warm_steps", [0, 2])
    def test_a_resumed_search_goes_on_as_if_it_had_not_stopped(self, tmp_path, warm_steps):
        settings = {"strategy": "esnac", "num_kernels": 2, "full_epochs": 0, "asynchronous": True,
                    "kernel_warm_steps": warm_steps}  # fmt: skip
        whole = search(num_steps=3, **settings)
        search(num_steps=1, run_dir=tmp_path, **settings)
        resumed = search(num_steps=3, run_dir=tmp_path, **settings)
        assert comparable(resumed.trials) == comparable(whole.trials)

    def test_who_is_still_trained_is_known(self, slots, monkeypatch, tmp_path):
        """Two at a time, and the later one is finished first: nobody waits for the first."""
        asked = []
        suggest = History.ahead

        def recorded(history, pending):
            asked.append((len(history.trials), len(pending)))
            return suggest(history, pending)

        monkeypatch.setattr(History, "ahead", recorded)
        result = search(asynchronous=True, full_epochs=0, run_dir=tmp_path)
        assert asked == [(0, 0), (1, 1), (2, 1), (3, 1), (4, 1)]
        assert [trial.number for trial in read_trials(tmp_path)] == [1, 2, 3, 4, 5, 0]
        assert len({trial.actions for trial in result.trials}) == 6
        assert slots[0][0].most == 2

    @pytest.mark.filterwarnings("ignore:.*hardly better than chance")  # it is not trained
    def test_it_ends_where_no_student_is_left(self):
        inputs = keras.Input((toy.FEATURES,))
        x = keras.layers.Dense(3, name="hidden")(inputs)
        small = keras.Model(inputs, keras.layers.Dense(toy.CLASSES, name="top")(x))
        result = search(small, asynchronous=True, num_steps=9, full_epochs=0)
        assert 0 < len(result.trials) < 9 * toy.SHORT["num_kernels"]


class TestProfile:
    def test_it_tells_of_all_the_time(self, finished):
        _, _, result = finished
        profile = result.summary["profile"]
        parts = {"teacher", "surrogate", "building", "tracing", "training", "evaluation", "writing"}
        assert parts <= set(profile)
        assert all(secs > 0 for secs in profile.values())
        assert sum(profile.values()) >= result.summary["duration_secs"]


class TestRunFolder:
    def test_it_holds_what_it_says(self, finished):
        _, _, result = finished
        run = result.run_dir
        assert read_trials(run) == list(result.trials)
        assert json.loads((run / "summary.json").read_text()) == result.summary
        config = json.loads((run / "config.json").read_text())
        assert config["seed"] == 3
        assert config["num_kernels"] == 3
        assert (run / "teacher.json").is_file()
        numbers = sorted(student.trial.number for student in result.students)
        exported = sorted(path.name for path in (run / "students").iterdir())
        assert exported == [f"trial_{number:05d}.keras" for number in numbers]
        weights = {path.name for path in (run / "checkpoints").iterdir()}
        assert weights == {
            f"{stage}_{number:05d}.npz" for stage in ("trial", "full") for number in numbers
        }

    def test_every_number_of_the_summary_can_be_computed_again(self, finished):
        teacher, _, result = finished
        summary, run = result.summary, result.run_dir
        assert summary["num_trials"] == 6
        assert summary["num_failed_trials"] == 0
        told = summary["teacher"]
        assert told["name"] == "toy"
        assert told["num_params"] == trainable(teacher)
        assert told["validation_accuracy"] == pytest.approx(toy.accuracy(teacher, toy.VALIDATION))
        assert told["test_accuracy"] == pytest.approx(toy.accuracy(teacher, toy.TEST))
        trials = {trial.number: trial for trial in result.trials}
        for student in summary["students"]:
            model = keras.models.load_model(run / student["exports"]["keras"])
            trial = trials[student["trial"]]
            assert ActionSet.from_json(student["actions"]) == trial.actions
            assert student["num_params"] == trainable(model) == trial.num_params
            assert student["flops"] == trial.flops
            assert student["times_smaller"] == told["num_params"] / student["num_params"]
            saved = 1 - student["num_params"] / told["num_params"]
            assert student["compression_ratio"] == pytest.approx(saved)
            accuracy = toy.accuracy(model, toy.VALIDATION)
            assert student["validation_accuracy"] == pytest.approx(accuracy)
            assert student["test_accuracy"] == pytest.approx(toy.accuracy(model, toy.TEST))
            reward = saved * (2 - saved) * accuracy / told["validation_accuracy"]
            assert student["objective"] == pytest.approx(reward)

    def test_without_full_training_the_search_s_weights_are_exported(self, tmp_path):
        result = search(run_dir=tmp_path, full_epochs=0, num_steps=1)
        for student in result.students:
            assert student.validation_accuracy == student.trial.validation_accuracy
            model = keras.models.load_model(tmp_path / student.exports["keras"])
            accuracy = toy.accuracy(model, toy.VALIDATION)
            assert accuracy == pytest.approx(student.validation_accuracy)
            assert student.test_accuracy is None


def trainable(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


class Interrupting(Display):
    """The user presses Ctrl+C when a trial is told."""

    def __init__(self, number):
        super().__init__(quiet=True)
        self._number = number

    def trial_finished(self, trial, best, num_epochs=None):
        if trial.number == self._number:
            raise KeyboardInterrupt


def test_devices_that_are_not_there_are_told(capsys):
    if len(tf.config.list_logical_devices()) > 1:
        pytest.skip("There are several devices.")
    settings = {**toy.SHORT, "strategy": "random", "num_steps": 1, "num_kernels": 1}
    search_students(
        toy.teacher(), toy.TRAIN, toy.VALIDATION, display=Display(), distribute="grouped",
        **{**settings, "full_epochs": 0},
    )  # fmt: skip
    assert "There is one device here: distribute=grouped does nothing." in capsys.readouterr().out


class TestResume:
    def resumed_equals(self, finished, run_dir):
        result = search(test=toy.TEST, run_dir=run_dir)
        assert comparable(result.trials) == comparable(finished.trials)
        assert without_secs(result.summary) == without_secs(finished.summary)
        return result

    def test_after_an_interruption_between_two_trials(self, finished, tmp_path):
        with pytest.raises(KeyboardInterrupt):
            search(run_dir=tmp_path, display=Interrupting(1))
        assert [trial.number for trial in read_trials(tmp_path)] == [0, 1, 2]
        self.resumed_equals(finished[2], tmp_path)

    def test_after_an_interruption_while_students_train(self, finished, tmp_path, monkeypatch):
        evaluate = Evaluator.evaluate

        def interrupted(self, proposals, step, *callbacks):
            if step == 1:
                raise KeyboardInterrupt
            return evaluate(self, proposals, step, *callbacks)

        with monkeypatch.context() as patch:
            patch.setattr(Evaluator, "evaluate", interrupted)
            with pytest.raises(KeyboardInterrupt):
                search(run_dir=tmp_path)
        assert [trial.number for trial in read_trials(tmp_path)] == [0, 1, 2]
        self.resumed_equals(finished[2], tmp_path)

    @pytest.mark.parametrize("part", ["search", "full"])
    def test_in_the_middle_of_a_training_it_goes_on_after_the_last_epoch(
        self, finished, tmp_path, monkeypatch, part
    ):
        asked = []
        start_epoch = joint_step.JointStep.start_epoch

        def start(self, learning_rate):
            asked.append(None)
            if len(asked) == 3 + 2 * (part == "full"):  # of 2 epochs in each of 2 steps
                signal.raise_signal(signal.SIGINT)
            start_epoch(self, learning_rate)

        with monkeypatch.context() as patch:
            patch.setattr(joint_step.JointStep, "start_epoch", start)
            with pytest.raises(KeyboardInterrupt):
                search(run_dir=tmp_path)
        assert [p.name for p in (tmp_path / "checkpoints").glob("training_*")] == [
            f"training_{part}_0.npz" if part == "search" else "training_full.npz"
        ]
        epochs = []

        def counted(self, learning_rate):
            epochs.append(learning_rate)
            start_epoch(self, learning_rate)

        with monkeypatch.context() as patch:
            patch.setattr(joint_step.JointStep, "start_epoch", counted)
            self.resumed_equals(finished[2], tmp_path)
        assert len(epochs) == (3 if part == "search" else 1)
        assert not list((tmp_path / "checkpoints").glob("training_*"))

    def test_an_interruption_while_tensorflow_traces_fails_no_student(self, tmp_path, monkeypatch):
        """TensorFlow turns it into a SystemError, which looks like the student's fault."""

        def interrupted(*arguments):
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                raise SystemError("returned a result with an exception set") from None

        monkeypatch.setattr(joint_step, "StudentUpdate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            search(run_dir=tmp_path)
        assert read_trials(tmp_path) == []

    def test_a_finished_run_gives_the_same_again(self, finished, tmp_path):
        run_dir = tmp_path / "copy"
        shutil.copytree(finished[2].run_dir, run_dir)
        before = (run_dir / "trials.jsonl").read_bytes()
        self.resumed_equals(finished[2], run_dir)
        assert (run_dir / "trials.jsonl").read_bytes() == before

    def test_more_steps_go_on_and_lost_weights_are_made_again(self, finished, tmp_path):
        """Neither changes a trial; what more students are kept than before is trained again."""
        run_dir = tmp_path / "copy"
        shutil.copytree(finished[2].run_dir, run_dir)
        result = search(run_dir=run_dir, num_steps=3, num_best=7, full_epochs=0)
        assert comparable(result.trials[:6]) == comparable(finished[2].trials)
        assert len(result.trials) == 9
        assert len(result.students) == 7
        for student in result.students:
            accuracy = toy.accuracy(student.model, toy.VALIDATION)
            assert accuracy == pytest.approx(student.trial.validation_accuracy)

    def test_weights_that_cannot_be_made_again_are_left_out(
        self, finished, tmp_path, monkeypatch, capsys
    ):
        run_dir = tmp_path / "copy"
        shutil.copytree(finished[2].run_dir, run_dir)
        [*_, lost] = sorted(student.trial.number for student in finished[2].students)
        (run_dir / "checkpoints" / f"trial_{lost:05d}.npz").unlink()
        monkeypatch.setattr(Evaluator, "evaluate", lambda *_: [])
        result = search(run_dir=run_dir, full_epochs=0, display=Display())
        assert f"Warning: Trial {lost} failed this time and is left out" in capsys.readouterr().out
        left = {student.trial.number for student in result.students}
        assert left == {student.trial.number for student in finished[2].students} - {lost}

    def test_other_settings_and_other_teachers_are_refused(self, finished):
        run_dir = finished[2].run_dir
        error = told(search, run_dir=run_dir, seed=4)
        assert "seed is 3 there and 4 now" in error
        other = toy.teacher()
        other.get_layer("classes").bias.assign([9.0, 0.0, 0.0])
        assert "another teacher" in told(search, other, run_dir=run_dir)

    def test_settings_may_change_where_nothing_was_found_yet(self, tmp_path):
        narrow = toy.examples(32, features=7)
        told(search, train=narrow, run_dir=tmp_path, seed=1)
        search(run_dir=tmp_path, seed=2, num_steps=1, full_epochs=0)

    def test_so_may_the_teacher_and_the_data(self, tmp_path, monkeypatch):
        def interrupted(*_):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Evaluator, "evaluate", interrupted)
            with pytest.raises(KeyboardInterrupt):
                search(run_dir=tmp_path, num_steps=1, full_epochs=0)
        assert (tmp_path / "teacher.json").is_file()
        assert not (tmp_path / "trials.jsonl").exists()
        other = toy.teacher()
        other.get_layer("classes").bias.assign([1.0, 0.0, 0.0])
        data = toy.examples(48, seed=5)
        result = search(other, data, data, run_dir=tmp_path, num_steps=1, full_epochs=0)
        recorded = json.loads((tmp_path / "teacher.json").read_text())
        assert recorded["validation_accuracy"] == pytest.approx(toy.accuracy(other, data))
        assert len(result.trials) == toy.SHORT["num_kernels"]


class TestData:
    def test_compress_takes_datasets_and_gives_a_model(self):
        def one_hot(data):
            labels = np.eye(toy.CLASSES)[data[1]]
            return tf.data.Dataset.from_tensor_slices((data[0], labels)).batch(16)

        teacher = toy.teacher()
        settings = {**toy.SHORT, "num_steps": 1, "full_epochs": 1}
        student = esnac_tf.compress(
            teacher, one_hot(toy.TRAIN), one_hot(toy.VALIDATION), **settings
        )
        assert isinstance(student, keras.Model)
        assert student.count_params() < teacher.count_params()

    def test_labels_may_be_columns_and_nothing_is_kept_without_a_folder(self):
        def column(data):
            labels = data[1][:, None]
            return tf.data.Dataset.from_tensor_slices((data[0], labels)).batch(16)

        result = search(
            train=column(toy.TRAIN),
            validation=column(toy.VALIDATION),
            test=column(toy.TEST),
            num_steps=1,
            full_epochs=0,
        )
        assert result.run_dir is None
        for student in result.students:
            assert student.exports == {}
            assert student.test_accuracy == pytest.approx(toy.accuracy(student.model, toy.TEST))

    def test_probabilities_are_learnt_as_logits_are(self):
        """log(softmax(z)) differs from z by a constant only."""
        results = [
            search(model, num_steps=1, num_kernels=2, full_epochs=1, full_loss="soft_targets")
            for model in (
                toy.teacher(activation="softmax"),
                toy.teacher(end=[keras.Sequential([keras.Input((3,)), keras.layers.Softmax()])]),
            )
        ]
        for result in results:
            assert max(trial.validation_accuracy for trial in result.trials) > 0.8
            outputs = result.students[0].model(toy.TEST[0][:4])
            np.testing.assert_allclose(np.sum(outputs, axis=-1), 1, atol=1e-5)
        one, other = ([trial.validation_accuracy for trial in r.trials] for r in results)
        assert one == other


def told(function, *arguments, **settings):
    """The message of the error, of at most two lines."""
    with pytest.raises(UserError) as caught:
        function(*arguments, **settings)
    text = str(caught.value)
    assert 1 <= len(text.splitlines()) <= 2, text
    return text


class Subclassed(keras.Model):
    def call(self, x):
        return x


def multi_output():
    model = toy.teacher()
    return keras.Model(model.input, [model.output, model.get_layer("stem").output])


def two_inputs():
    one, other = keras.Input((8,), name="one"), keras.Input((8,), name="other")
    hidden = keras.layers.Dense(8)(keras.layers.Add()([one, other]))
    return keras.Model([one, other], keras.layers.Dense(3)(hidden))


def only_classes():
    inputs = keras.Input((8,))
    return keras.Model(inputs, keras.layers.Dense(3)(inputs))


def useless():
    model = toy.teacher()
    classes = model.get_layer("classes")
    classes.kernel.assign(np.zeros(classes.kernel.shape))
    classes.bias.assign([np.nan] * 3)
    return model


def unbuilt():
    return keras.Sequential([keras.layers.Dense(3)])


class TestErrors:
    @pytest.mark.parametrize(
        ("make", "expected"),
        [
            (Subclassed, "not functional"),
            (unbuilt, "not built"),
            (lambda: "resnet18", "received str"),
            (multi_output, "is not compiled, so its loss is not known"),
            (two_inputs, r"inputs one \(8,\), other \(8,\), the training data gives \(8,\)"),
            (only_classes, "Nothing can be taken"),
            (useless, "has the accuracy 0 on the held-out data"),
        ],
        ids=lambda value: getattr(value, "__name__", ""),
    )
    def test_models_that_cannot_be_searched(self, make, expected):
        with pytest.raises(UserError, match=expected) as caught:
            search(make())
        assert len(str(caught.value).splitlines()) <= 2

    @pytest.mark.parametrize("part", ["train", "validation", "test"])
    def test_examples_and_classes_that_do_not_fit(self, part):
        x, y = toy.examples(40)
        text = told(search, **{part: toy.examples(40, features=7)})
        assert "takes examples of shape (8,)" in text
        assert "data has (7,)" in text
        assert "in 0 .. 2" in told(search, **{part: (x, y + 1)})
        assert "4 columns" in told(search, **{part: (x, np.eye(4)[y])})
        assert "received the shapes" in told(search, **{part: (x, y[:-1])})
        assert "received str" in told(search, **{part: "digits"})

    def test_settings_that_do_not_exist(self):
        assert "Did you mean 'num_steps'" in told(search, num_step=3)
        assert "'nonsense'" in told(search, strategy="nonsense")

    def test_a_search_without_steps_has_no_student(self):
        assert "no complete trial" in told(search, num_steps=0)


class TestFullTraining:
    def test_it_is_done_once(self, tmp_path, monkeypatch):
        first = search(run_dir=tmp_path, num_steps=1)
        (tmp_path / "summary.json").unlink()

        def refuse(*arguments, **options):
            raise AssertionError("trained again")

        monkeypatch.setattr("esnac_tf.final_students.train", refuse)
        again = search(run_dir=tmp_path, num_steps=1, export=("keras", "saved_model"))
        for student, same in zip(first.students, again.students, strict=True):
            assert same.validation_accuracy == student.validation_accuracy
            assert same.best_epoch == student.best_epoch
            for weight, other in zip(
                student.model.get_weights(), same.model.get_weights(), strict=True
            ):
                np.testing.assert_array_equal(weight, other)

    def test_it_never_makes_a_student_worse(self, tmp_path):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            result = search(run_dir=tmp_path, num_steps=1, full_learning_rate=1e6)
        texts = [str(warning.message) for warning in told]
        advice = [text for text in texts if "Lower full_learning_rate" in text]
        assert len(advice) == len(result.students)
        for student in result.students:
            assert student.best_epoch == 0
            assert student.validation_accuracy == student.trial.validation_accuracy
            accuracy = toy.accuracy(student.model, toy.VALIDATION)
            assert accuracy == pytest.approx(student.validation_accuracy)

    def test_an_export_that_fails_takes_nothing_with_it(self, tmp_path, monkeypatch):
        def refuse(model, path_stem):
            raise UserError("no room")

        monkeypatch.setattr(exporters.get("saved_model"), "export", refuse)
        result = search(run_dir=tmp_path, num_steps=1, export=("saved_model", "keras"))
        summary = json.loads((tmp_path / "summary.json").read_text())
        for student in summary["students"]:
            assert student["export_failures"] == {"saved_model": "no room"}
            assert (tmp_path / student["exports"]["keras"]).is_file()
        assert len(result.students) == len(summary["students"])

    def test_other_data_is_refused_on_resume(self, tmp_path):
        search(run_dir=tmp_path, num_steps=1)
        x, y = toy.VALIDATION
        with pytest.raises(UserError, match="another data"):
            search_students(
                toy.teacher(), toy.TRAIN, (x[:-1], y[:-1]),
                run_dir=tmp_path, **{**toy.SHORT, "num_steps": 2},
            )  # fmt: skip


class TestFailures:
    def test_a_step_in_which_all_fail_ends_the_search_and_is_recorded(self, tmp_path):
        settings = {"run_dir": tmp_path, "search_learning_rate": 1e38, "num_steps": 5}
        text = told(search, **settings)
        assert text.startswith("All 3 students of step 1 failed: loss became ")
        trials = read_trials(tmp_path)
        assert [trial.state for trial in trials] == ["failed"] * 3
        assert not (tmp_path / "summary.json").exists()
        # Started again, it tries other students.
        assert "students of step 2 failed" in told(search, **settings)
        assert len({trial.actions for trial in read_trials(tmp_path)}) == 6

    def test_ten_failures_in_a_row_end_it(self, tmp_path):
        settings = {"run_dir": tmp_path, "search_learning_rate": 1e38, "num_kernels": 1}
        text = told(search, **settings, num_steps=20)
        assert text.startswith("The last 10 students all failed: loss became ")
        assert len(read_trials(tmp_path)) == 10

    @pytest.mark.filterwarnings("ignore:.*better than chance")
    def test_one_failure_among_complete_trials_does_not(self, tmp_path, monkeypatch):
        evaluate = Evaluator.evaluate

        def second_fails(self, proposals, step, *callbacks):
            *callbacks, on_finished, size = callbacks
            results = evaluate(self, proposals, step, *callbacks, step_size=size)
            if step == 1:
                results = [
                    dataclasses.replace(
                        item,
                        student=None,
                        trial=dataclasses.replace(
                            item.trial, state="failed", objective=None, failure="broken"
                        ),
                    )
                    for item in results
                ]
            on_finished(results)
            return results

        monkeypatch.setattr(Evaluator, "evaluate", second_fails)
        result = search(run_dir=tmp_path, num_kernels=1, num_steps=3, full_epochs=0)
        states = [trial.state for trial in result.trials]
        assert states == ["complete", "failed", "complete"]
        assert result.summary["num_failed_trials"] == 1

    def test_an_exhausted_space_ends_the_search(self, tmp_path, capsys):
        inputs = keras.Input((8,))
        hidden = keras.layers.Dense(3, name="hidden")(inputs)
        model = keras.Model(inputs, keras.layers.Dense(3, name="top")(hidden))
        model.get_layer("hidden").kernel.assign(np.eye(8)[:, :3])
        model.get_layer("top").kernel.assign(np.eye(3))
        settings = {"num_steps": 4, "full_epochs": 0, "run_dir": tmp_path}
        result = search(model, display=Display(), **settings)
        assert len(result.trials) < 12
        assert "There is no student left that was not tried." in capsys.readouterr().out
        again = search(model, **settings)
        assert comparable(again.trials) == comparable(result.trials)


def test_it_can_be_watched(capsys, tmp_path):
    search(display=Display(), run_dir=tmp_path, num_steps=1, full_epochs=1, test=toy.TEST)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Teacher toy: 327 parameters, validation accuracy ")
    trials = [line for line in lines if line.startswith("Trial ")]
    assert len(trials) == 3
    # Each line tells what was known when it was printed.
    assert "(best so far)" in trials[0]
    for number, line in enumerate(trials):
        if "(best " in line and "so far" not in line:
            assert int(line.split("trial ")[1].split(")")[0]) < number


TWO_DEVICES = """
import keras, sys, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import pytest, toy
from esnac_tf.compression import search_students

def search(distribute, run_dir):
    settings = {**toy.SHORT, "num_steps": 1, "full_epochs": 1, "num_kernels": 2}
    return search_students(
        toy.teacher(), toy.TRAIN, toy.VALIDATION, test=toy.TEST,
        run_dir=run_dir, distribute=distribute, **settings,
    )

two, one = search("mirrored", sys.argv[1]), search("none", None)
grouped = search("grouped", None)
assert [t.actions for t in two.trials] == [t.actions for t in one.trials]
assert [t.actions for t in grouped.trials] == [t.actions for t in one.trials]
for t, u in zip(grouped.trials, one.trials):
    assert t.validation_accuracy == pytest.approx(u.validation_accuracy, abs=0.02)
for student in two.students:
    model = keras.models.load_model(two.run_dir / student.exports["keras"])
    assert toy.accuracy(model, toy.TEST) == pytest.approx(student.test_accuracy)
    assert toy.accuracy(model, toy.VALIDATION) == pytest.approx(student.validation_accuracy)
print("passed")
"""


def test_two_devices(tmp_path):
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    result = subprocess.run(
        [sys.executable, "-c", TWO_DEVICES, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": paths, "TF_CPP_MIN_LOG_LEVEL": "2"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout + result.stderr[-4000:]
    assert result.stdout.endswith("passed\n")
