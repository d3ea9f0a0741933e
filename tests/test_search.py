"""The command line, as a user runs it."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys
import types
import warnings

import keras
import numpy as np
import pytest
import toy

from esnac_tf import command_teacher, datasets, search, teachers
from esnac_tf.architecture import ActionSet
from esnac_tf.datasets.digests import data_digest, digest_of
from esnac_tf.errors import UserError
from esnac_tf.record import RunFolder
from esnac_tf.resuming import check_teacher
from esnac_tf.trial import Trial

ROOT = pathlib.Path(__file__).parents[1]
COMMAND = [sys.executable, "-m", "esnac_tf.search"]
SHORT = [
    "--num_steps=2", "--num_kernels=2", "--num_candidates=10", "--kernel_steps=2",
    "--search_epochs=1", "--num_best=1", "--full_epochs=1", "--batch_size=16",
    "--export=saved_model,keras,litert",
]  # fmt: skip


def run(command, folder, **environment):
    # As a user has it: without what this test run's environment says to TensorFlow.
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("TF_", "PYTHONWARNINGS"))}
    return subprocess.run(
        command,
        cwd=folder,
        env={
            **kept,
            "PYTHONPATH": str(ROOT),
            "ESNAC_TF_CACHE": str(folder / "cache"),
            "HOME": str(folder / "home"),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=300,
    )


def written(folder):
    """All that is in a folder, and when it was written."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


# A module of the user's own, and a model with its layer.
OWN_LAYERS = """
import keras

@keras.saving.register_keras_serializable("mine")
class Doubled(keras.layers.Layer):
    def call(self, inputs):
        return 2 * inputs

def model():
    inputs = keras.Input((8,))
    hidden = Doubled()(keras.layers.Dense(16, activation="relu")(inputs))
    for name in "abc":
        hidden = keras.layers.Dense(16, activation="relu", name=name)(hidden)
    return keras.Model(inputs, keras.layers.Dense(3)(hidden), name="own")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working folder: toy.npz, toy.keras and much that is broken."""
    path = tmp_path_factory.mktemp("work")
    (x_train, y_train), (x_test, y_test) = toy.TRAIN, toy.TEST
    data = {"x_train": x_train, "x_test": x_test}
    np.savez(path / "toy.npz", **data, y_train=y_train, y_test=y_test)
    np.savez(path / "four.npz", **data, y_train=np.arange(len(y_train)) % 4, y_test=y_test)
    narrow = {name: x[:, :7] for name, x in data.items()}
    np.savez(path / "narrow.npz", **narrow, y_train=y_train, y_test=y_test)
    model = toy.teacher()
    model.save(path / "toy.keras")
    whole = (path / "toy.keras").read_bytes()
    (path / "short.keras").write_bytes(whole[: len(whole) // 2])
    (path / "text.keras").write_text("This is no model.\n")
    (path / "notes.txt").write_text("Nor is this.\n")
    (path / "folder.keras").mkdir()
    keras.utils.set_random_seed(1)
    inputs = keras.Input((8,))
    hidden = keras.layers.Lambda(lambda x: x * 2)(keras.layers.Dense(4)(inputs))
    hidden = keras.layers.Dense(8)(hidden)
    keras.Model(inputs, keras.layers.Dense(3)(hidden)).save(path / "lambda.keras")
    keras.Model(model.input, [model.output, model.output]).save(path / "outputs.keras")
    (path / "own_layers.py").write_text(OWN_LAYERS)
    (path / "failing.py").write_text("raise RuntimeError('of two\\nlines')\n")
    shutil.copy(path / "toy.keras", path / "kept.keras")
    (path / "kept.teacher.keras").write_text("another")
    (path / "link.keras").symlink_to("toy.keras")
    (path / "run_is_a_file").write_text("")
    (path / "recipes").mkdir()
    for name in ("long", "short"):
        (path / "recipes" / f"{name}.flags").write_text("--num_steps=1\n")
    (path / "drop.txt").write_text("--max_drop=1\n")
    (path / "home").mkdir()
    (path / "home" / "is_a_file").write_text("")
    writes = "import keras, own_layers; own_layers.model().save('own.keras')"
    assert run([sys.executable, "-c", writes], path).returncode == 0
    pictures = {name: x.astype("float32")[:, :, None, None] for name, x in data.items()}
    np.savez(path / "pictures.npz", **pictures, y_train=y_train, y_test=y_test)
    (path / "resnet18").mkdir()  # a name wins over a folder of the same spelling
    return path


# Each is told before TensorFlow is imported, so at once.
EARLY = {
    "": "--teacher is missing.",
    "--teacher=toy.keras": "--dataset is missing.",
    "--teacher=resnet81 --dataset=digits": "Did you mean 'resnet18'?",
    "--teacher=resnet18(depth=3) --dataset=digits": "argument that is not known",
    "--teacher=resnet18( --dataset=digits": "Can't read the teacher",
    "--teacher=missing.keras --dataset=digits": "--teacher=missing.keras does not exist.",
    "--teacher=toy.keras --dataset=toy.npz --teacher_weights=w.h5": "Leave --teacher_weights out",
    "--teacher=vgg16 --dataset=digits --input_scale=255": "--input_scale is for teachers from",
    "--num_step=3": "Unknown command line flag 'num_step'. Did you mean: num_steps ?",
    "search now": "Expected flags only, received 'search'.",
    "--flagfile=missing.flags":
        "--flagfile=missing.flags can't be opened: No such file or directory.\n"
        "Give a file with flags, one a line.",
    "--flagfile=recipes/longer.flags":
        "No such file or directory. Did you mean recipes/long.flags?\n"
        "There are recipes/long.flags, recipes/short.flags.",
    "--flagfile=recipes": "--flagfile=recipes can't be opened: Is a directory.",
    "--teacher=toy.keras --dataset=toy.npz --max_drop=2":
        "--max_drop=2 is for --in_place, which is not given.",
    "--teacher=toy.keras --dataset=toy.npz --flagfile=drop.txt": "Give --in_place, too, or",
    "--teacher=~/missing.keras --dataset=toy.npz": "home/missing.keras does not exist",
    "--teacher=toy.keras --dataset=toy.npz --num_steps=0": "--num_steps=0 searches no students",
    "--teacher=toy.keras --dataset=toy.npz --num_steps=0 --run_dir=new": "Raise --num_steps",
    "--teacher=vgg16 --dataset=digits --teacher_weights=imagenet": "for teachers of keras.applica",
    "--teacher=keras.applications. --dataset=digits": "Can't read the teacher",
    "--teacher=resnet18 --dataset=digits --in_place": "--in_place replaces a file",
    "--teacher=kept.keras --dataset=toy.npz --in_place": "kept.teacher.keras is there already",
    "--teacher=link.keras --dataset=toy.npz --in_place": "toy.keras.",
    "--teacher=notes.h5 --dataset=toy.npz --in_place": "notes.h5 does not exist",
    "--teacher=notes.txt --dataset=toy.npz --in_place": "--in_place replaces .keras files",
    "--num_steps=many": "--num_steps must be a whole number of at least 0, received 'many'.",
    "--mixed_precision=maybe": "--mixed_precision must be true or false, received 'maybe'.",
    **{
        f"--teacher=toy.keras --dataset=toy.npz --{flag}": expected
        for flag, expected in {
            "num_steps=-1": "--num_steps must be a whole number of at least 0, received '-1'.",
            "num_kernels=0": "--num_kernels must be a whole number of at least 1",
            "batch_size=0": "--batch_size must be",
            "weight_decay=much": "--weight_decay must be a number, received 'much'.",
            "search_learning_rate=0": "--search_learning_rate must be above 0",
            "full_learning_rate=nan": "--full_learning_rate must be above 0",
            "teacher_learning_rate=-1": "--teacher_learning_rate must be above 0",
            "weight_decay=-1": "--weight_decay must be at least 0",
            "seed=4294967296": "--seed must be below 2 ** 32",
            "input_scale=nan": "--input_scale must be above 0",
            "channel_groups=all": "--channel_groups must be one of width, dependency",
            "channel_importance=all": "--channel_importance must be one of",
            "max_params=0": "--max_params must be a whole number of at least 1, received '0'.",
            "removal_probabilities=much": "--removal_probabilities must be numbers with commas",
            "removal_probabilities=0.1,2": "--removal_probabilities must be numbers from 0 to 1",
            "round_channels_to=0": "--round_channels_to must be a whole number of at least 1",
            "protect=conv(": "--protect must be a regular expression, received 'conv(': ",
            "max_drop=-1": "--max_drop must be 0 or more, received -1.0.",
            "max_drop=nan": "--max_drop must be 0 or more",
            "distribute=all": "--distribute must be one of auto, none, mirrored",
            "strategy=esnak": "Unknown strategy 'esnak'. Did you mean 'esnac'?",
            "acquisition=expected": "Unknown acquisition 'expected'.",
            "objective=param": "Did you mean 'params'?",
            "distillation_loss=mse": "Unknown distillation loss 'mse'.",
            "full_loss=crossentropy": "Did you mean 'cross_entropy'?",
            "export=keras,onnx": "Unknown export format 'onnx'.",
            "run_dir=run_is_a_file": "Cannot use run_is_a_file",
            "run_dir=run_is_a_file --dry_run": "Cannot use run_is_a_file for the run: File exists",
            "run_dir=run_is_a_file/new": "Cannot use run_is_a_file/new for the run",
            "run_dir=run_is_a_file/new --dry_run": "Cannot use run_is_a_file/new for the run",
        }.items()
    },
}  # fmt: skip
# These need TensorFlow.
LATE = {
    "--teacher=toy.keras --dataset=toy.npz --max_params=5": "max_params=5 is too few: the smallest",
    "--teacher=text.keras --dataset=toy.npz": "text.keras is broken",
    "--teacher=short.keras --dataset=toy.npz": "short.keras is broken",
    "--teacher=folder.keras --dataset=toy.npz": "is a folder",
    "--teacher=notes.txt --dataset=toy.npz": "received the suffix '.txt'",
    "--teacher=lambda.keras --dataset=toy.npz": "Give --trust_teacher if the file is your own",
    "--teacher=own.keras --dataset=toy.npz": "found if --custom_objects=MODULE names the module",
    "--teacher=own.keras --dataset=toy.npz --custom_objects=own_layer":
        "can't import 'own_layer': ModuleNotFoundError: No module named 'own_layer'",
    "--teacher=own.keras --dataset=toy.npz --custom_objects=own_layers.py": "without .py",
    "--teacher=own.keras --dataset=toy.npz --custom_objects=failing":
        "can't import 'failing': RuntimeError: of two lines.",
    "--teacher=toy.keras --dataset=toy.npz --protect=conv --dry_run":
        "protect='conv' matches no layer of 'toy'.",
    "--teacher=toy.keras --dataset=toy.npz --protect=conv": "matches no layer of 'toy'.",
    "--teacher=toy.keras --dataset=toy.npz --protect=. --dry_run": "leaves nothing of 'toy'",
    "--teacher=outputs.keras --dataset=toy.npz": "outputs of shape (None, 3), (None, 3)",
    "--teacher=toy.keras --dataset=four.npz": "has 3 classes, the data set four.npz has 4",
    "--teacher=toy.keras --dataset=narrow.npz": "(8,), the training data has (7,)",
    "--teacher=toy.keras --dataset=narrow.npz --dry_run": "(8,), the training data has (7,)",
    **{
        f"--teacher={teacher} --{flag}{more}": text
        for flag, text in {
            "metric=MeanIoU": "The metric 'MeanIoU' needs arguments",
            "metric=AUC": "The metric 'AUC' can't be computed from the labels",
            "metric=accurate": "Unknown metric 'accurate'.",
            "metric=categorical_accuracy": "takes one-hot labels",
            "loss=hinge": "The loss can't be computed from the labels",
        }.items()
        for teacher in (
            "toy.keras --dataset=toy.npz",
            "resnet18(width=1) --dataset=pictures.npz --teacher_epochs=1000",
        )
        for more in ("", " --run_dir=new", " --dry_run")
    },
    "--teacher=toy.keras --dataset=narrow.npz --metric=AUC": "(8,), the training data has (7,)",
    "--teacher=toy.keras --dataset=missing.npz": "--dataset=missing.npz does not exist",
    "--teacher=toy.keras --dataset=cifar01": "Did you mean 'cifar10'?",
    "--teacher=toy.keras --dataset=notes.txt": "a kind that is not read",
    "--teacher=toy.keras --dataset=toy.npz --train_examples=1000": "1000",
    "--teacher=resnet18 --dataset=toy.npz": "takes pictures of shape",
    "--teacher=keras.applications.MobileNetV --dataset=digits": "Did you mean 'MobileNetV",
    "--teacher=keras.applications.MobileNet(width=2) --dataset=digits": "no argument 'width'",
    "--teacher=keras.applications.MobileNet --dataset=digits --dry_run": "at least 32x32",
    **{
        f"--teacher=resnet18(width=1) --dataset=pictures.npz --teacher_epochs=1000 --{flag}": text
        for flag, text in {
            "cache_dir=run_is_a_file": "Cannot keep the teacher in run_is_a_file",
            "cache_dir=~/is_a_file": "home/is_a_file",
            "teacher_weights=~/missing.weights.h5": "home/missing.weights.h5",
            "teacher_weights=~/missing.weights.h5 --dry_run": "home/missing.weights.h5",
        }.items()
    },
}  # fmt: skip
# Runs many commands in one process that has TensorFlow once.
DRIVER = """
import contextlib, io, json, sys
from esnac_tf import search
results = []
for command in json.loads(sys.argv[1]):
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        code = search.main(["search", *command.split()])
    results.append([code, errors.getvalue(), "tensorflow" in sys.modules])
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def mistakes(folder):
    """(exit code, error output, whether TensorFlow was imported) of every wrong command."""
    commands = [*EARLY, *LATE]
    result = run([sys.executable, "-c", DRIVER, json.dumps(commands)], folder)
    assert result.returncode == 0, result.stderr[-4000:]
    return dict(zip(commands, json.loads(result.stdout.splitlines()[-1]), strict=True))


@pytest.mark.parametrize("command", [*EARLY, *LATE])
def test_mistakes_are_told_in_two_lines(mistakes, command):
    code, errors, with_tensorflow = mistakes[command]
    assert code == 2
    assert {**EARLY, **LATE}[command] in errors
    assert errors.startswith("Error: ")
    assert 1 <= len(errors.splitlines()) <= 2
    assert "Traceback" not in errors
    assert with_tensorflow == (command in LATE)


def test_mistakes_leave_nothing_behind(mistakes, folder):
    for name in ("cache", "runs", "new"):
        assert not (folder / name).exists()
    # ~/.keras is Keras's own.
    assert {entry.name for entry in (folder / "home").iterdir()} <= {"is_a_file", ".keras"}


def test_help_lists_flags_and_names(folder):
    result = run([*COMMAND, "--help"], folder)
    assert result.returncode == 0
    assert result.stderr == ""
    for flag in ("--teacher", "--num_steps=20", "--export=saved_model,keras", "--dry_run=false"):
        assert f"  {flag}\n" in result.stdout
    for name in ("resnet18", "cifar100", "evolution", "soft_targets", "litert"):
        assert name in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 90
    told = " ".join(result.stdout.split())
    assert "BatchNormalization (batch_norm; as l2 among channels that not all have such" in told


def test_a_reader_who_leaves_is_no_error(folder):
    command = f"'{sys.executable}' -m esnac_tf.search --help | head -1"
    result = run(["bash", "-c", command], folder)
    assert result.stderr == ""


@pytest.mark.parametrize(
    "flags",
    [
        ["--teacher=own.keras", "--custom_objects=own_layers", "--protect=c"],
        ["--teacher=lambda.keras", "--trust_teacher", "--round_channels_to=2"],
    ],
)
def test_layers_of_one_s_own_are_loaded_when_told(folder, tmp_path, flags):
    short = [flag for flag in SHORT if not flag.startswith(("--export", "--num_steps"))]
    result = run(
        [*COMMAND, *flags, "--dataset=toy.npz", f"--run_dir={tmp_path}", *short, "--num_steps=1",
         "--strategy=random", "--export=keras"], folder
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-4000:]
    assert result.stderr == ""
    assert len(list((tmp_path / "students").iterdir())) == 1


def test_a_mistake_in_a_process_of_its_own(folder):
    result = run([*COMMAND, "--teacher=text.keras", "--dataset=toy.npz"], folder)
    assert result.returncode == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 2


def test_a_dry_run_prints_and_writes_nothing(folder):
    before = sorted(folder.rglob("*"))
    result = run(
        [*COMMAND, "--teacher=toy.keras", "--dataset=toy.npz", "--dry_run", "--run_dir=dry"], folder
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    for text in ("Data set toy.npz: 86", "Teacher toy:", "Search space:", "Full training:"):
        assert text in result.stdout
    assert "Training of the teacher" not in result.stdout
    assert "This is not the time that it will take, but the least" in result.stdout
    assert sorted(folder.rglob("*")) == before


@pytest.fixture(scope="module")
def whole(folder):
    """A whole run, the same command on its trials alone, and the same when all is done."""
    command = [*COMMAND, "--teacher=toy.keras", "--dataset=toy.npz", "--run_dir=out/run", *SHORT]
    first = run(command, folder)
    assert first.returncode == 0, first.stderr[-4000:]
    trials = (folder / "out/run/trials.jsonl").read_bytes()
    summary = json.loads((folder / "out/run/summary.json").read_text())
    finished = run(command, folder)
    (folder / "out/run/summary.json").unlink()
    second = run(command, folder)
    return first, trials, summary, second, finished


def test_a_whole_run_says_what_happens_and_nothing_else(whole):
    first, *_ = whole
    assert first.stderr == ""
    lines = first.stdout.splitlines()
    assert lines[0] == (
        "Data set toy.npz: 86 examples to train on, 10 held out, 40 to test, 3 classes."
    )
    assert lines[1] == "The run folder is out/run."
    assert sum(line.startswith("Trial ") for line in lines) == 4
    table = lines[next(i for i, line in enumerate(lines) if line.startswith("Model ")) :]
    assert table[1].startswith("teacher")
    assert table[2].startswith("student 1")
    text = "\n".join(table)
    for suffix in (".keras", ".tflite", "_saved_model"):
        assert suffix in text
    assert lines[-1] == "All of it is in out/run."
    assert not any(ord(character) < 32 for character in first.stdout.replace("\n", ""))


def test_the_same_command_goes_on_and_changes_no_trial(whole, folder):
    _, trials, summary, second, _ = whole
    assert second.returncode == 0, second.stderr[-4000:]
    assert "Going on after 4 trials in out/run." in second.stdout
    assert (folder / "out/run/trials.jsonl").read_bytes() == trials
    again = json.loads((folder / "out/run/summary.json").read_text())
    for values in (summary, again):  # what is timed anew
        del values["duration_secs"], values["profile"]
        for model in (values["teacher"], *values["students"]):
            model.pop("latency_secs", None)
    assert again == summary


def test_classes_that_are_not_held_out_are_told(folder, tmp_path):
    x, y = np.zeros((100, 4), np.float32), np.repeat(np.arange(9, -1, -1), 10)
    np.savez(tmp_path / "sorted.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    command = f"--teacher={folder / 'toy.keras'} --dataset=sorted.npz"
    commands = [f"{command} --validation_examples={count}" for count in (30, 70, 100)]
    driver = DRIVER.replace("errors.getvalue()", "output.getvalue()")
    result = run([sys.executable, "-c", driver, json.dumps(commands)], tmp_path)
    assert result.returncode == 0, result.stderr[-4000:]
    outputs = [output for _, output, _ in json.loads(result.stdout.splitlines()[-1])]
    told = [line for output in outputs for line in output.splitlines() if "Warning" in line]
    assert told[0].startswith("Warning: 7 of 10 classes (3, 4, 5, 6, 7, ...) are missing among")
    assert "Shuffle the examples in the file, or hold out more" in told[0]
    assert "Warning: 3 of 10 classes (7, 8, 9) are missing" in told[1]
    assert outputs[0].startswith("Data set sorted.npz")
    assert len(told) == 2


def test_digits_is_the_data_of_a_named_teacher_without_any(folder):
    result = run([*COMMAND, "--teacher=resnet18(width=4)", "--dry_run"], folder)
    assert result.returncode == 0, result.stderr[-4000:]
    assert result.stdout.startswith("Data set digits: ")


def test_a_finished_run_shows_its_table_again(whole):
    first, *_, finished = whole
    assert finished.returncode == 0, finished.stderr[-4000:]
    lines = finished.stdout.splitlines()
    first_lines = first.stdout.splitlines()
    assert lines[:2] == [first_lines[0], "The search in out/run is finished."]
    start = next(i for i, line in enumerate(first_lines) if line.startswith("Model "))
    assert lines[2:] == first_lines[start:-1]


def test_another_configuration_is_refused_before_anything_is_loaded(whole, folder):
    command = [*COMMAND, "--teacher=toy.keras", "--dataset=toy.npz", "--run_dir=out/run"]
    before = written(folder / "out")
    result = run([*command, *SHORT, "--seed=5"], folder)
    assert result.returncode == 2
    assert "seed is 0 there and 5 now" in result.stderr
    assert len(result.stderr.splitlines()) == 2
    assert result.stdout == ""
    dry = run([*command, *SHORT, "--seed=5", "--dry_run"], folder)
    assert (dry.returncode, dry.stderr, dry.stdout) == (2, result.stderr, "")
    assert written(folder / "out") == before


def test_another_teacher_or_other_data_is_refused_by_a_finished_run_and_a_dry_one(
    whole, folder, tmp_path
):
    """The files have the names of the run's, and other contents."""
    (x_train, y_train), (x_test, y_test) = toy.examples(seed=7), toy.TEST
    data = {"x_train": x_train, "x_test": x_test, "y_train": y_train, "y_test": y_test}
    run_dir = folder / "out" / "run"
    before = written(run_dir)
    command = f"--teacher=toy.keras --dataset=toy.npz --run_dir={run_dir} {' '.join(SHORT)}"
    for changed, what in (("toy.keras", "teacher"), ("toy.npz", "data")):
        work = tmp_path / changed
        work.mkdir()
        for name in {"toy.keras", "toy.npz"} - {changed}:
            (work / name).symlink_to(folder / name)
        if what == "teacher":
            toy.untrained().save(work / "toy.keras")
        else:
            np.savez(work / "toy.npz", **data)
        commands = [command, f"{command} --dry_run"]
        result = run([sys.executable, "-c", DRIVER, json.dumps(commands)], work)
        told = (
            f"Error: {run_dir} holds a search with another {what}.\n"
            f"Choose another --run_dir for a new run, or give the same {what} to resume.\n"
        )
        assert result.returncode == 0, result.stderr[-4000:]
        assert json.loads(result.stdout.splitlines()[-1]) == [[2, told, True]] * 2
    assert written(run_dir) == before


def test_flags_that_matter_to_no_trial_may_change(whole, folder):
    """How a named teacher would be trained, where the teacher is a file; a path in the home."""
    (folder / "home" / "run").symlink_to(folder / "out" / "run")
    command = [*COMMAND, "--teacher=toy.keras", "--dataset=toy.npz", *SHORT]
    result = run([*command, "--run_dir=~/run", "--teacher_epochs=3"], folder)
    (folder / "home" / "run").unlink()
    assert result.returncode == 0, result.stderr
    assert f"\nThe search in {folder / 'home' / 'run'} is finished.\n" in result.stdout


class Recorder:
    """Stands for the search and for the training of a teacher, which take long."""

    def __init__(self):
        self.calls = []

    def search_students(self, model, batches, validation, *, run_dir, config, run_config, **_):
        self.calls.append("search")
        summary = {"settings": config.free(), "students": []}
        with RunFolder(run_dir) as folder:
            folder.check_or_write_config({**config.fixed(), **run_config}, config.free())
            digests = {
                "weights_sha256": digest_of(model.get_weights()),
                "data_sha256": data_digest(batches, validation),
            }
            check_teacher(run_dir, digests)
            folder.write_teacher(digests)
            folder.append(Trial(0, "complete", ActionSet(), 1, 1, 0.5, 0.5, 1.0))
            folder.write_summary(summary)
        return types.SimpleNamespace(summary=summary)

    def trained_teacher(self, name, splits, *_, **__):
        self.calls.append("teacher")
        return command_teacher.untrained_teacher(splits)


@pytest.fixture
def recorder(folder, tmp_path, monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr("esnac_tf.compression.search_students", recorder.search_students)
    monkeypatch.setattr("esnac_tf.teacher_training.trained_teacher", recorder.trained_teacher)
    monkeypatch.chdir(tmp_path)
    shutil.copy(folder / "pictures.npz", "data.npz")
    yield recorder
    search.FLAGS.unparse_flags()


NAMED = ["search", "--teacher=resnet18(width=1)", "--dataset=data.npz", "--run_dir=run"]


def test_a_warning_is_told_as_a_sentence(monkeypatch, capsys):
    def warn():
        warnings.warn("That is slow.", stacklevel=1)
        return 0

    monkeypatch.setattr(search, "_run", warn)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert search.main(NAMED) == 0
    search.FLAGS.unparse_flags()
    assert capsys.readouterr().err == "Warning: That is slow.\n"


class TestFinishedRunOfANamedTeacher:
    def test_it_is_shown_without_training_the_teacher_again(self, recorder, capsys):
        assert search.main(NAMED) == 0
        assert recorder.calls == ["teacher", "search"]
        assert "finished" not in capsys.readouterr().out
        assert search.main(NAMED) == 0
        assert recorder.calls == ["teacher", "search"]
        assert "\nThe search in run is finished.\n" in capsys.readouterr().out

    def test_paths_may_be_spelled_in_another_way(self, recorder, folder, capsys):
        model = ["--teacher=model.keras", "--dataset=data.npz"]
        shutil.copy(folder / "toy.keras", "model.keras")
        shutil.copy(folder / "toy.npz", "data.npz")
        rest = ["search", "--run_dir=run"]
        here = pathlib.Path.cwd()
        (here / "sub").mkdir()
        assert search.main([*rest, *model]) == 0
        for place in ("./", f"{here}/", "sub/../"):
            other = [flag.replace("=", f"={place}") for flag in model]
            for given in ([other[0], model[1]], [model[0], other[1]], other):
                capsys.readouterr()
                search.main([*rest, *given])
                told = capsys.readouterr()
                assert told.err == ""
                assert "\nThe search in run is finished.\n" in told.out
        for name in ("model.keras", "data.npz"):
            shutil.copy(name, f"other_{name}")
            given = [flag.replace(name, f"other_{name}") for flag in model]
            assert search.main([*rest, *given]) == 2
            assert f'is "{name}" there and "other_{name}" now.' in capsys.readouterr().err

    def test_so_may_those_of_weights(self, recorder, folder, capsys):
        splits = datasets.load("data.npz")
        shape = splits.x_train.shape[1:]
        model = teachers.build("resnet18(width=1)", shape, 3, splits.normalization)
        model.save_weights("w.weights.h5")
        for place in ("", "./"):
            assert search.main([*NAMED, f"--teacher_weights={place}w.weights.h5"]) == 0
        assert "The search in run is finished." in capsys.readouterr().out

    def test_more_steps_are_no_finished_run(self, recorder):
        search.main(NAMED)
        assert search.main([*NAMED, "--num_steps=99", "--teacher_epochs=400"]) == 2
        # Each call builds other weights here.
        assert recorder.calls == ["teacher", "search", "teacher", "search"]

    def test_other_data_is_refused_before_the_teacher_is_trained(self, recorder, capsys):
        search.main(NAMED)
        with np.load("data.npz") as archive:
            data = dict(archive)
        np.savez("data.npz", **{**data, "x_train": data["x_train"][::-1]})
        for more in ([], ["--dry_run"], ["--num_steps=99"]):
            assert search.main([*NAMED, *more]) == 2
            assert "Error: run holds a search with another data." in capsys.readouterr().err
        assert recorder.calls == ["teacher", "search"]

    def test_other_weights_are_refused(self, recorder, folder, capsys):
        splits = datasets.load("data.npz")
        command = [*NAMED, "--teacher_weights=w.weights.h5"]
        for seed in (0, 1):
            keras.utils.set_random_seed(seed)
            shape = splits.x_train.shape[1:]
            model = teachers.build("resnet18(width=1)", shape, 3, splits.normalization)
            model.save_weights("w.weights.h5")
            if seed == 0:
                assert [search.main(command), search.main(command)] == [0, 0]
                assert "The search in run is finished." in capsys.readouterr().out
                assert recorder.calls == ["search"]
        assert [search.main(command), search.main([*command, "--dry_run"])] == [2, 2]
        told = capsys.readouterr().err.splitlines()
        assert told[::2] == ["Error: run holds a search with another teacher."] * 2
        assert recorder.calls == ["search"]

    def test_a_teacher_of_settings_without_trials_hinders_nobody(self, recorder):
        with RunFolder("run") as run_folder:
            run_folder.check_or_write_config({"teacher": "vgg16"})
            run_folder.write_teacher({"weights_sha256": "other", "data_sha256": "other"})
        assert search.main(NAMED) == 0
        assert recorder.calls == ["teacher", "search"]

    def test_nor_does_one_of_the_same_settings(self, recorder):
        search.main(NAMED)
        for name in ("trials.jsonl", "summary.json"):
            pathlib.Path("run", name).unlink()
        assert search.main(NAMED) == 0  # with other weights: each call builds some
        assert recorder.calls == ["teacher", "search"] * 2

    def test_an_export_that_failed_is_tried_again(self, recorder, capsys):
        search.main(NAMED)
        with RunFolder("run") as run_folder:
            student = {"exports": {}, "export_failures": {"keras": "No space left on device"}}
            run_folder.write_summary({**run_folder.summary(), "students": [student]})
        search.main(NAMED)
        assert recorder.calls == ["teacher", "search"] * 2
        assert "is finished" not in capsys.readouterr().out


@pytest.mark.parametrize("before", [[], ["out2"], ["out2", "out2/run"]])
def test_a_run_folder_is_removed_only_if_it_is_new_and_holds_no_trial(tmp_path, before):
    path = tmp_path / "out2" / "run"

    def mistaken(written):
        with search._removed_after_a_mistake(str(path)), RunFolder(path):
            (path / written).write_text("")
            raise UserError("a mistake")

    for name in before:
        (tmp_path / name).mkdir()
    for written, stays in (("config.json", before), ("trials.jsonl", ["out2", "out2/run"])):
        with pytest.raises(UserError, match="a mistake"):
            mistaken(written)
        folders = [path for path in tmp_path.rglob("*") if path.is_dir()]
        assert sorted(str(path.relative_to(tmp_path)) for path in folders) == stays


READER = """
import json, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "esnac_tf":
            raise ImportError("the export needs esnac_tf")
sys.meta_path.insert(0, Refuse())
import keras, numpy as np, tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
exports, x = json.loads(sys.argv[1]), np.load("toy.npz")["x_test"]
outputs = [
    keras.models.load_model(exports["keras"])(x, training=False),
    (loaded := tf.saved_model.load(exports["saved_model"])).serve(x),
    *Interpreter(exports["litert"]).get_signature_runner("serving_default")(features=x).values(),
]
np.savez("outputs.npz", *[np.asarray(output) for output in outputs])
"""


def test_exports_give_equal_outputs_without_the_project(whole, folder):
    summary = whole[2]
    [student] = summary["students"]
    exports = {name: f"out/run/{path}" for name, path in student["exports"].items()}
    assert sorted(exports) == ["keras", "litert", "saved_model"]
    result = run([sys.executable, "-c", READER, json.dumps(exports)], folder, PYTHONPATH="")
    assert result.returncode == 0, result.stderr[-4000:]
    with np.load(folder / "outputs.npz") as archive:
        outputs = [archive[name] for name in archive.files]
    assert len(outputs) == 3
    for output in outputs[1:]:
        np.testing.assert_allclose(output, outputs[0], rtol=1e-4, atol=1e-4)
    accuracy = np.mean(outputs[0].argmax(axis=1) == toy.TEST[1])
    assert student["test_accuracy"] == pytest.approx(accuracy)
