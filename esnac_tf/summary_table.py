"""The result as a table: the teacher and the best students, with no number or path cut off.

Where the table is too wide, the paths move below it, and where the numbers are too, each model is
told in a line.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from esnac_tf.quantities import count, metric_value, milliseconds, number, operations, size

# Wider than any table here, narrow enough that Rich does not waste time on it.
UNLIMITED_WIDTH = 10_000

_TITLES = ("Parameters", "Times smaller", "FLOPs", "Objective")


@dataclasses.dataclass(frozen=True)
class ModelRow:
    """What is told of one model.

    Attributes:
        name: "teacher", or "student 1", the best, and so on.
        titles: Of the columns of numbers.
        values: One text for each.
        paths: Where the model is saved.
    """

    name: str
    titles: tuple[str, ...]
    values: tuple[str, ...]
    paths: tuple[str, ...]


def model_rows(summary: Mapping[str, Any], run_dir: str | os.PathLike[str] = "") -> list[ModelRow]:
    """The rows of the table.

    Args:
        summary: `teacher` and `students`, as `esnac_tf.record` describes them. What is missing
            or None is shown as "-".
        run_dir: The run folder, put before the paths of the exports.

    Returns:
        The teacher's row, and one for each student.

    Example:
        >>> [row] = model_rows({"teacher": {"num_params": 1000, "validation_accuracy": 0.9}})
        >>> row.name, row.values
        ('teacher', ('90.00 %', '-', '1,000', '-', '-', '-'))
    """
    rows = []
    for name, model in _models(summary):
        metric = model.get("metric", "accuracy")
        smaller = model.get("times_smaller")
        values = (
            metric_value(metric, model.get(f"validation_{metric}")),
            metric_value(metric, model.get(f"test_{metric}")),
            count(model.get("num_params")),
            "-" if smaller is None else f"{smaller:.2f}x",
            operations(model.get("flops")),
            number(model.get("objective")),
        )
        exports = sorted((model.get("exports") or {}).items())
        paths = tuple(str(pathlib.Path(run_dir) / path) for _, path in exports)
        metric = metric.replace("_", " ")
        titles = (f"Validation {metric}", f"Test {metric}", *_TITLES)
        rows.append(ModelRow(name, titles, values, paths))
    return rows


def footprint_line(summary: Mapping[str, Any]) -> str | None:
    """Size and latency of all models, in a line; None where neither was measured.

    Example:
        >>> footprint_line({"teacher": {"file_bytes": 312_000, "latency_secs": 0.002}})
        'Size of the .keras file, and time of one example on this CPU: teacher 312 kB, 2 ms.'
    """
    told = [
        f"{name} {size(model.get('file_bytes'))}, {milliseconds(model.get('latency_secs'))}"
        for name, model in _models(summary)
        if model.get("file_bytes") is not None or model.get("latency_secs") is not None
    ]
    if not told:
        return None
    return f"Size of the .keras file, and time of one example on this CPU: {'; '.join(told)}."


def parts_that_fit(
    rows: Sequence[ModelRow], console: Console, printable: Callable[[str], str]
) -> Iterator[Table | str]:
    """What to print so that all of the rows can be read on a console.

    Args:
        rows: The models.
        console: Where they will be printed.
        printable: Makes a text one that the console can show.

    Yields:
        A table, if one fits, then lines of text that tell what is not in it.

    Example:
        >>> rows = model_rows({"students": [{"exports": {"keras": "students/1.keras"}}]}, "run")
        >>> [type(part).__name__ for part in parts_that_fit(rows, Console(width=200), str)]
        ['Table']
        >>> _, _, line = parts_that_fit(rows, Console(width=20), str)
        >>> line
        'student 1 is saved in run/students/1.keras'
    """
    has_paths = any(row.paths for row in rows)
    for with_paths in (True, False) if has_paths else (False,):
        table = _table(rows, with_paths, printable, console.width)
        if _width_of(table, console) <= console.width:
            yield table
            break
    else:
        with_paths = False
        for row in rows:
            values = zip(row.titles, row.values, strict=True)
            yield ", ".join([row.name, *(f"{title}: {value}" for title, value in values)])
    if not with_paths:
        for row in rows:
            for path in row.paths:
                yield f"{row.name} is saved in {path}"


def _table(
    rows: Sequence[ModelRow], with_paths: bool, printable: Callable[[str], str], width: int
) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("Model", no_wrap=True)
    for title in rows[0].titles:
        # Headings of two lines let the numbers fit into 80 columns.
        heading = title if width >= UNLIMITED_WIDTH else title.replace(" ", "\n")
        table.add_column(heading, justify="right", no_wrap=True)
    if with_paths:
        table.add_column("Saved in", no_wrap=True)
    for row in rows:
        cells = [row.name, *row.values]
        if with_paths:
            cells.append("\n".join(row.paths) or "-")
        table.add_row(*(Text(printable(cell)) for cell in cells))
    return table


def _width_of(table: Table, console: Console) -> int:
    unlimited = console.options.update(width=UNLIMITED_WIDTH)
    return Measurement.get(console, unlimited, table).maximum


def _models(summary: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    models = [("teacher", summary.get("teacher") or {})]
    for position, student in enumerate(summary.get("students") or (), start=1):
        models.append((f"student {position}", student))
    return models
