"""Two machines, here two processes, that train the best students together."""

from __future__ import annotations

import json
import os
import pathlib
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from esnac_tf.distillation import machines
from esnac_tf.errors import UserError

TESTS = pathlib.Path(__file__).parent


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def start(folder, full_epochs=8, num_machines=2):
    """The processes, the chief first; their outputs are in files."""
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
            command = [sys.executable, str(TESTS / "one_of_two_machines.py"), str(folder)]
            processes.append(
                subprocess.Popen(
                    [*command, str(full_epochs)],
                    env=environment,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
            )
    return processes


def output(folder, index=0):
    return (folder / f"output_{index}").read_text()


def finish(processes, folder):
    for index, process in enumerate(processes):
        assert process.wait(120) == 0, output(folder, index)


@pytest.mark.slow
def test_two_machines_train_as_one(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    finish(start(one, num_machines=1), one)
    finish(start(two), two)
    for line in ("epochs", "trials"):
        [expected] = [text for text in output(one).splitlines() if text.startswith(line)]
        assert expected in output(two)
    [epochs] = [text for text in output(one).splitlines() if text.startswith("epochs")]
    assert "0" not in epochs.split()  # all are weights of the full training
    with np.load(one / "weights.npz") as expected, np.load(two / "weights.npz") as weights:
        assert len(weights.files) == len(expected.files) > 0
        for name in expected.files:
            np.testing.assert_allclose(weights[name], expected[name], rtol=1e-5, atol=1e-5)
    assert sorted(path.name for path in two.iterdir()) == [
        "output_0", "output_1", "run", "training", "weights.npz"
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_machine_that_is_killed_ends_the_others_and_the_search_goes_on(killed, tmp_path):
    processes = start(tmp_path, full_epochs=100_000)
    while not (tmp_path / "training").exists():
        assert all(process.poll() is None for process in processes), output(tmp_path)
        time.sleep(0.1)
    time.sleep(3)
    processes[killed].kill()
    processes[killed].wait()
    start_secs, other = time.monotonic(), 1 - killed
    assert processes[other].wait(60) == 2, output(tmp_path, other)
    print(f"The other machine ended after {time.monotonic() - start_secs:.1f} s.")
    assert "Error: Another machine of TF_CONFIG is gone" in output(tmp_path, other)
    assert "Traceback" not in output(tmp_path, other)
    before = (tmp_path / "run" / "trials.jsonl").read_bytes()
    finish(start(tmp_path, full_epochs=8), tmp_path)
    assert (tmp_path / "run" / "trials.jsonl").read_bytes() == before
    assert (tmp_path / "weights.npz").exists()


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ("{", "TF_CONFIG can't be read"),
        ('{"cluster": {"worker": "a"}, "task": {"type": "worker", "index": "x"}}', "TF_CONFIG"),
    ],
)
def test_a_configuration_that_cannot_be_read_is_told(config, told, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config)
    machines.joined.cache_clear()
    with pytest.raises(UserError, match=told):
        machines.joined()
    machines.joined.cache_clear()


@pytest.mark.parametrize(
    "config", ["", "{}", '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}']
)
def test_one_machine_is_none(config, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config)
    machines.joined.cache_clear()
    assert machines.joined() is None
    machines.joined.cache_clear()
