"""Where the time goes: no second is counted twice, none is lost."""

from __future__ import annotations

import pytest

from esnac_tf import profiling
from esnac_tf.profiling import Profile, measured, profile_line, profiled


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_the_inner_part_counts_and_all_parts_sum_up(clock):
    profile = Profile(clock)
    clock.now = 1.0
    with profile.measured("training"):
        clock.now = 3.0
        with profile.measured("evaluation"):
            clock.now = 7.0
        clock.now = 8.0
    clock.now = 10.0
    assert profile.seconds() == {"training": 3.0, "evaluation": 4.0, "other": 3.0}


def test_a_whole_part_takes_what_is_inside_it(clock):
    profile = Profile(clock)
    with profile.measured("teacher", whole=True):
        with profile.measured("training"):
            clock.now = 2.0
        with profile.measured("tracing"):
            clock.now = 3.0
    with profile.measured("training"):
        clock.now = 4.0
    assert profile.seconds() == {"teacher": 3.0, "training": 1.0, "other": 0.0}


def test_an_error_ends_a_part(clock):
    profile = Profile(clock)

    @profile.measured("writing")
    def write():
        clock.now = 1.0
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write()
    clock.now = 3.0
    assert profile.seconds() == {"writing": 1.0, "other": 2.0}


def test_it_tells_while_parts_are_at_work(clock):
    profile = Profile(clock)
    with profile.measured("data"):
        clock.now = 1.0
        assert profile.seconds() == {"data": 1.0, "other": 0.0}
        clock.now = 3.0
    assert profile.seconds()["data"] == 3.0


def test_there_is_one_profile_at_a_time():
    with measured("data"):  # which nobody counts
        assert profiling.seconds_so_far() == {}
    with profiled() as outer:
        with profiled() as inner:
            assert inner is outer
        with measured("surrogate"):
            pass
        assert "surrogate" in profiling.seconds_so_far()
    assert profiling.seconds_so_far() == {}


def test_a_part_nobody_knows_is_a_mistake():
    with profiled(), pytest.raises(ValueError, match="part must be one of import, data"):
        measured("lunch").__enter__()


def test_the_line_tells_shares_and_leaves_out_the_small():
    seconds = {"training": 60.0, "tracing": 39.5, "writing": 0.25, "other": 0.25}
    assert profile_line(seconds) == "Time 1 min 40 s: training 60 %, tracing 40 %."
    assert profile_line({"other": 2.0}) == "Time 2.0 s: other 100 %."
    assert profile_line({"other": 0.0}) == "Time 0.0 s."
