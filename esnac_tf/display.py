"""What people see of a search: progress, finished trials and the table of results.

On a terminal there are progress bars with the time left. Elsewhere (a pipe, a log file, a CI
job) there are plain lines without control characters: every message, every finished trial, and
the progress where nothing else was printed for 30 seconds.
"""

from __future__ import annotations

import contextlib
import datetime
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from esnac_tf.profiling import profile_line
from esnac_tf.quantities import count, duration, metric_value, number
from esnac_tf.summary_table import UNLIMITED_WIDTH, footprint_line, model_rows, parts_that_fit
from esnac_tf.trial import Trial

PLAIN_INTERVAL_SECS = 30.0


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
                width=UNLIMITED_WIDTH,
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

    def warning(self, text: str) -> None:
        """Says that something is probably wrong; a quiet display warns as Python does.

        Python's warning names the line of the user's that led here, not one of this package.

        Args:
            text: The text, a sentence or more.

        Example:
            >>> Display().warning("The teacher is hardly better than chance.")
            Warning: The teacher is hardly better than chance.
        """
        if self._quiet:
            warnings.warn(text, stacklevel=_level_outside())
        else:
            self.message(f"Warning: {text}")

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
        phase = Phase(self, title, total)
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
            _TimeLeft(),
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

    def trial_finished(
        self, trial: Trial, best: Trial | None, num_epochs: int | None = None
    ) -> None:
        """Prints one line about a finished trial.

        Its seconds are not told here, as the trials of a step share them: see `step_finished`.

        Args:
            trial: The trial.
            best: The trial with the best objective so far; None if none is complete.
            num_epochs: Of a student that is trained to the end; of others theirs are told.

        Example:
            >>> from esnac_tf.architecture import ActionSet
            >>> trial = Trial(7, "complete", ActionSet(), 1234, 2e6, 0.5, 0.45, 3.2)
            >>> Display().trial_finished(trial, best=trial)
            Trial 7: accuracy 50.00 %, 1,234 parameters, objective 0.4500 (best so far)
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
                f"{trial.metric} {metric_value(trial.metric, trial.validation_metric)}, "
                f"{count(trial.num_params)} parameters, "
                f"objective {number(trial.objective)}{standing}"
            )
            if num_epochs is not None and num_epochs != trial.num_epochs:
                text += f", stopped after {trial.num_epochs} of {num_epochs} epochs"
        self.message(" ".join(f"Trial {trial.number}: {text}".split()))

    def step_finished(self, step: int, duration_secs: float) -> None:
        """Prints one line about a finished step: the seconds that its trials shared.

        Args:
            step: The step, from 0; people count from 1.
            duration_secs: Wall seconds in which its students were built and trained.

        Example:
            >>> Display().step_finished(0, 33.71)
            Step 1: students built and trained in 33.7 s
        """
        self.message(f"Step {step + 1}: students built and trained in {duration(duration_secs)}")

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
        for part in parts_that_fit(model_rows(summary, run_dir), self._console, self._printable):
            if isinstance(part, str):
                self.message(part)
            else:
                self._last_line_secs = self._clock()
                self._console.print(part)
        footprint = footprint_line(summary)
        if footprint is not None:
            self.message(footprint)
        if summary.get("profile"):
            self.message(profile_line(summary["profile"]))

    def _printable(self, text: str) -> str:
        """The text without control characters, in characters that the output can show."""
        shown = "".join(
            character if character.isprintable() or character == "\n" else "?"
            for character in text.expandtabs(4)
        )
        return shown.encode(self._encoding, "backslashreplace").decode(self._encoding)


def _level_outside() -> int:
    """The stack level, for a warning of the caller, of the first frame outside of the package."""
    package = os.path.dirname(__file__) + os.sep
    level = 1
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(package):
        frame, level = frame.f_back, level + 1
    return level


class Phase:
    """A piece of work that is going on; made by `Display.phase`."""

    def __init__(self, display: Display, title: str, total: int | None) -> None:
        self._display = display
        self._title = title
        self._total = total
        self._description = ""
        self._num_done = 0
        self._first: tuple[float, int] | None = None  # when, and how many were done then
        self._last_secs = 0.0
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

    def advance(self, amount: int = 1, is_new: bool = True) -> None:
        """Says that parts of the work are done.

        Args:
            amount: How many, at least 0.
            is_new: Whether they were done now; else they tell nothing of the speed.
        """
        self._num_done += amount
        self._last_secs = self._display._clock()
        if self._first is None or not is_new:
            self._first = (self._last_secs, self._num_done)
        if self._bars is not None and self._task is not None:
            self._bars.advance(self._task, amount)
        self._display._print_progress_now_and_then()

    def _show_in(self, bars: Progress) -> None:
        self._bars = bars
        self._task = bars.add_task(self._label(), total=self._total, phase=self)

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
        left = self._secs_left(now)
        if left is not None:
            text += f", about {duration(left)} left"
        return text

    def _secs_left(self, now: float) -> float | None:
        """How long the rest takes at the speed since the first part, with which much is compiled.

        None if that is not known yet, or nothing is left.
        """
        if self._first is None or self._total is None or self._num_done >= self._total:
            return None
        first_secs, first_done = self._first
        if self._num_done == first_done:
            return None
        secs_each = (self._last_secs - first_secs) / (self._num_done - first_done)
        return secs_each * (self._total - self._num_done) - min(now - self._last_secs, secs_each)


class _TimeLeft(ProgressColumn):
    """What `Phase` says of the time left, in a bar."""

    def render(self, task: Task) -> Text:
        phase: Phase = task.fields["phase"]
        left = phase._secs_left(phase._display._clock())
        shown = "-:--:--" if left is None else str(datetime.timedelta(seconds=math.ceil(left)))
        return Text(shown, style="progress.remaining")
