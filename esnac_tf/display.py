"""What people see of a search: progress, finished trials and the table of results.

On a terminal there are progress bars with the time left. Elsewhere (a pipe, a log file, a CI
job) there are plain lines without control characters: every message, every finished trial, and
the progress where nothing else was printed for 30 seconds. No number and no path is cut off:
where the table is too wide for the terminal, the paths move below it, and where the numbers are
too, they are told in lines.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TextIO

from rich.console import Console
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from esnac_tf.trial import Trial

PLAIN_INTERVAL_SECS = 30.0
# Wider than any table here, narrow enough that Rich does not waste time on it.
PLAIN_WIDTH = 10_000

_TITLES = (
    "Validation accuracy",
    "Test accuracy",
    "Parameters",
    "Times smaller",
    "FLOPs",
    "Objective",
)


class Display:
    """Writes to a terminal or to a plain file.

    Args:
        quiet: Whether to print nothing at all.
        file: Where to print; the standard output of the moment by default.
        clock: Seconds that pass, for tests.

    Example:
        >>> display = Display()
        >>> display.message("The teacher has 1,000 parameters.")
        The teacher has 1,000 parameters.
        >>> Display(quiet=True).message("Nobody reads this.")
    """

    def __init__(
        self,
        quiet: bool = False,
        file: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._quiet = quiet
        self._clock = clock
        self._last_line_secs = clock()
        file = sys.stdout if file is None else file
        self._encoding = getattr(file, "encoding", None) or "utf-8"
        # Rich would also take environment variables such as FORCE_COLOR for a terminal.
        self._live = (
            not quiet and file.isatty() and os.environ.get("TERM") not in ("dumb", "unknown", "")
        )
        if self._live:
            self._console = Console(file=file, highlight=False, markup=False, emoji=False)
        else:
            self._console = Console(
                file=file,
                force_terminal=False,
                force_jupyter=False,
                color_system=None,
                width=PLAIN_WIDTH,
                highlight=False,
                markup=False,
                emoji=False,
            )
        self._progress: Progress | None = None
        self._phases: list[Phase] = []

    def message(self, text: str) -> None:
        """Prints a text on a line of its own, or on several.

        Args:
            text: The text; control characters in it are replaced.
        """
        if self._quiet:
            return
        self._last_line_secs = self._clock()
        self._console.print(self._printable(text), soft_wrap=True)

    @contextlib.contextmanager
    def phase(self, title: str, total: int | None = None) -> Iterator[Phase]:
        """Shows the progress of a piece of work; phases may be nested.

        Args:
            title: What is done, such as "Search".
            total: Number of parts, at least 0; None if it is not known.

        Yields:
            The phase, to be told when a part is done.

        Example:
            >>> with Display(quiet=True).phase("Search", total=2) as phase:
            ...     for step in range(2):
            ...         phase.update(f"step {step}")
            ...         phase.advance()
        """
        phase = Phase(self, title, total, self._clock())
        self._phases.append(phase)
        try:
            if not self._live:
                yield phase
                return
            with self._bars() as bars:
                phase._show_in(bars)
                try:
                    yield phase
                finally:
                    phase._hide()
        finally:
            self._phases.remove(phase)

    @contextlib.contextmanager
    def _bars(self) -> Iterator[Progress]:
        """The bars of all phases; they come with the outermost phase and go with it."""
        if self._progress is not None:
            yield self._progress
            return
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            # Bars stay on the screen only while their work is going on.
            transient=True,
        )
        try:
            with self._progress as bars:
                yield bars
        finally:
            self._progress = None

    def _print_progress_now_and_then(self) -> None:
        """A sign of life where there are no bars."""
        now = self._clock()
        if not self._live and now - self._last_line_secs >= PLAIN_INTERVAL_SECS:
            self.message("; ".join(phase._standing(now) for phase in self._phases))

    def trial_finished(self, trial: Trial, best: Trial | None) -> None:
        """Prints one line about a finished trial.

        Args:
            trial: The trial.
            best: The trial with the best objective so far; None if none is complete.

        Example:
            >>> from esnac_tf.architecture import ActionSet
            >>> trial = Trial(7, "complete", ActionSet(), 1234, 2e6, 0.5, 0.45, 3.2)
            >>> Display().trial_finished(trial, best=trial)
            Trial 7: accuracy 50.00 %, 1,234 parameters, objective 0.4500 (best so far), 3.2 s
        """
        if not trial.is_complete:
            text = f"failed, {trial.failure or 'no reason was given'}"
        else:
            if best is None:
                standing = ""
            elif best.number == trial.number:
                standing = " (best so far)"
            else:
                standing = f" (best {number(best.objective)}, trial {best.number})"
            text = (
                f"accuracy {percent(trial.validation_accuracy)}, "
                f"{count(trial.num_params)} parameters, "
                f"objective {number(trial.objective)}{standing}"
            )
        one_line = " ".join(
            f"Trial {trial.number}: {text}, {duration(trial.duration_secs)}".split()
        )
        self.message(one_line)

    def summary_table(
        self, summary: Mapping[str, Any], run_dir: str | os.PathLike[str] = ""
    ) -> None:
        """Prints the teacher and the best students in one table.

        Args:
            summary: `teacher` and `students`, as `esnac_tf.record` describes them. What is
                missing or None is shown as "-".
            run_dir: The run folder, put before the paths of the exports.

        Example:
            >>> summary = {"teacher": {"num_params": 1000, "validation_accuracy": 0.9}}
            >>> Display().summary_table(summary)  # doctest: +NORMALIZE_WHITESPACE
            Model    Validation accuracy  Test accuracy  Parameters  Times smaller  FLOPs  Objective
            teacher              90.00 %              -       1,000              -      -          -
        """
        if self._quiet:
            return
        rows = _rows(summary, pathlib.Path(run_dir))
        saved = any(paths for _, paths in rows)
        for with_paths in (True, False) if saved else (False,):
            table = self._table(rows, with_paths)
            if self._width_of(table) <= self._console.width:
                self._last_line_secs = self._clock()
                self._console.print(table)
                break
        else:
            with_paths = False
            for name, *cells in (cells for cells, _ in rows):
                values = (f"{title}: {cell}" for title, cell in zip(_TITLES, cells, strict=True))
                self.message(f"{name}, {', '.join(values)}")
        if saved and not with_paths:
            for cells, paths in rows:
                for path in paths:
                    self.message(f"{cells[0]} is saved in {path}")

    def _table(self, rows: list[tuple[list[str], list[str]]], with_paths: bool) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("Model", no_wrap=True)
        for title in _TITLES:
            # Headings of two lines let the numbers fit into 80 columns.
            heading = title.replace(" ", "\n") if self._live else title
            table.add_column(heading, justify="right", no_wrap=True)
        if with_paths:
            table.add_column("Saved in", no_wrap=True)
        for cells, paths in rows:
            texts = [self._printable(cell) for cell in cells]
            if with_paths:
                texts.append(self._printable("\n".join(paths) or "-"))
            table.add_row(*(Text(text) for text in texts))
        return table

    def _width_of(self, table: Table) -> int:
        unlimited = self._console.options.update(width=PLAIN_WIDTH)
        return Measurement.get(self._console, unlimited, table).maximum

    def _printable(self, text: str) -> str:
        """The text without control characters, in characters that the output can show."""
        shown = "".join(
            character if character.isprintable() or character == "\n" else "?"
            for character in text.expandtabs(4)
        )
        return shown.encode(self._encoding, "backslashreplace").decode(self._encoding)


class Phase:
    """A piece of work that is going on; made by `Display.phase`."""

    def __init__(self, display: Display, title: str, total: int | None, start_secs: float) -> None:
        self._display = display
        self._title = title
        self._total = total
        self._start_secs = start_secs
        self._description = ""
        self._num_done = 0
        self._bars: Progress | None = None
        self._task: TaskID | None = None

    def update(self, description: str) -> None:
        """Says what is being done, such as "epoch 3, loss 0.21".

        Args:
            description: A few words, shown after the title.
        """
        self._description = description
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, description=self._label())

    def advance(self, amount: int = 1) -> None:
        """Says that parts of the work are done.

        Args:
            amount: How many, at least 0.
        """
        self._num_done += amount
        if self._bars is not None and self._task is not None:
            self._bars.advance(self._task, amount)
        self._display._print_progress_now_and_then()

    def _show_in(self, bars: Progress) -> None:
        self._bars = bars
        self._task = bars.add_task(self._label(), total=self._total)

    def _hide(self) -> None:
        if self._bars is not None and self._task is not None:
            self._bars.remove_task(self._task)

    def _label(self) -> str:
        return self._display._printable(f"{self._title} {self._description}".strip())

    def _standing(self, now: float) -> str:
        """How far the work is, in words."""
        text = f"{self._title} {self._num_done}"
        if self._total is not None:
            text += f" of {self._total}"
        if self._description:
            text += f", {self._description}"
        if self._total and 0 < self._num_done < self._total:
            left = (now - self._start_secs) / self._num_done * (self._total - self._num_done)
            text += f", about {duration(left)} left"
        return text


def percent(share: float | None) -> str:
    """A share from 0 to 1 in percent.

    Example:
        >>> percent(0.91234)
        '91.23 %'
    """
    return "-" if share is None else f"{100 * share:.2f} %"


def count(number_of_things: int | None) -> str:
    """A count with thousands separators.

    Example:
        >>> count(1260000)
        '1,260,000'
    """
    return "-" if number_of_things is None else f"{number_of_things:,}"


def number(value: float | None) -> str:
    """A number with four decimals.

    Example:
        >>> number(0.94923)
        '0.9492'
    """
    return "-" if value is None else f"{value:.4f}"


def operations(flops: float | None) -> str:
    """A number of operations in thousands (k), millions (M), billions (G) or trillions (T).

    Example:
        >>> operations(555_422_720), operations(999_999), operations(12)
        ('555 M', '1.00 M', '12')
    """
    if flops is None:
        return "-"
    if flops < 1000:
        return f"{flops:.0f}"
    for unit in ("k", "M", "G", "T"):
        flops /= 1000
        # 999.6 would be shown as 1000: it is one of the next unit.
        if flops < 999.5 or unit == "T":
            break
    decimals = 2 if flops < 9.995 else 1 if flops < 99.95 else 0
    return f"{flops:.{decimals}f} {unit}"


def duration(secs: float) -> str:
    """A time in seconds, minutes and seconds, or hours and minutes.

    Example:
        >>> duration(3.21), duration(90), duration(4000)
        ('3.2 s', '1 min 30 s', '1 h 07 min')
    """
    if secs < 59.95:
        return f"{secs:.1f} s"
    minutes, seconds = divmod(round(secs), 60)
    if minutes < 60:
        return f"{minutes} min {seconds:02d} s"
    hours, minutes = divmod(round(secs / 60), 60)
    return f"{hours} h {minutes:02d} min"


def _rows(summary: Mapping[str, Any], run_dir: pathlib.Path) -> list[tuple[list[str], list[str]]]:
    """For the teacher and each student: the cells of its row, and where it is saved."""
    models = [("teacher", summary.get("teacher") or {})]
    for position, student in enumerate(summary.get("students") or (), start=1):
        models.append((f"student {position}", student))
    rows = []
    for name, model in models:
        smaller = model.get("times_smaller")
        cells = [
            name,
            percent(model.get("validation_accuracy")),
            percent(model.get("test_accuracy")),
            count(model.get("num_params")),
            "-" if smaller is None else f"{smaller:.2f}x",
            operations(model.get("flops")),
            number(model.get("objective")),
        ]
        exports = model.get("exports") or {}
        rows.append((cells, [str(run_dir / path) for _, path in sorted(exports.items())]))
    return rows
