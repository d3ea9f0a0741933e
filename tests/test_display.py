"""What people see, on a terminal, in a pipe and in a narrow window."""

import io
import os
import pathlib
import subprocess
import sys
import time

import pytest

import esnac_tf
from esnac_tf.architecture import ActionSet
from esnac_tf.display import Display
from esnac_tf.trial import Trial

ROOT = pathlib.Path(esnac_tf.__file__).parents[1]
LONG = "/home/somebody/a/long/way/down/to/the/runs/of/2026/cifar100-resnet34"
SUMMARY = {
    "teacher": {
        "num_params": 21_282_122,
        "flops": 1_160_000_000,
        "validation_accuracy": 0.7871,
        "test_accuracy": 0.78684,
    },
    "students": [
        {
            "num_params": 2_845_123,
            "flops": 219_700_000,
            "validation_accuracy": 0.75466,
            "test_accuracy": 0.7505,
            "objective": 0.94174,
            "times_smaller": 7.4802,
            "exports": {"keras": "students/1.keras", "litert": "students/1.tflite"},
        },
        {"num_params": 900, "flops": 12, "validation_accuracy": 0.5, "objective": 0.1},
    ],
}
NUMBERS = ["78.71 %", "78.68 %", "21,282,122", "1.16 G", "75.47 %", "75.05 %", "2,845,123"]
NUMBERS += ["220 M", "0.9417", "7.48x", "50.00 %", "0.1000", "900", "12"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    def __init__(self):
        self.secs = 0.0

    def __call__(self):
        return self.secs


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in ("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def make_trial(number, **values):
    fields = {
        "state": "complete",
        "actions": ActionSet(),
        "num_params": 1_234_567,
        "flops": 2_000_000,
        "validation_metric": 0.91237,
        "objective": 0.81239,
        "duration_secs": 75.0,
    }
    return Trial(number, **{**fields, **values})


def printed(use, file=None, **keywords):
    file = io.StringIO() if file is None else file
    use(Display(file=file, **keywords))
    return file.getvalue()


class TestTrialFinished:
    def test_one_line_with_the_best_so_far(self):
        best = make_trial(2, objective=0.9)
        text = printed(lambda display: display.trial_finished(make_trial(3), best))
        assert text == (
            "Trial 3: accuracy 91.24 %, 1,234,567 parameters, objective 0.8124 "
            "(best 0.9000, trial 2)\n"
        )

    def test_a_student_that_was_stopped_early_says_so(self):
        stopped, ended = make_trial(3, num_epochs=1), make_trial(3, num_epochs=5)
        line = "Trial 3: accuracy 91.24 %, 1,234,567 parameters, objective 0.8124 (best so far)"
        for trial, more in ((stopped, ", stopped after 1 of 5 epochs"), (ended, "")):
            text = printed(lambda display, t=trial: display.trial_finished(t, t, 5))
            assert text == f"{line}{more}\n"

    def test_a_failed_trial_says_why_in_one_line_without_control_characters(self):
        trial = make_trial(
            3,
            state="failed",
            objective=None,
            validation_metric=None,
            num_params=None,
            failure="[red]no\n  channels[/red] \x1b[31m:bomb:\r" + "x" * 300,
        )
        text = printed(lambda display: display.trial_finished(trial, None))
        assert text == "Trial 3: failed, [red]no channels[/red] ?[31m:bomb: " + "x" * 300 + "\n"


def test_a_warning_is_a_message_that_says_so():
    text = printed(lambda display: display.warning("That is\x1b hardly better than chance."))
    assert text == "Warning: That is? hardly better than chance.\n"


def test_a_warning_of_python_names_the_line_outside_of_the_package():
    # Three functions of the package, one inside the other.
    source = "def inner(shown): shown.warning('bad')\ndef outer(shown): inner(shown)\n"
    names = {}
    exec(
        compile(source, os.path.join(os.path.dirname(esnac_tf.__file__), "deep", "x.py"), "exec"),
        names,
    )
    with pytest.warns(UserWarning, match="bad") as told:
        names["outer"](Display(quiet=True))
    assert [warning.filename for warning in told] == [__file__]


class TestStepFinished:
    def test_the_seconds_that_trials_share_are_told_once(self):
        def use(display):
            for number in range(2):
                display.trial_finished(make_trial(number, step=1), make_trial(0))
            display.step_finished(1, duration_secs=75.0)

        lines = printed(use).splitlines()
        assert lines[2:] == ["Step 2: students built and trained in 1 min 15 s"]
        assert not any("1 min 15 s" in line for line in lines[:2])


class TestSummaryTable:
    def test_a_pipe_gets_one_line_a_row_with_every_number_and_path_whole(self):
        text = printed(lambda display: display.summary_table(SUMMARY, LONG))
        for value in [*NUMBERS, f"{LONG}/students/1.keras", f"{LONG}/students/1.tflite"]:
            assert value in text
        assert [line.split("  ")[0] for line in text.splitlines()] == [
            "Model",
            "teacher",
            "student 1",
            "",
            "student 2",
        ]
        assert "\x1b" not in text

    @pytest.mark.parametrize("width", [20, 40, 79, 80, 120, 160, 250])
    def test_a_terminal_of_any_width_cuts_nothing_off(self, monkeypatch, width):
        monkeypatch.setenv("COLUMNS", str(width))
        text = printed(lambda display: display.summary_table(SUMMARY, LONG), Terminal())
        for value in [*NUMBERS, f"{LONG}/students/1.keras", f"{LONG}/students/1.tflite"]:
            assert value in text
        assert "…" not in text

    def test_what_is_missing_is_shown_as_a_dash(self):
        text = printed(lambda display: display.summary_table({"teacher": {"num_params": 5}}))
        assert text.splitlines()[1].split() == ["teacher", "-", "-", "5", "-", "-", "-"]

    def test_eighty_columns_show_the_numbers_as_a_table(self, monkeypatch):
        monkeypatch.setenv("COLUMNS", "80")
        text = printed(lambda display: display.summary_table(SUMMARY), Terminal())
        assert "Validation accuracy:" not in text
        assert "student 1 is saved in students/1.keras\n" in text

    def test_an_output_that_knows_no_unicode_is_served(self):
        raw = io.BytesIO()
        file = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
        shown = Display(file=file)
        shown.message("grüße")
        shown.summary_table(SUMMARY, "/tmp/ä")
        assert raw.getvalue().startswith(b"gr\\xfc\\xdfe\n")
        assert b"/tmp/\\xe4/students/1.keras" in raw.getvalue()


class TestPhase:
    def run_phases(self, shown, clock=None):
        with shown.phase("Search", total=2) as search:
            for step in range(2):
                with shown.phase("Distil", total=3) as distil:
                    for epoch in range(3):
                        if clock is not None:
                            clock.secs += 20
                        distil.update(f"epoch {epoch + 1} [/x]")
                        distil.advance()
                shown.message(f"step {step} is done")
                search.advance()

    def test_a_pipe_gets_messages_and_a_sign_of_life_now_and_then(self):
        clock = Clock()
        text = printed(lambda shown: self.run_phases(shown, clock), clock=clock)
        assert text.splitlines() == [
            "Search 0 of 2; Distil 2 of 3, epoch 2 [/x], about 20.0 s left",
            "step 0 is done",
            "Search 1 of 2; Distil 2 of 3, epoch 2 [/x], about 20.0 s left",
            "step 1 is done",
        ]

    def test_a_pipe_that_is_served_quickly_gets_messages_alone(self):
        assert printed(self.run_phases, clock=Clock()) == "step 0 is done\nstep 1 is done\n"

    def test_a_terminal_gets_bars_and_its_cursor_back(self):
        file = Terminal()

        def use(shown):
            with shown.phase("Search", total=2), shown.phase("Distil", total=3) as distil:
                distil.update("epoch 3 [/x]")
                distil.advance(2)
                shown.message("step 0 is done")
                # The bars are drawn anew ten times a second.
                deadline = time.monotonic() + 10
                while "2/3" not in file.getvalue() and time.monotonic() < deadline:
                    time.sleep(0.02)

        text = printed(use, file)
        for shown in ("Search", "0/2", "Distil epoch 3 [/x]", "2/3"):
            assert shown in text
        assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1
        assert "step 0 is done\n" in text

    def test_the_time_left_leaves_out_the_first_part_which_is_compiled(self):
        clock = Clock()

        def use(shown):
            with shown.phase("Distil", total=100) as distil:
                clock.secs += 40
                distil.advance()
                for _ in range(31):
                    clock.secs += 1
                    distil.advance()

        assert printed(use, clock=clock).splitlines() == [
            "Distil 1 of 100",
            "Distil 31 of 100, about 1 min 09 s left",
        ]

    def test_a_long_part_counts_down(self):
        clock = Clock()

        def use(shown):
            with shown.phase("Search", total=4) as search:
                for _ in range(2):
                    clock.secs += 600
                    search.advance()
                with shown.phase("Distil") as distil:
                    for secs in (0, 60, 540, 600):
                        clock.secs += secs
                        distil.advance()

        lines = printed(use, clock=clock).splitlines()
        assert [line.split(";")[0] for line in lines[1:]] == [
            "Search 2 of 4, about 20 min 00 s left",
            "Search 2 of 4, about 19 min 00 s left",
            "Search 2 of 4, about 10 min 00 s left",
            "Search 2 of 4, about 10 min 00 s left",
        ]

    def test_parts_of_an_earlier_process_tell_nothing_of_the_speed(self):
        clock = Clock()

        def use(shown):
            with shown.phase("Search", total=20) as search:
                for _ in range(10):
                    clock.secs += 0.01
                    search.advance(is_new=False)
                with shown.phase("Distil") as distil:
                    clock.secs += 100
                    distil.advance()
                clock.secs += 500
                search.advance()

        lines = printed(use, clock=clock).splitlines()
        assert [line.split(";")[0] for line in lines] == [
            "Search 10 of 20",
            "Search 11 of 20, about 1 h 30 min left",
        ]

    def test_so_do_the_bars_of_a_terminal(self):
        file, clock = Terminal(), Clock()

        def shown_soon(text):
            deadline = time.monotonic() + 10
            while text not in file.getvalue() and time.monotonic() < deadline:
                time.sleep(0.02)
            return text in file.getvalue()

        def use(shown):
            with shown.phase("Distil", total=100) as distil:
                clock.secs += 40
                distil.advance()
                assert shown_soon("-:--:--")
                for _ in range(9):
                    clock.secs += 2
                    distil.advance()
                assert shown_soon("0:03:00")

        printed(use, file, clock=clock)

    def test_a_terminal_gets_its_cursor_back_after_an_interruption(self):
        file = Terminal()
        shown = Display(file=file)

        def interrupt():
            with shown.phase("Search", total=2), shown.phase("Distil", total=None):
                raise KeyboardInterrupt

        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                interrupt()
        assert file.getvalue().count("\x1b[?25h") == 2

    @pytest.mark.parametrize("term", ["dumb", ""])
    def test_a_terminal_that_cannot_move_its_cursor_gets_plain_lines(self, monkeypatch, term):
        monkeypatch.setenv("TERM", term)
        assert printed(self.run_phases, Terminal()) == "step 0 is done\nstep 1 is done\n"

    def test_an_unknown_total_is_no_problem(self):
        clock = Clock()

        def use(shown):
            with shown.phase("Wait") as phase:
                clock.secs = 31
                phase.advance(4)

        assert printed(use, clock=clock) == "Wait 4\n"
        assert printed(use, Terminal())


def test_quiet_prints_nothing():
    def use(shown):
        shown.message("hidden")
        with pytest.warns(UserWarning, match="told in another way"):
            shown.warning("told in another way")
        shown.trial_finished(make_trial(0), None)
        shown.step_finished(0, 1.0)
        shown.summary_table(SUMMARY)
        TestPhase().run_phases(shown)

    assert printed(use, quiet=True) == ""
    assert printed(use, Terminal(), quiet=True) == ""


def test_force_color_puts_no_control_characters_into_a_pipe(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")

    def use(shown):
        shown.summary_table(SUMMARY)
        TestPhase().run_phases(shown)

    assert "\x1b" not in printed(use)


def test_the_standard_output_of_a_process_has_no_control_characters_and_no_tensorflow():
    code = (
        "import sys; from esnac_tf.display import Display\n"
        "shown = Display()\n"
        "with shown.phase('Search', total=1) as phase: phase.advance()\n"
        "shown.message(str('tensorflow' in sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout == "False\n"


def test_a_terminal_whose_width_is_unknown_is_served(monkeypatch):
    monkeypatch.setattr(os, "get_terminal_size", lambda *arguments: os.terminal_size((0, 0)))
    text = printed(lambda shown: shown.summary_table(SUMMARY, LONG), Terminal())
    assert f"{LONG}/students/1.keras" in text
