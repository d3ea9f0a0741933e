"""The table of the result: every number and path is somewhere, at any width."""

import pytest
from rich.console import Console
from rich.table import Table

from esnac_tf.summary_table import (
    UNLIMITED_WIDTH,
    footprint_line,
    model_rows,
    parts_that_fit,
)

LONG = "/home/somebody/a/long/way/down/to/the/runs/of/2026/cifar100-resnet34"
SUMMARY = {
    "teacher": {"num_params": 21_282_122, "flops": 1_160_000_000, "validation_accuracy": 0.7871},
    "students": [
        {
            "num_params": 2_845_123,
            "times_smaller": 7.4802,
            "objective": 0.94174,
            "file_bytes": 1_200_000,
            "latency_secs": 0.00045,
            "exports": {"litert": "students/1.tflite", "keras": "students/1.keras"},
        },
        {"num_params": 900, "exports": {}},
    ],
}
PATHS = (f"{LONG}/students/1.keras", f"{LONG}/students/1.tflite")


def parts(width, summary=SUMMARY):
    console = Console(width=width)
    return list(parts_that_fit(model_rows(summary, LONG), console, str))


def test_a_row_has_a_text_for_each_column_and_paths_in_the_run_folder():
    teacher, first, second = model_rows(SUMMARY, LONG)
    assert teacher.name == "teacher"
    assert teacher.values == ("78.71 %", "-", "21,282,122", "-", "1.16 G", "-")
    assert first.name == "student 1"
    assert first.values == ("-", "-", "2,845,123", "7.48x", "-", "0.9417")
    assert (teacher.paths, first.paths, second.paths) == ((), PATHS, ())


def test_what_was_measured_of_size_and_latency_is_told_in_a_line():
    line = footprint_line(SUMMARY)
    assert line.endswith("on this CPU: student 1 1.2 MB, 0.45 ms.")
    assert footprint_line({}) is None


@pytest.mark.parametrize("summary", [{}, {"teacher": None, "students": None}])
def test_a_summary_of_nothing_has_a_row_of_dashes(summary):
    [row] = model_rows(summary)
    assert (row.name, set(row.values), row.paths) == ("teacher", {"-"}, ())


def test_without_a_limit_all_is_in_the_table():
    [table] = parts(UNLIMITED_WIDTH)
    assert [column.header for column in table.columns][-1] == "Saved in"
    assert not any("\n" in column.header for column in table.columns)


def test_paths_move_below_a_table_that_is_too_wide():
    table, *lines = parts(100)
    assert isinstance(table, Table)
    assert table.columns[-1].header == "Objective"
    assert lines == [f"student 1 is saved in {path}" for path in PATHS]


def test_numbers_move_into_lines_where_no_table_fits():
    lines = parts(30)
    assert lines[0].startswith("teacher, Validation accuracy: 78.71 %, Test accuracy: -, ")
    assert "Parameters: 2,845,123, Times smaller: 7.48x" in lines[1]
    assert lines[3:] == [f"student 1 is saved in {path}" for path in PATHS]


@pytest.mark.parametrize("width", [30, 100, UNLIMITED_WIDTH])
def test_what_was_saved_nowhere_is_told_to_be_nowhere(width):
    told = parts(width, {"teacher": {"num_params": 5}, "students": [{"num_params": 3}]})
    assert not any("saved" in part for part in told if isinstance(part, str))
    if isinstance(told[0], Table):
        assert told[0].columns[-1].header == "Objective"


def test_cells_are_made_printable():
    rows = model_rows({"students": [{"exports": {"keras": "ä.keras"}}]}, "run")
    [table] = parts_that_fit(rows, Console(width=UNLIMITED_WIDTH), lambda text: text.upper())
    *_, last = table.columns[-1].cells
    assert str(last) == "RUN/Ä.KERAS"
