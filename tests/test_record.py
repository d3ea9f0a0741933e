"""The run folder: nothing finished is lost, and what cannot be is told in two lines."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import esnac_tf
from esnac_tf.architecture import ActionSet
from esnac_tf.errors import UserError
from esnac_tf.record import RunFolder
from esnac_tf.scalars import ScalarWriter
from esnac_tf.trial import Trial
from esnac_tf.trial_log import read_trials

ROOT = pathlib.Path(esnac_tf.__file__).parents[1]


def make_trial(number, **changes):
    actions = ActionSet.of(removed=["conv_é\n2"], widths={"64": 20}, skips=[("a", "b")])
    trial = Trial(number, "complete", actions, 1000, 20_000, 0.5, 0.4, 12.5, 1, 3)
    return dataclasses.replace(trial, **changes)


def run_python(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def folder(tmp_path):
    with RunFolder(tmp_path / "runs" / "a") as folder:
        yield folder


class TestTrials:
    def test_they_come_back_in_order_also_in_a_later_run(self, tmp_path):
        with RunFolder(tmp_path) as folder:
            assert folder.trials() == []
            folder.append(make_trial(1))
            folder.append(make_trial(0))
        with RunFolder(tmp_path) as folder:
            folder.append(make_trial(2))
            assert folder.trials() == [make_trial(1), make_trial(0), make_trial(2)]

    def test_a_killed_process_loses_no_appended_trial_and_frees_the_lock(self, tmp_path):
        process = run_python(
            """
            import sys
            from esnac_tf.architecture import ActionSet
            from esnac_tf.record import RunFolder
            from esnac_tf.trial import Trial
            folder = RunFolder(sys.argv[1])
            for number in range(1_000_000):
                folder.append(Trial(number, "complete", ActionSet(), 1, 1, 0.5, 0.5, 1.0))
                print(number, flush=True)
            """,
            tmp_path,
        )
        for _ in range(20):
            last = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        rest = process.communicate()[0].split()
        last = max([last, *map(int, rest[:-1])])
        with RunFolder(tmp_path) as folder:
            numbers = [trial.number for trial in folder.trials()]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) > last


class TestConfig:
    def test_free_settings_may_change_and_are_written(self, folder):
        path = folder.path / "config.json"
        folder.check_or_write_config({"seed": 3}, {"num_steps": 20})
        folder.append(make_trial(0))
        folder.check_or_write_config({"seed": 3})
        assert json.loads(path.read_text()) == {"seed": 3, "free": {"num_steps": 20}}
        folder.check_or_write_config({"seed": 3}, {"num_steps": 30})
        assert json.loads(path.read_text()) == {"seed": 3, "free": {"num_steps": 30}}

    def test_a_new_folder_takes_any_and_the_same_resumes(self, folder):
        folder.check_or_write_config({"num_steps": 20, "rates": (1, 2.5), "seed": np.int64(3)})
        folder.check_or_write_config({"seed": 3, "num_steps": 20, "rates": [1, 2.5]})
        assert json.loads((folder.path / "config.json").read_text()) == {
            "num_steps": 20,
            "rates": [1, 2.5],
            "seed": 3,
        }

    def test_other_settings_are_named_with_both_values(self, folder):
        folder.check_or_write_config({"num_steps": 20, "teacher": "vgg16", "seed": 1, "old": None})
        folder.append(make_trial(0))
        with pytest.raises(UserError) as caught:
            folder.check_or_write_config(
                {"num_steps": 5, "teacher": "vgg19", "seed": 1, "new": None}
            )
        assert str(caught.value) == (
            f"{folder.path} holds a run with other settings: new is not set there and null now; "
            "num_steps is 20 there and 5 now; old is null there and not set now; "
            'teacher is "vgg16" there and "vgg19" now.\n'
            "Choose another --run_dir for a new run, or give the same settings to resume."
        )

    def test_settings_are_replaced_where_no_trial_depends_on_them(self, folder):
        folder.check_or_write_config({"teacher": "vgg16"})
        folder.check_or_write_config({"teacher": "vgg19"})
        folder.append(make_trial(0))
        folder.check_or_write_config({"teacher": "vgg19"})
        with pytest.raises(UserError, match="other settings"):
            folder.check_or_write_config({"teacher": "vgg16"})

    def test_a_teacher_counts_once_a_trial_depends_on_it(self, folder):
        for accuracy in (0.5, 0.75):
            folder.write_teacher({"validation_accuracy": accuracy})
            assert folder.teacher() is None
        folder.append(make_trial(0))
        assert folder.teacher() == {"validation_accuracy": 0.75}

    @pytest.mark.parametrize("content", ["", "{", "[]", '{"a": NaN}', "\ufeff"])
    def test_an_unreadable_config_is_told(self, folder, content):
        (folder.path / "config.json").write_text(content)
        with pytest.raises(UserError, match=r"config\.json.*\n.*another --run_dir"):
            folder.check_or_write_config({"a": 1})

    def test_trials_without_a_config_are_not_taken_over(self, folder):
        folder.append(make_trial(0))
        with pytest.raises(UserError, match=r"no config\.json"):
            folder.check_or_write_config({"a": 1})


class TestSummary:
    def test_teacher_and_summary_come_back(self, folder):
        assert folder.teacher() is None
        assert folder.summary() is None
        folder.write_teacher({"num_params": 10, "validation_accuracy": np.float32(0.5)})
        folder.append(make_trial(0))
        folder.write_summary({"teacher": folder.teacher(), "students": [{"objective": np.nan}]})
        assert folder.summary() == {
            "teacher": {"num_params": 10, "validation_accuracy": 0.5},
            "students": [{"objective": None}],
        }

    def test_a_failed_write_leaves_the_earlier_file_and_no_litter(self, folder, monkeypatch):
        folder.write_summary({"students": []})
        names = sorted(os.listdir(folder.path))

        def refuse(descriptor):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", refuse)
        with pytest.raises(UserError, match="No space left on device"):
            folder.write_summary({"students": [1]})
        assert folder.summary() == {"students": []}
        assert sorted(os.listdir(folder.path)) == names

    def test_what_json_cannot_hold_is_the_caller_s_error(self, folder):
        with pytest.raises(TypeError, match="JSON cannot hold"):
            folder.write_summary({"students": object()})
        assert folder.summary() is None


class TestLock:
    def test_reading_needs_no_lock(self, folder):
        folder.append(make_trial(0))
        assert read_trials(folder.path) == [make_trial(0)]

    def test_closing_frees_it_and_closing_twice_is_fine(self, tmp_path):
        folder = RunFolder(tmp_path)
        with pytest.raises(UserError, match="in use"):
            RunFolder(tmp_path)
        folder.close()
        folder.close()
        RunFolder(tmp_path).close()


class TestPaths:
    def test_a_file_in_the_place_is_told(self, tmp_path):
        (tmp_path / "run").write_text("a file")
        for path in (tmp_path / "run", tmp_path / "run" / "a"):
            with pytest.raises(UserError, match=r"Cannot use .*run") as caught:
                RunFolder(path)
            assert len(str(caught.value).splitlines()) == 2

    def test_a_folder_in_the_place_of_a_file_is_told(self, folder):
        (folder.path / "trials.jsonl").mkdir()
        (folder.path / "config.json").mkdir()
        for use in (
            folder.trials,
            lambda: folder.append(make_trial(0)),
            lambda: folder.check_or_write_config({}),
        ):
            with pytest.raises(UserError, match="Is a directory"):
                use()

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_a_folder_that_may_not_be_written_is_told(self, tmp_path):
        tmp_path.chmod(0o500)
        with pytest.raises(UserError, match="Permission denied"):
            RunFolder(tmp_path / "run")

    def test_the_module_needs_no_tensorflow(self):
        code = "import esnac_tf.record, sys; print('tensorflow' in sys.modules)"
        assert run_python(code).communicate()[0] == "False\n"


class TestScalarWriter:
    def test_scalars_are_written_by_trial_number(self, folder):
        event_accumulator = pytest.importorskip(
            "tensorboard.backend.event_processing.event_accumulator"
        )
        failed = make_trial(1, state="failed", objective=None, validation_metric=None)
        with ScalarWriter(folder.tensorboard_path) as writer:
            writer.write(make_trial(0), best_objective=0.4)
            writer.write(failed, best_objective=0.4)
        events = event_accumulator.EventAccumulator(
            str(folder.tensorboard_path), size_guidance={"tensors": 0}
        )
        events.Reload()
        steps = {
            tag: [event.step for event in events.Tensors(tag)] for tag in events.Tags()["tensors"]
        }
        assert steps == {
            "trial/objective": [0],
            "trial/validation_accuracy": [0],
            "trial/num_params": [0, 1],
            "search/best_objective": [0, 1],
        }

    def test_without_tensorboard_nothing_happens(self, folder, monkeypatch):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with ScalarWriter(folder.tensorboard_path) as writer:
            writer.write(make_trial(0), best_objective=None)
        assert not folder.tensorboard_path.exists()

    def test_a_path_that_cannot_be_written_is_told(self, tmp_path):
        (tmp_path / "tensorboard").write_text("a file")
        with (
            pytest.raises(UserError, match=r"TensorBoard's files to .*: [^;\n]*\.\nMake room"),
            ScalarWriter(tmp_path / "tensorboard") as writer,
        ):
            writer.write(make_trial(0), best_objective=None)
