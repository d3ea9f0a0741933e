"""Workers that Ray places: where, and what becomes of students whose worker dies."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import os
import pathlib
import signal
import subprocess
import sys
import tempfile

import pytest
import toy

from esnac_tf import executors
from esnac_tf.architecture import ActionSet
from esnac_tf.compression import search_students
from esnac_tf.distillation import TrainingConfig
from esnac_tf.errors import MissingExtraError, UserError
from esnac_tf.executors import Placement, parcel
from esnac_tf.executors.placement import Plan, plan
from esnac_tf.executors.ray import RayExecutor
from esnac_tf.executors.worker import Worker, remove_folder
from esnac_tf.run_files import loads
from esnac_tf.trial import COMPLETE, FAILED, LOST

from .conftest import make_context, make_evaluator

STUDENTS = {width: ActionSet.of(widths={"12": width}) for width in (5, 4, 3, 2)}
LONG = TrainingConfig.search(epochs=150)


@pytest.mark.parametrize(
    ("nodes", "num_students", "asked", "planned"),
    [
        ([{"CPU": 2}], 8, (), Plan(2, 1, 0, 1)),
        ([{"CPU": 2}], 8, (2,), Plan(1, 2, 0, 1)),
        ([{"CPU": 64}], 8, (), Plan(8, 8, 0, 1)),
        ([{"CPU": 64}], 1, (), Plan(1, 64, 0, 1)),
        ([{"CPU": 8}, {"CPU": 8}], 3, (), Plan(3, 4, 0, 1)),
        ([{"CPU": 4}] * 4, 5, (), Plan(5, 2, 0, 1)),
        ([{"CPU": 64}, *[{"CPU": 4}] * 4], 8, (), Plan(8, 8, 0, 1)),
        ([{"CPU": 1}, {"CPU": 1}], 1, (), Plan(1, 1, 0, 1)),
        ([{"CPU": 16, "GPU": 2}], 8, (), Plan(2, 8, 1, 1)),
        ([{"CPU": 16, "GPU": 2}], 8, (None, 0), Plan(8, 2, 0, 1)),
        ([{"CPU": 16, "GPU": 2}], 8, (None, 0.25), Plan(2, 8, 1, 4)),
        ([{"CPU": 16, "GPU": 2}], 8, (1, 0.25), Plan(2, 4, 1, 4)),
        ([{"CPU": 16, "GPU": 2}], 3, (None, 0.3), Plan(1, 16, 1, 3)),
        ([{"CPU": 16, "GPU": 4}], 8, (None, 2), Plan(2, 8, 2, 1)),
        ([{"CPU": 16, "GPU": 4}, {"CPU": 64}], 8, (), Plan(4, 4, 1, 1)),
        ([{"CPU": 1, "GPU": 4}], 8, (), Plan(4, 0, 1, 1)),
        ([{"CPU": 1, "GPU": 4}], 8, (1,), Plan(1, 1, 1, 1)),
    ],
)
def test_a_plan_uses_what_there_is(nodes, num_students, asked, planned):
    assert plan(nodes, num_students, *asked) == planned


@pytest.mark.parametrize(
    ("nodes", "asked"),
    [
        ([], ()),
        ([{"CPU": 0}], ()),
        ([{"CPU": 2}], (3,)),
        ([{"CPU": 2}], (1, 1)),
        ([{"CPU": 8, "GPU": 1}], (1, 2)),
    ],
)
def test_no_room_is_told(nodes, asked):
    with pytest.raises(UserError, match=r"No machine has room for a worker of .*; there are"):
        plan(nodes, 4, *asked)


def test_without_the_extra_it_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for use in (lambda: executors.check("ray", Placement(4)), lambda: search(executor="ray")):
        with pytest.raises(MissingExtraError) as caught:
            use()
        assert str(caught.value).splitlines()[0] == "executor='ray' needs the package ray."
        assert "pip install ray" in str(caught.value).splitlines()[1]


def search(**settings):
    settings = {**toy.SHORT, "full_epochs": 0, **settings}
    return search_students(toy.teacher(), toy.TRAIN, toy.VALIDATION, **settings)


def comparable(result):
    trials = sorted(result.trials, key=lambda trial: trial.number)
    return [dataclasses.replace(trial, duration_secs=0.0) for trial in trials]


def pid_of(ray, worker):
    return ray.get(worker.__ray_call__.remote(lambda self: os.getpid()))


@pytest.fixture
def kill(ray, monkeypatch):
    """Kills a worker a moment after it began to train: so many times."""
    left, seen, follow = [0], [], RayExecutor._follow

    def follow_and_kill(executor):
        follow(executor)
        for reference, share in executor._running.items():
            seen.append(reference)
            if seen.count(reference) == 2 and left[0]:
                left[0] -= 1
                os.kill(pid_of(ray, executor._workers[share.worker]), signal.SIGKILL)

    monkeypatch.setattr(RayExecutor, "_follow", follow_and_kill)

    def set_number(number):
        left[0] = number

    yield set_number
    assert left == [0]


class TestLosses:
    @pytest.fixture
    def running(self, ray):
        context = make_context(make_evaluator(config=LONG), step_size=4)
        with executors.opened("ray", context.given) as executor:
            yield executor, context

    def test_what_a_dead_worker_trained_is_reported_as_lost(self, running, kill):
        executor, context = running
        kill(1)
        executor.submit(STUDENTS, 3)
        while len(context.finished) < 4:
            executor.wait()
        assert context.epochs  # a worker told how far it was
        assert len(executor._workers) == 2
        lost = [item.trial for item in context.finished if item.trial.state == LOST]
        assert [trial.number for trial in lost] in ([5, 3], [4, 2])  # dealt out in turn
        assert {trial.failure for trial in lost} == {"its worker died"}
        assert sum(item.trial.state == COMPLETE for item in context.finished) == 2
        context.finished.clear()
        executor.submit({trial.number: trial.actions for trial in lost}, 3)
        assert [len(share.proposals) for share in executor._queue] == [1, 1]  # each alone
        while len(context.finished) < 2:
            executor.wait()
        assert {item.trial.state for item in context.finished} == {COMPLETE}
        assert executor.wait() == 2

    def test_a_student_that_kills_its_worker_fails_in_the_end(self, running, kill):
        executor, context = running
        kill(3)
        for _ in range(3):
            executor.submit({7: STUDENTS[5]}, 0)
            executor.wait()
        assert [(item.trial.state, item.trial.failure) for item in context.finished] == [
            (LOST, "its worker died"),
            (LOST, "its worker died"),
            (FAILED, "its worker died, 3 times"),
        ]


@pytest.mark.parametrize("is_there", [True, False])
def test_large_data_is_read_from_files_or_sent(ray, npz_file, npz_batches, is_there, monkeypatch):
    monkeypatch.setattr(parcel, "_LARGE_BYTES", 1)
    context = make_context(make_evaluator(batches=npz_batches))
    if not is_there:
        npz_file.unlink()
    with executors.opened("ray", context.given) as executor:
        executor.submit(STUDENTS, 0)
        while len(context.finished) < len(STUDENTS):
            executor.wait()
    told = ["Students are trained by 2 workers of 1 CPU."]
    if not is_there:
        told.append("A machine lacks the files of the training data: it is sent.")
    assert context.lines == told
    assert {item.trial.state for item in context.finished} == {COMPLETE}


class Unreadable:
    """What can be sent, and not be taken out."""

    def __reduce__(self):
        return importlib.import_module, ("no_such_module_anywhere",)


def test_a_worker_that_cannot_be_prepared_ends_the_search(ray):
    evaluator = make_evaluator()
    evaluator.builder.channel_importance = Unreadable()
    with executors.opened("ray", make_context(evaluator).given) as executor:
        executor.submit(STUDENTS, 0)
        with pytest.raises(UserError, match=r"can't start a worker: .*no_such_module_anywhere"):
            executor.wait()


class TestDealing:
    """Which students are together, without Ray."""

    def executor(self, num_workers=2):
        context = make_context(make_evaluator(), step_size=4)
        executor = RayExecutor(context.given, None, None)
        executor._plan = Plan(num_workers, 1, 0, 1)
        return executor

    def dealt(self, executor, numbers):
        executor.submit({number: ActionSet() for number in numbers}, 0)
        shares = [sorted(share.proposals) for share in executor._queue]
        executor._queue.clear()
        return shares

    def test_it_goes_by_numbers(self):
        executor = self.executor()
        assert self.dealt(executor, [4, 5, 6, 7]) == [[4, 6], [5, 7]]
        assert self.dealt(executor, [4, 6]) == [[4, 6]]  # as after a resumption
        assert self.dealt(self.executor(1), [4, 5, 6, 7]) == [[4, 5, 6, 7]]

    def test_lost_ones_are_alone(self):
        executor = self.executor()
        executor._losses.update([4])
        assert self.dealt(executor, [4, 6]) == [[6], [4]]


class TestSearch:
    @pytest.fixture(scope="class")
    @classmethod
    def expected(cls):
        return search(num_kernels=4)

    @pytest.mark.parametrize("num_workers", [1, 2])
    def test_trials_are_those_of_the_local_executor(self, ray, expected, num_workers):
        result = search(num_kernels=4, executor="ray", cpus_per_candidate=2 // num_workers)
        assert comparable(result) == comparable(expected)
        for one, other in zip(result.students, expected.students, strict=True):
            assert one.trial.actions == other.trial.actions
            accuracy = toy.accuracy(one.model, toy.VALIDATION)
            assert accuracy == pytest.approx(one.trial.validation_accuracy)

    def test_a_worker_that_is_killed_loses_no_trial(self, kill, tmp_path):
        settings = {"num_kernels": 4, "num_steps": 1, "search_epochs": LONG.epochs}
        expected = search(**settings)
        kill(1)
        result = search(executor="ray", run_dir=tmp_path, **settings)
        assert comparable(result) == comparable(expected)
        lines = [loads(line) for line in (tmp_path / "trials.jsonl").read_bytes().splitlines()]
        states = [line["state"] for line in lines]
        assert (states.count("lost"), states.count("complete")) == (2, 4)
        assert search(run_dir=tmp_path, **settings).trials == result.trials  # it is finished

    def test_asynchronously_every_trial_comes_once(self, ray):
        settings = {"num_steps": 3, "num_kernels": 2, "asynchronous": True}
        result = search(executor="ray", **settings)
        assert [trial.number for trial in comparable(result)] == list(range(6))
        assert len({trial.actions for trial in result.trials}) == 6

    def test_asynchronously_one_worker_is_as_one_process(self, ray):
        settings = {"num_steps": 2, "num_kernels": 2, "asynchronous": True}
        result = search(executor="ray", cpus_per_candidate=2, **settings)
        assert comparable(result) == comparable(search(**settings))


@pytest.mark.parametrize(
    ("cause", "mode", "told"),
    [
        ("nobody answers", None, "cluster at auto can't be joined: nobody answers"),
        ("InvalidAuthToken: missing", None, "auto wants a token.\nSet RAY_AUTH_MODE=token here"),
        ("InvalidAuthToken: wrong", "token", "cluster at auto has another token"),
    ],
)
def test_a_cluster_that_cannot_be_joined_is_told(cause, mode, told, monkeypatch):
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    if mode:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    ray = pytest.importorskip("ray", reason="Ray is not installed (the extra ray).")

    def fail(**arguments):
        assert arguments["address"] == "auto"
        raise ConnectionError("nobody answers") from RuntimeError(cause)

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", fail)
    with pytest.raises(UserError, match=told):
        search(executor="ray", ray_address="auto")


def test_a_ray_of_its_own_that_cannot_start_is_told(monkeypatch):
    ray = pytest.importorskip("ray", reason="Ray is not installed (the extra ray).")

    def fail(**arguments):
        raise ConnectionError("the path is too long")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", fail)
    with pytest.raises(UserError, match="Ray can't start on this machine: the path is too long"):
        search(executor="ray")


@pytest.mark.parametrize("joined", [True, False])
def test_room_is_looked_for_before_anything_is_trained(joined, monkeypatch):
    ray = pytest.importorskip("ray", reason="Ray is not installed (the extra ray).")
    monkeypatch.setattr(ray, "is_initialized", lambda: joined)
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}])
    placement = Placement(4, cpus_per_candidate=10_000)
    with pytest.raises(UserError, match="No machine has room for a worker of 10000 CPUs and 0"):
        executors.check("ray", placement)


def test_signals_are_handled_as_before(ray):
    """Ray would take SIGTERM for itself."""
    program = (
        "import signal, ray\n"
        "from esnac_tf.executors.ray import _start_ray\n"
        "signal.signal(signal.SIGTERM, print)\n"
        f"_start_ray(ray, {ray.get_runtime_context().gcs_address!r})\n"
        "assert signal.getsignal(signal.SIGTERM) is print\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_an_address_where_nobody_listens_is_told_at_once(monkeypatch):
    ray = pytest.importorskip("ray", reason="Ray is not installed (the extra ray).")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(UserError, match=r"at 127\.0\.0\.1:1 can't be joined: .*refused"):
        search(executor="ray", ray_address="127.0.0.1:1")


def test_a_worker_tells_of_its_training(monkeypatch, tmp_path):
    """In this process: the worker without Ray."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    from esnac_tf.executors.parcel import pack

    worker = Worker(os.cpu_count(), 0)
    trials, *weights = worker.evaluate(lambda: pack(make_evaluator()), STUDENTS, 1)
    assert [trial.number for trial in trials] == list(STUDENTS)
    assert len(weights) == 4
    events = worker.events()
    assert [arguments[0] for name, arguments in events if name == "on_epoch"] == [1, 2]
    assert sum(name == "on_batch" for name, _ in events) == 2 * (96 // 16)
    assert worker.events() == []
    folder = pathlib.Path(tempfile.gettempdir())
    assert folder.name.startswith("esnac_tf_")
    monkeypatch.setattr(tempfile, "tempdir", str(folder.parent))
    remove_folder(folder.name.removeprefix("esnac_tf_"))
    assert not folder.exists()
