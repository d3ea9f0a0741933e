"""Two machines, here two processes, that train the best students together."""

from __future__ import annotations

import json
import os
import pathlib
import socket
import subprocess
import sys
import time
import types

import numpy as np
import pytest
import toy

from esnac_tf import search, tf_config
from esnac_tf.config import SearchConfig
from esnac_tf.distillation.machines import SEARCH, Machines, Order
from esnac_tf.errors import UserError
from esnac_tf.joint_machines import agreement, check_agreed
from esnac_tf.purpose import find_purpose
from esnac_tf.training_setup import prepare_training

TESTS = pathlib.Path(__file__).parent
TWO = '{"cluster": {"worker": ["a:9", "b:9"]}, "task": {"type": "worker", "index": "0"}}'


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture
def start():
    """Starts machines, the chief first; their outputs are in files."""
    started = []

    def start(folder, *command, num_machines=2, cwd=TESTS):
        folder.mkdir(exist_ok=True)
        addresses = [f"127.0.0.1:{port}" for port in free_ports(num_machines)]
        processes = []
        for index in range(num_machines):
            task = {"type": "worker", "index": index}
            config = json.dumps({"cluster": {"worker": addresses}, "task": task})
            path = os.pathsep.join([str(TESTS.parent), str(TESTS)])
            environment = {**os.environ, "TF_CONFIG": config, "PYTHONPATH": path}
            if num_machines == 1:
                del environment["TF_CONFIG"]
            with (folder / f"output_{index}").open("w") as output:
                processes.append(
                    subprocess.Popen(
                        [sys.executable, *map(str, command)],
                        cwd=cwd,
                        env=environment,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                    )
                )
        started.extend(processes)
        return processes

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def one_or_two(start):
    """Starts the script beside this file."""

    def one_or_two(folder, work="search", num_machines=2, other=None, **changes):
        values = json.dumps({"all": changes, "other": other or {}})
        command = "one_of_two_machines.py", folder, work, values
        return start(folder, *command, num_machines=num_machines)

    return one_or_two


def output(folder, index=0):
    return (folder / f"output_{index}").read_text()


def finish(processes, folder):
    for index, process in enumerate(processes):
        assert process.wait(120) == 0, output(folder, index)


def weights_are_close(one, two, tolerance):
    with np.load(one / "weights.npz") as expected, np.load(two / "weights.npz") as weights:
        assert len(weights.files) == len(expected.files) > 0
        for name in expected.files:
            np.testing.assert_allclose(
                weights[name], expected[name], rtol=tolerance, atol=tolerance
            )


@pytest.mark.slow
def test_a_teacher_is_trained_by_both_and_kept_by_the_chief(one_or_two, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    finish(one_or_two(one, "teacher", num_machines=1), one)
    finish(one_or_two(two, "teacher"), two)
    weights_are_close(one, two, 1e-4)
    finish(one_or_two(two, "teacher"), two)  # the second time it is kept
    assert "is taken from" in output(two)
    weights_are_close(one, two, 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"teacher": "regression"},
        {"halving_factor": 2, "asked": {"distillation_loss": "soft_targets"}},
    ],
)
def test_two_machines_train_as_one(changes, one_or_two, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    finish(one_or_two(one, num_machines=1, **changes), one)
    finish(one_or_two(two, **changes), two)
    for line in ("epochs", "trials"):
        [expected] = [text for text in output(one).splitlines() if text.startswith(line)]
        assert expected in output(two)
    [epochs] = [text for text in output(one).splitlines() if text.startswith("epochs")]
    assert "0" not in epochs.split()  # all are weights of the full training
    weights_are_close(one, two, 1e-5)
    assert sorted(path.name for path in two.iterdir()) == [
        "output_0", "output_1", "run", "training", "weights.npz"
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("work", "changes", "told", "told_other"),
    [
        ("teacher", {"other": {"learning_rate": 0.1}}, "refused", "the teacher's file is"),
        ("search", {"other": {"data": "other labels"}}, "refused", "data_sha256 is"),
        ("search", {"data": "shuffled"}, "in another order each time", "ended with an error"),
    ],
)
def test_machines_that_do_not_agree_end_before_anything_is_trained(
    work, changes, told, told_other, one_or_two, tmp_path
):
    """Also where the process of one that ended goes on, as in a notebook."""
    processes = one_or_two(tmp_path, work, **changes)
    for index, (process, text) in enumerate(zip(processes, (told, told_other), strict=True)):
        assert process.wait(120) == 2, output(tmp_path, index)
        assert text in output(tmp_path, index)
        assert "Traceback" not in output(tmp_path, index)
    assert not (tmp_path / "training").exists()
    assert not (tmp_path / "run" / "trials.jsonl").exists()
    assert not list(tmp_path.rglob("*.keras"))


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_machine_that_is_killed_ends_the_others_and_the_search_goes_on(
    killed, one_or_two, tmp_path
):
    processes = one_or_two(tmp_path, full_epochs=100_000)
    deadline = time.monotonic() + 120
    while not (tmp_path / "training").exists():
        assert time.monotonic() < deadline, output(tmp_path)
        assert all(process.poll() is None for process in processes), output(tmp_path)
        time.sleep(0.1)
    time.sleep(3)
    (tmp_path / "failed").write_text("x")  # which the killed one can't
    processes[killed].kill()
    processes[killed].wait()
    start_secs, other = time.monotonic(), 1 - killed
    assert processes[other].wait(60) == 2, output(tmp_path, other)
    print(f"The other machine ended after {time.monotonic() - start_secs:.1f} s.")
    assert "Error: Another machine of TF_CONFIG is gone" in output(tmp_path, other)
    assert "Traceback" not in output(tmp_path, other)
    before = (tmp_path / "run" / "trials.jsonl").read_bytes()
    finish(one_or_two(tmp_path), tmp_path)
    assert (tmp_path / "run" / "trials.jsonl").read_bytes() == before
    assert (tmp_path / "weights.npz").exists()


@pytest.mark.slow
def test_the_command_line_on_two_machines(start, tmp_path):
    """Trained and searched, then started again though it is finished."""
    command = [
        "-m", "esnac_tf.search", "--flagfile=flags/quickstart.flags", "--strategy=random",
        "--teacher=resnet18(width=4)", "--teacher_epochs=1", "--train_examples=128",
        "--num_steps=1", "--num_kernels=2", "--num_best=1", "--search_epochs=1", "--full_epochs=1",
        "--export=keras", f"--run_dir={tmp_path / 'run'}", f"--cache_dir={tmp_path / 'cache'}",
    ]  # fmt: skip
    for told in ("Training teacher resnet18(width=4)", "is finished."):
        finish(start(tmp_path, *command, cwd=TESTS.parent), tmp_path)
        assert told in output(tmp_path)
        assert "the chief tells of the search" in output(tmp_path, 1)
        assert "The search is finished." in output(tmp_path, 1)


def agreed(data=(toy.TRAIN, toy.VALIDATION), replicas=2, **changes):
    """What a machine among several tells, or compares."""
    config = SearchConfig(**{**toy.SHORT, **changes})
    teacher = toy.teacher()
    setup = prepare_training(teacher, *data, config, find_purpose(teacher, config))
    strategy = types.SimpleNamespace(num_replicas_in_sync=replicas)
    return agreement(Machines(strategy, True, 2), config, setup)


def test_the_same_is_agreed():
    order = Order(SEARCH, {"agreed": agreed()})
    check_agreed(order, agreed())
    check_agreed(order, agreed(distribute="mirrored", jit_compile=True, num_steps=7))


X, Y = toy.TRAIN
HELD_OUT_X, HELD_OUT_Y = toy.VALIDATION


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"seed": 4}, "seed is 3 on the chief and 4 on this machine"),
        ({"full_loss": "soft_targets"}, "full_loss is 'cross_entropy' on the chief"),
        ({"metric": "loss"}, "metric is 'auto' on the chief"),
        ({"data": ((X, np.r_[Y[:90], Y[:6]]), toy.VALIDATION)}, "data_sha256 is"),
        ({"data": (toy.TRAIN, (-HELD_OUT_X, HELD_OUT_Y))}, "data_sha256 is"),
        ({"data": ((X[:95], Y[:95]), toy.VALIDATION), "batch_size": 128}, "received 95"),
    ],
)
def test_what_is_not_the_same_is_told(changes, told):
    order = Order(SEARCH, {"agreed": agreed()})
    with pytest.raises(UserError, match=told):
        check_agreed(order, agreed(**changes))


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ("{", "TF_CONFIG can't be read"),
        (TWO.replace("0", "x"), "TF_CONFIG can't be read"),
        (TWO.replace("0", "2"), "there is no worker 2 among 2"),
        (TWO.replace('"type": "worker"', '"type": "ps"'), "TF_CONFIG can't be read: 'ps'"),
        (TWO.replace('"task"', '"tasks"'), "TF_CONFIG can't be read: 'task'"),
    ],
)
def test_a_configuration_that_cannot_be_read_is_told(config, told, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(UserError, match=told):
        tf_config.role()


@pytest.mark.parametrize(
    "config", ["", "{}", '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}']
)
def test_one_machine_is_none(config, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config)
    assert tf_config.role() is None


@pytest.mark.parametrize(
    ("config", "is_chief"),
    [
        (TWO, True),
        (TWO.replace('"index": "0"', '"index": 1'), False),
        ('{"cluster": {"chief": ["a:9"], "worker": ["b:9"]}, '
         '"task": {"type": "worker", "index": 0}}', False),
        ('{"cluster": {"chief": ["a:9"], "worker": ["b:9"]}, '
         '"task": {"type": "chief", "index": 0}}', True),
    ],
)  # fmt: skip
def test_the_chief_is_one_of_several(config, is_chief, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config)
    assert tf_config.role() == tf_config.Role(2, is_chief)


def test_several_machines_put_nothing_in_place(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("TF_CONFIG", TWO)
    teacher = tmp_path / "model.keras"
    teacher.touch()
    code = search.main(["search", f"--teacher={teacher}", "--dataset=digits", "--in_place"])
    assert code == 2
    told = "Error: --in_place is for one machine, and TF_CONFIG names 2."
    assert capsys.readouterr().err.splitlines()[0] == told
