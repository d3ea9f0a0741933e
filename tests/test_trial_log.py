"""trials.jsonl: no finished trial is lost, whatever is cut off, full or broken."""

import contextlib
import dataclasses
import json
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esnac_tf.architecture import ActionSet
from esnac_tf.errors import UserError
from esnac_tf.trial import Trial
from esnac_tf.trial_log import TrialLog, read_trials


def make_trial(number, **changes):
    actions = ActionSet.of(removed=["conv_é\n2"], widths={"64": 20}, skips=[("a", "b")])
    trial = Trial(number, "complete", actions, 1000, 20_000, 0.5, 0.4, 12.5, 1, 3)
    return dataclasses.replace(trial, **changes)


@contextlib.contextmanager
def opened(run_dir):
    log = TrialLog(run_dir / "trials.jsonl")
    try:
        yield log
    finally:
        log.close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "trials.jsonl"


@pytest.fixture
def log(tmp_path):
    with opened(tmp_path) as log:
        yield log


def test_a_new_folder_has_none_and_no_file(log, path):
    assert read_trials(path.parent) == []
    log.close()
    assert not path.exists()


def test_trials_come_back_in_order_also_in_a_later_run(tmp_path):
    failed = make_trial(
        1, state="failed", objective=None, validation_metric=None, failure="no channels"
    )
    with opened(tmp_path) as log:
        log.append(make_trial(2))
        log.append(failed)
        assert read_trials(tmp_path) == [make_trial(2), failed]
    with opened(tmp_path) as log:
        log.append(make_trial(3))
        assert read_trials(tmp_path) == [make_trial(2), failed, make_trial(3)]


def test_closing_twice_is_fine(log):
    log.append(make_trial(0))
    log.close()
    log.close()


def test_a_line_is_one_json_object_with_the_format_and_the_fields_of_a_trial(log, path):
    log.append(make_trial(0))
    (line,) = path.read_bytes().splitlines()
    fields = {field.name for field in dataclasses.fields(Trial)}
    wanted = (fields - {"validation_metric"}) | {"validation_accuracy", "format"}
    assert json.loads(line).keys() == wanted
    assert json.loads(line)["format"] == 1


def test_what_is_not_finite_is_written_as_null(log, tmp_path):
    log.append(make_trial(0, objective=float("nan"), validation_metric=np.float32("inf")))
    assert read_trials(tmp_path) == [make_trial(0, objective=None, validation_metric=None)]


def test_numbers_of_numpy_are_written(log, tmp_path):
    log.append(make_trial(np.int64(0), objective=np.float64(0.25), num_params=np.int32(7)))
    assert read_trials(tmp_path) == [make_trial(0, objective=0.25, num_params=7)]


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, 10_000), extra=st.sampled_from([b"", b"\0\0", b"\0\n", b"{\xff\n"]))
def test_a_torn_end_costs_only_the_torn_trial(tmp_path_factory, cut, extra):
    run_dir = tmp_path_factory.mktemp("run")
    path = run_dir / "trials.jsonl"
    with opened(run_dir) as log:
        for number in range(3):
            log.append(make_trial(number))
    content = path.read_bytes()
    cut = min(cut, len(content))
    if extra.endswith(b"\n"):
        cut = content.rfind(b"\n", 0, cut) + 1
    path.write_bytes(content[:cut] + extra)
    num_whole = content[:cut].count(b"\n")
    expected = [make_trial(number) for number in range(num_whole)]
    with opened(run_dir) as log:
        assert read_trials(run_dir) == expected
        log.append(make_trial(9))
        assert read_trials(run_dir) == [*expected, make_trial(9)]


def test_a_torn_line_is_warned_of_and_reading_changes_nothing(log, path, caplog):
    log.append(make_trial(0))
    with path.open("ab") as file:
        file.write(b'{"format": 1, "num')
    before = path.read_bytes()
    assert read_trials(path.parent) == [make_trial(0)]
    assert "trials.jsonl was cut off" in caplog.text
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("garbage", "Expecting value"),
        ("", "Expecting value"),
        ("3", "a JSON object was expected"),
        ("[]", "a JSON object was expected"),
        ('{"number": 1}', "'format' is missing"),
        ('{"format": 1, "number": 1}', "'actions' is missing"),
        ('{"format": 1, "actions": {"removed": [], "widths": {}, "skips": []}}', "missing"),
        ('{"format": 2}', "format 1 was expected, 2 received"),
        ('{"format": NaN}', "NaN is no JSON number"),
    ],
)
def test_a_bad_line_in_the_middle_is_told_with_its_place(log, path, line, reason):
    log.append(make_trial(0))
    with path.open("a") as file:
        file.write(line + "\n")
    log.append(make_trial(2))
    with pytest.raises(UserError, match=reason) as caught:
        read_trials(path.parent)
    assert str(caught.value).startswith(f"{path}, line 2: ")
    assert len(str(caught.value).splitlines()) == 2


def test_a_bad_line_before_a_torn_one_is_not_dropped_silently(path):
    path.write_text('garbage\n{"format"')
    with pytest.raises(UserError, match="line 1"):
        read_trials(path.parent)


def test_a_full_disk_keeps_the_earlier_trials_and_leaves_no_half_line(log, tmp_path, monkeypatch):
    log.append(make_trial(0))
    write = os.write

    def fill(descriptor, content):
        if len(content) < 50:
            raise OSError(28, "No space left on device")
        return write(descriptor, content[:50])

    monkeypatch.setattr(os, "write", fill)
    with pytest.raises(UserError, match=r"trials\.jsonl.*No space left on device\.\nMake room"):
        log.append(make_trial(1))
    monkeypatch.undo()
    assert read_trials(tmp_path) == [make_trial(0)]
    log.append(make_trial(2))
    assert read_trials(tmp_path) == [make_trial(0), make_trial(2)]


def test_a_folder_in_the_place_of_the_file_is_told(log, path):
    path.mkdir()
    for use in (lambda: read_trials(path.parent), lambda: log.append(make_trial(0))):
        with pytest.raises(UserError, match="Is a directory"):
            use()
