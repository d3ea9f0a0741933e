"""A student in the place of its teacher's file."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import toy

from esnac_tf import in_place
from esnac_tf.distillation.task import ACCURACY, SearchMetric
from esnac_tf.errors import UserError
from esnac_tf.in_place import choose, quality_drop, replace, teacher_path, told_why_none

ROOT = pathlib.Path(__file__).parents[1]
LOSS = SearchMetric("loss", "min")


@dataclasses.dataclass(frozen=True)
class Found:
    """What of a student counts here."""

    num_params: int
    validation_metric: float
    objective: float


class TestChoice:
    def test_the_best_objective_that_qualifies_wins(self):
        students = [Found(10, 0.90, 0.9), Found(20, 0.95, 0.8), Found(30, 0.96, 0.7)]
        assert choose(students, 100, 0.96, ACCURACY, 1.0) == students[1]
        assert choose(students, 100, 0.96, ACCURACY, 6.0) == students[0]
        assert choose(students[::-1], 100, 0.96, ACCURACY, 6.0) == students[0]
        assert choose(students, 100, 0.96, ACCURACY, 0.5) == students[2]
        assert choose(students, 100, 0.97, ACCURACY, 0.5) is None

    @pytest.mark.parametrize("num_params", [100, 101])
    def test_what_is_not_smaller_does_not(self, num_params):
        student = Found(num_params, 0.99, 0.0)
        assert choose([student], 100, 0.9, ACCURACY, 1.0) is None
        told = told_why_none("m.keras", [student], 100, 0.9, ACCURACY, 1.0)
        assert told.startswith("m.keras stays as it is: no student is smaller than the teacher.")

    def test_the_limit_itself_is_borne(self):
        for teacher in np.arange(0.02, 1.0, 0.01):
            assert choose([Found(1, teacher - 0.01, 0)], 2, teacher, ACCURACY, 1.0)
            assert not choose([Found(1, teacher - 0.0101, 0)], 2, teacher, ACCURACY, 1.0)

    def test_a_better_student_drops_nothing(self):
        assert quality_drop(0.99, 0.9, ACCURACY) == -9
        assert choose([Found(1, 0.99, 0)], 2, 0.9, ACCURACY, 0.0)

    def test_other_metrics_count_relative_to_the_teacher(self):
        assert quality_drop(0.45, 0.5, SearchMetric("mean_io_u")) == 10
        assert quality_drop(0.5, 0.45, LOSS) == 10
        assert choose([Found(1, 0.5, 0)], 2, 0.45, LOSS, 10.0)
        assert choose([Found(1, 0.51, 0)], 2, 0.45, LOSS, 10.0) is None

    def test_no_number_never_qualifies(self):
        assert choose([Found(1, float("nan"), 0)], 2, 0.9, ACCURACY, 100.0) is None
        assert choose([], 2, 0.9, ACCURACY, 100.0) is None

    def test_by_how_much_the_best_missed_is_told_in_two_lines(self):
        students = [Found(10, 0.90, 0.9), Found(20, 0.935, 0.8), Found(200, 0.96, 0.1)]
        told = told_why_none("m.keras", students, 100, 0.96, ACCURACY, 1.0)
        assert told.startswith(
            "m.keras stays as it is: the student that loses least loses 2.50 points of accuracy, "
            "1.50 more than --max_drop=1.\n"
        )
        assert len(told.splitlines()) == 2
        assert "% of the loss" in told_why_none("m", [Found(1, 2.0, 0)], 9, 1.0, LOSS, 1.0)


def teacher():
    """A compiled model with names of its own, and much that a file keeps."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((toy.FEATURES,), name="features")
    hidden = keras.layers.Dense(64, activation="relu", name="hidden")(inputs)
    hidden = keras.layers.Dense(64, activation="relu", name="more")(hidden)
    outputs = keras.layers.Dense(toy.CLASSES, activation="softmax", name="classes")(hidden)
    model = keras.Model(inputs, outputs, name="production")
    model.compile(
        keras.optimizers.Adam(0.002),
        keras.losses.SparseCategoricalCrossentropy(),
        metrics=["accuracy"],
    )
    model.optimizer.build(model.trainable_variables)
    return model


def small(name="student_3"):
    inputs = keras.Input((toy.FEATURES,), name="features")
    hidden = keras.layers.Dense(5, activation="relu", name="hidden")(inputs)
    outputs = keras.layers.Dense(toy.CLASSES, activation="softmax", name="classes")(hidden)
    return keras.Model(inputs, outputs, name=name)


class Killed:
    """Stands for a process that is killed before the n-th of some calls."""

    def __init__(self, number):
        self.left = number

    def before(self, function):
        def call(*args, **kwargs):
            self.left -= 1
            if self.left <= 0:
                raise KeyboardInterrupt
            return function(*args, **kwargs)

        return call


class TestReplacing:
    def test_the_student_is_the_teacher_s_file_and_the_teacher_beside_it(self, tmp_path):
        path = tmp_path / "model.keras"
        model, student = teacher(), small()
        model.save(path)
        path.chmod(0o640)
        before = path.read_bytes()
        replace(path, student, model)
        assert sorted(entry.name for entry in tmp_path.iterdir()) == [
            "model.keras",
            "model.teacher.keras",
        ]
        assert (tmp_path / "model.teacher.keras").read_bytes() == before
        assert path.stat().st_mode & 0o777 == 0o640
        loaded = keras.models.load_model(path)
        assert (loaded.name, loaded.output_names) == ("production", ["classes"])
        assert loaded.compiled
        assert float(loaded.optimizer.learning_rate) == pytest.approx(0.002)
        np.testing.assert_array_equal(
            loaded.predict(toy.TEST[0], verbose=0), student.predict(toy.TEST[0], verbose=0)
        )
        assert "accuracy" in loaded.evaluate(*toy.TEST, verbose=0, return_dict=True)

    def test_a_teacher_that_was_not_compiled_leaves_its_student_so(self, tmp_path):
        path = tmp_path / "model.keras"
        model = keras.Model(*(lambda m: (m.input, m.output))(teacher()), name="production")
        model.save(path)
        replace(path, small(), model)
        assert not keras.models.load_model(path).compiled

    def test_a_teacher_beside_it_is_never_overwritten(self, tmp_path):
        path = tmp_path / "model.keras"
        model = teacher()
        model.save(path)
        before = path.read_bytes()
        teacher_path(path).write_text("precious")
        with pytest.raises(UserError, match="never overwrites it") as caught:
            replace(path, small(), model)
        assert len(str(caught.value).splitlines()) == 2
        assert teacher_path(path).read_text() == "precious"
        assert path.read_bytes() == before

    def test_other_inputs_or_outputs_are_refused(self, tmp_path):
        path = tmp_path / "model.keras"
        model = teacher()
        model.save(path)
        before = path.read_bytes()
        inputs = keras.Input((toy.FEATURES,), name="other")
        outputs = keras.layers.Dense(toy.CLASSES, name="classes")(inputs)
        with pytest.raises(UserError, match="stays as it is"):
            replace(path, keras.Model(inputs, outputs), model)
        assert path.read_bytes() == before
        assert [entry.name for entry in tmp_path.iterdir()] == ["model.keras"]

    def test_a_kill_at_any_time_leaves_whole_files(self, tmp_path, monkeypatch):
        """The process ends before its n-th flush or rename, and cleans up nothing."""
        path = tmp_path / "model.keras"
        model, student = teacher(), small()
        model.save(path)
        before = path.read_bytes()
        ends = []
        for number in range(1, 99):
            path.write_bytes(before)
            teacher_path(path).unlink(missing_ok=True)
            with monkeypatch.context() as patched:
                end = Killed(number)
                patched.setattr("os.fsync", end.before(os.fsync))
                patched.setattr("os.replace", end.before(os.replace))
                patched.setattr("shutil.rmtree", lambda *_, **__: None)
                try:
                    replace(path, student, model)
                except KeyboardInterrupt:
                    is_replaced = path.read_bytes() != before
                    ends.append((teacher_path(path).exists(), is_replaced))
                    if is_replaced:
                        params = keras.models.load_model(path).count_params()
                        assert params == student.count_params()
                        assert teacher_path(path).exists()
                    if teacher_path(path).exists():
                        assert teacher_path(path).read_bytes() == before
                else:
                    break
        # Nothing changed; then both are there; then the student is in its place.
        assert list(dict.fromkeys(ends)) == [(False, False), (True, False), (True, True)]

    def test_the_same_teacher_beside_it_is_what_a_kill_left(self, tmp_path):
        path = tmp_path / "model.keras"
        model = teacher()
        model.save(path)
        teacher_path(path).write_bytes(path.read_bytes())
        replace(path, small(), model)
        assert keras.models.load_model(path).count_params() == small().count_params()


class TestChecksBeforeASearch:
    def test_only_keras_files(self):
        with pytest.raises(UserError, match=r"replaces \.keras files"):
            in_place.check_replaceable("model.h5")

    def test_no_links(self, tmp_path):
        (tmp_path / "real.keras").write_text("")
        (tmp_path / "link.keras").symlink_to("real.keras")
        with pytest.raises(UserError, match=r"Give --teacher=.*real\.keras"):
            in_place.check_replaceable(tmp_path / "link.keras")

    def test_what_no_student_can_be_compiled_as(self):
        model = teacher()
        model.compile("adam", lambda y, outputs: keras.ops.mean(outputs))
        with pytest.raises(UserError, match="'student' can't be compiled as 'production' is"):
            in_place.check_compiled(model)
        in_place.check_compiled(teacher())


class TestNoteThatItIsDone:
    @pytest.fixture
    def path(self, tmp_path):
        path = tmp_path / "model.keras"
        path.write_text("student")
        teacher_path(path).write_text("teacher")
        in_place.note_done(tmp_path, path, 1.0)
        return path

    def test_the_same_student_with_the_same_limit_is_done(self, path):
        assert in_place.is_done(path.parent, path, 1.0)
        assert not in_place.is_done(path.parent, path, 2.0)

    def test_another_file_is_not(self, path):
        path.write_text("trained on")
        assert not in_place.is_done(path.parent, path, 1.0)
        path.unlink()
        assert not in_place.is_done(path.parent, path, 1.0)

    def test_nor_is_one_whose_teacher_went_away(self, path):
        teacher_path(path).unlink()
        assert not in_place.is_done(path.parent, path, 1.0)

    def test_nor_is_one_of_which_nothing_is_noted(self, path):
        (path.parent / "in_place.json").unlink()
        assert not in_place.is_done(path.parent, path, 1.0)

    def test_a_note_that_can_t_be_written_is_no_error(self, path):
        in_place.note_done(path, path, 1.0)


def python(code, *arguments, cwd):
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("TF_", "PYTHONWARNINGS"))}
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=cwd,
        env={**kept, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2"},
        capture_output=True,
        text=True,
        timeout=300,
    )


# A script that uses the file, and knows nothing of this project.
USER = """
import json, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "esnac_tf":
            raise ImportError("the file needs esnac_tf")
sys.meta_path.insert(0, Refuse())
import keras, numpy as np
data = np.load("toy.npz")
model = keras.models.load_model("model.keras")
described = lambda tensor: [tensor.name, list(tensor.shape), tensor.dtype]
result = model.evaluate(data["x_test"], data["y_test"], verbose=0, return_dict=True)
model.fit(data["x_train"][:32], data["y_train"][:32], verbose=0)
print(json.dumps({
    "name": model.name, "inputs": [described(tensor) for tensor in model.inputs],
    "outputs": [described(tensor)[1:] for tensor in model.outputs],
    "output_names": model.output_names, "metrics": sorted(result),
    "learning_rate": float(model.optimizer.learning_rate), "accuracy": result["accuracy"],
    "by_name": list(model({"features": data["x_test"][:2]}).shape),
    "parameters": model.count_params(),
}))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A trained model.keras of a task that no student does without training, and its data."""
    path = tmp_path_factory.mktemp("in_place")
    x = np.random.default_rng(0).normal(size=(900, toy.FEATURES)).astype("float32")
    y = (x[:, 0] * x[:, 1] > 0).astype(int) + (x[:, 2] > 0)
    np.savez(path / "toy.npz", x_train=x[:800], y_train=y[:800], x_test=x[800:], y_test=y[800:])
    model = teacher()
    model.fit(x[:800], y[:800], epochs=40, verbose=0)
    model.save(path / "model.keras")
    return path


def used(folder):
    result = python(USER, cwd=folder)
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1])


def test_as_a_user_runs_it(folder):
    """Refused for its drop, then, by the same search with another limit, put in place."""
    path = folder / "model.keras"
    original, before = path.read_bytes(), used(folder)
    command = (
        "import sys; from esnac_tf import search; sys.exit(search.main(['search', "
        "'--teacher=model.keras', '--dataset=toy.npz', '--run_dir=run', '--in_place', "
        "'--num_steps=1', '--num_kernels=2', '--strategy=random', '--search_epochs=1', "
        "'--full_epochs=0', '--batch_size=64', '--search_learning_rate=1e-9', '--export=', "
        "'--num_best=2', *sys.argv[1:]]))"
    )
    refused = python(command, "--max_drop=0", cwd=folder)
    assert refused.returncode == 3, refused.stdout + refused.stderr
    assert refused.stderr.startswith("model.keras stays as it is: the student that loses least")
    assert len(refused.stderr.splitlines()) == 2
    assert "\nModel " in refused.stdout
    assert path.read_bytes() == original
    assert not teacher_path(path).exists()

    done = python(command, "--max_drop=100", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    last = done.stdout.splitlines()[-1]
    assert last.startswith("model.keras is now the student of trial ")
    assert last.endswith(" times smaller; the teacher is in model.teacher.keras.")
    assert teacher_path(path).read_bytes() == original
    after = used(folder)
    changed = {"parameters", "accuracy"}
    assert {k: v for k, v in after.items() if k not in changed} == {
        k: v for k, v in before.items() if k not in changed
    }
    assert after["parameters"] < before["parameters"]

    student = path.read_bytes()
    again = python(command, "--max_drop=100", cwd=folder)
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout.splitlines()[-1] == (
        "model.keras is already a student that this search found; the teacher is in "
        "model.teacher.keras."
    )
    assert again.stdout.startswith("Model ")

    for change in ("--max_drop=99", "--num_steps=2", "--run_dir=other"):
        other = python(command, "--max_drop=100", change, cwd=folder)
        assert other.returncode == 2
        assert "model.teacher.keras is there already" in other.stderr
        assert "\nIf model.keras is its student, all is done." in other.stderr
        assert len(other.stderr.splitlines()) == 2
        assert "tensorflow" not in other.stderr
    assert path.read_bytes() == student
    assert teacher_path(path).read_bytes() == original
