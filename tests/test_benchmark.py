"""The benchmark tool: what it computes and prints, not how fast anything is."""

from __future__ import annotations

import importlib
import json
import os

import benchmark
import pytest
from benchmarks.cifar10 import cifar10_flags
from benchmarks.machine import lstm_operations
from benchmarks.memory import resident_mib
from benchmarks.timing import Finding, alternate, ratio
from benchmarks.training_speed import profile_findings


def test_every_benchmark_is_there():
    for path in benchmark.BENCHMARKS.values():
        module, function = path.split(".")
        assert callable(getattr(importlib.import_module(f"benchmarks.{module}"), function))


def test_functions_are_timed_in_turn_after_a_warm_up():
    calls = []
    secs = alternate({name: lambda name=name: calls.append(name) for name in "ab"}, rounds=2)
    assert calls == ["a", "b"] * 3
    assert [len(values) for values in secs.values()] == [2, 2]


def test_a_ratio_is_that_of_medians_with_the_rounds_quartiles():
    found = ratio("a / b", [2.0, 4.0, 30.0], [1.0, 2.0, 3.0], limit=1.5)
    assert (found.value, found.low, found.high) == (2.0, 2.0, 6.0)
    assert found.is_met is False
    assert found.line() == "a / b: 2 x (2 to 6), bar <= 1.5: MISSED; 4 s to 2 s"


@pytest.mark.parametrize(
    ("limit", "at_least", "expected"), [(3.0, False, True), (3.0, True, False), (None, True, None)]
)
def test_bars_are_greatest_or_least_values(limit, at_least, expected):
    assert Finding("a", 2.0, limit=limit, at_least=at_least).is_met is expected


def test_operations_of_an_lstm_by_hand():
    # One sequence of one step: two directions of (3 + 2) x 8 multiply-adds, then of (4 + 2) x 8.
    assert lstm_operations(1, 1, 3, 1, 2) == 2 * 2 * 5 * 8
    assert lstm_operations(1, 1, 3, 2, 2) == 2 * 2 * (5 + 6) * 8
    assert lstm_operations(7, 5, 3, 2, 2) == 35 * lstm_operations(1, 1, 3, 2, 2)


def test_parts_of_a_profile_in_per_cent_with_a_bar_for_tracing():
    tracing, other = profile_findings("run", {"tracing": 2.0, "other": 6.0}, 5.0, "a few words")
    assert tracing.line() == "run: tracing: 25 %, bar <= 5: MISSED; 2 s of 8 s, a few words"
    assert other.line() == "run: other: 75 %; 6 s of 8 s"


def test_memory_that_a_process_holds():
    assert resident_mib("VmPeak:\t 9 kB\nVmRSS:\t    2048 kB\nRssAnon:\t 7 kB\n") == 2


def test_cifar10_is_where_the_environment_says(monkeypatch):
    monkeypatch.setenv("ESNAC_TF_CIFAR10_DIR", "cifar")
    assert cifar10_flags() == ["--dataset=cifar10", f"--data_dir={os.path.abspath('cifar')}"]
    monkeypatch.delenv("ESNAC_TF_CIFAR10_DIR")
    assert cifar10_flags() == []


def test_findings_are_printed_and_written(tmp_path, monkeypatch, capsys):
    findings = [{"name": "a", "is_met": True}, {"name": "b", "is_met": False}]
    monkeypatch.setattr(benchmark, "run", lambda name, size: findings)
    path = tmp_path / "figures.json"
    assert benchmark.main(["--only=^surrogate_tracing$", f"--json={path}"]) == 1
    assert "== 1 bars met, 1 missed" in capsys.readouterr().out
    written = json.loads(path.read_text())
    assert written["benchmarks"]["surrogate_tracing"]["findings"] == findings
    assert written["machine"]["num_cores"] >= 1


def test_a_benchmark_that_does_not_exist(capsys):
    assert benchmark.main(["--only=nonsense"]) == 2
    assert "surrogate_tracing" in capsys.readouterr().out


def test_a_benchmark_that_fails_is_a_bar_missed(monkeypatch, capsys):
    monkeypatch.setitem(benchmark.BENCHMARKS, "broken", "timing.no_such_function")
    assert benchmark.run("no_such_name", "small") == [{"name": "runs to its end", "is_met": False}]
