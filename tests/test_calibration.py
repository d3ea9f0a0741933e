"""How students are trained fastest: what is measured, when, and that it is kept."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import toy

from esnac_tf import calibration
from esnac_tf.architecture import ActionSet
from esnac_tf.calibration import Timing, Way, choose_way, measure_way
from esnac_tf.compression import search_students
from esnac_tf.config import SearchConfig
from esnac_tf.datasets.given import given_evaluation_batches, given_training_batches
from esnac_tf.display import Display
from esnac_tf.distillation import get_strategy, losses
from esnac_tf.distillation.student_groups import StudentGroup
from esnac_tf.distillation.task import Task
from esnac_tf.errors import InfeasibleStudentError
from esnac_tf.graph.teacher import analyse
from esnac_tf.record import RunFolder
from esnac_tf.search_space.space import SearchSpace
from esnac_tf.student import StudentBuilder
from esnac_tf.trial import Trial

LONG = 10_000  # batches in an epoch


@pytest.fixture
def run(tmp_path):
    with RunFolder(tmp_path / "run") as folder:
        yield folder


@pytest.fixture
def gpus(monkeypatch):
    def pretend(number):
        monkeypatch.setattr(calibration, "num_gpus", lambda: number)

    pretend(0)
    return pretend


def choose(run, config=None, num_batches=LONG, **step_secs):
    """The chosen way, and those that were measured."""
    measured = []

    def measure(way):
        measured.append(way)
        names = [name for name, is_on in dataclasses.asdict(way).items() if is_on]
        secs = step_secs.get("_".join(names) or "plain", 1.0)
        return None if secs is None else Timing(way, 1.0, secs)

    display = Display(quiet=True)
    return choose_way(config or SearchConfig(), run, display, num_batches, measure), measured


def test_a_short_search_measures_nothing(run, gpus):
    assert choose(run, SearchConfig(full_epochs=1), num_batches=10) == (Way(), [])
    assert choose(run, num_batches=None) == (Way(), [])
    assert run.calibration() is None


def test_the_faster_way_is_chosen_and_kept(run, gpus):
    chosen, measured = choose(run, jit_compile=0.5)
    assert measured == [Way(), Way(jit_compile=True)]
    assert chosen == Way(jit_compile=True)
    assert choose(run, plain=0.1) == (chosen, [])  # the next process measures nothing
    assert [row["step_secs"] for row in run.calibration()["measured"]] == [1.0, 0.5]


def test_starts_count_too(run, gpus):
    """What compiles longer than it saves is not chosen."""
    config = SearchConfig(num_steps=20, full_epochs=0)
    timings = {False: Timing(Way(), 1.0, 0.010), True: Timing(Way(True), 500.0, 0.009)}
    display = Display(quiet=True)
    chosen = choose_way(config, run, display, 100, lambda way: timings[way.jit_compile])
    assert chosen == Way()


@pytest.mark.parametrize(
    ("number", "settings", "expected"),
    [
        (0, {}, 2),
        (0, {"jit_compile": True}, 1),
        (1, {}, 4),
        (1, {"mixed_precision": False}, 2),
        (2, {}, 6),  # XLA only where each student has one device
        (2, {"distribute": "mirrored"}, 2),
        (2, {"distribute": "grouped", "jit_compile": False, "mixed_precision": True}, 1),
    ],
)
def test_what_is_set_is_not_measured(run, gpus, number, settings, expected):
    gpus(number)
    ways = list(
        calibration._open_ways(
            SearchConfig(**settings),
            Way(
                bool(settings.get("jit_compile")),
                bool(settings.get("mixed_precision")),
                settings.get("distribute") == "grouped",
            ),
        )
    )
    assert len(ways) == len(set(ways)) == expected
    for way in ways:
        for name in ("jit_compile", "mixed_precision"):
            assert settings.get(name) in (None, getattr(way, name))
        assert number > 0 or not way.mixed_precision
        assert way.grouped or not (way.jit_compile and number > 1)


def test_what_is_set_later_is_obeyed(run, gpus):
    assert choose(run, jit_compile=0.5)[0] == Way(jit_compile=True)
    assert choose(run, SearchConfig(jit_compile=False)) == (Way(), [])
    # No trial yet: other settings are measured anew.
    chosen, measured = choose(run, SearchConfig(batch_size=64), jit_compile=2.0)
    assert (chosen, len(measured)) == (Way(), 2)


def test_a_search_with_trials_stays_as_it_is(run, gpus):
    """A short search that becomes a long one trains all its trials in one way."""
    run.append(Trial(0, "complete", ActionSet(), 100, 2000, 0.5, 0.4, 1.0))
    assert choose(run, jit_compile=0.5) == (Way(), [])


def test_halved_students_stay_together(run, gpus):
    gpus(2)
    ways = choose(run, SearchConfig(halving_factor=2))[1]
    assert ways
    assert not any(way.grouped for way in ways)


def test_students_that_cannot_be_built_are_passed_over():
    class Builder(StudentBuilder):
        refused = 0

        def build(self, actions, name=None):
            if Builder.refused < 3:
                Builder.refused += 1
                raise InfeasibleStudentError("no room")
            return super().build(actions, name)

    assert time_toy(Builder) is not None
    assert Builder.refused == 3
    Builder.refused = -1000
    assert time_toy(Builder) is None


def test_a_way_in_which_nothing_trains_is_left_out(run, gpus):
    chosen, measured = choose(run, jit_compile=None)
    assert (chosen, len(measured)) == (Way(), 2)


def test_another_machine_may_have_one_device(run, gpus):
    gpus(2)
    assert choose(run, grouped=0.1)[0] == Way(grouped=True)
    gpus(0)
    assert choose(run)[0] == Way()


def time_toy(builder=StudentBuilder, jit_compile=False):
    teacher = toy.teacher()
    graph = analyse(teacher)
    return measure_way(
        Way(jit_compile=jit_compile),
        SearchConfig(batch_size=16),
        [StudentGroup(get_strategy("none"), teacher)],
        builder(teacher, graph),
        SearchSpace(graph),
        given_training_batches(toy.TRAIN, 16),
        given_evaluation_batches(toy.VALIDATION, 16),
        losses.get("logit_mse"),
        Task(),
    )


@pytest.mark.parametrize("jit_compile", [False, True])
def test_times_are_measured_by_training(jit_compile):
    timing = time_toy(jit_compile=jit_compile)
    assert timing.way.jit_compile is jit_compile
    assert timing.start_secs > 0
    assert timing.step_secs > 0


def test_a_search_is_trained_in_the_way_that_was_measured(monkeypatch, tmp_path):
    monkeypatch.setattr(calibration, "LONG_SEARCH_STEPS", 1)
    secs = itertools.count(1)
    monkeypatch.setattr(
        "esnac_tf.search_setup.measure_way",
        lambda way, *rest: Timing(way, 0.0, 1.0 / next(secs)),  # the last is the fastest
    )
    result = search_students(
        toy.teacher(), toy.TRAIN, toy.VALIDATION, run_dir=tmp_path, **toy.SHORT
    )
    with RunFolder(tmp_path) as run:
        assert run.calibration()["chosen"]["jit_compile"] is True
    assert all(trial.is_complete for trial in result.trials)
    # It goes on although the settings say nothing of XLA.
    again = search_students(toy.teacher(), toy.TRAIN, toy.VALIDATION, run_dir=tmp_path, **toy.SHORT)
    assert [trial.number for trial in again.trials] == [trial.number for trial in result.trials]
