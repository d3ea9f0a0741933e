"""Whether a run may go on: the errors of a real start, and nothing written."""

import os
import pathlib

import pytest

from esnac_tf.architecture import ActionSet
from esnac_tf.errors import UserError
from esnac_tf.record import RunFolder
from esnac_tf.resuming import (
    RESUME,
    check_resume,
    check_run,
    check_teacher,
    finished_summary,
    recorded_teacher,
)
from esnac_tf.trial import Trial

TRIAL = Trial(0, "complete", ActionSet(), 100, 2000, 0.5, 0.4, 1.0)
SETTINGS = {"seed": 3, "rates": (1, 2.5)}
FREE = {"num_steps": 2, "export": ("keras", "litert")}


def error_of(use):
    with pytest.raises(UserError) as caught:
        use()
    assert len(str(caught.value).splitlines()) == 2
    return str(caught.value)


def start(path, settings):
    """What a real run does first."""
    with RunFolder(path) as folder:
        folder.check_or_write_config(settings)


def snapshot(folder):
    return {
        path: (path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in [folder, *folder.rglob("*")]
    }


@pytest.fixture
def run(tmp_path):
    """The folder of a run with one trial."""
    path = tmp_path / "run"
    with RunFolder(path) as folder:
        folder.check_or_write_config(SETTINGS, FREE)
        folder.append(TRIAL)
    return path


class TestCheckRun:
    @pytest.mark.parametrize("path", ["run", "runs/of/today", "."])
    def test_a_folder_that_can_be_made_or_used_is_new_and_stays_untouched(self, tmp_path, path):
        before = snapshot(tmp_path)
        assert check_run(tmp_path / path, SETTINGS) is False
        assert snapshot(tmp_path) == before

    def test_a_relative_path_is_taken_from_the_working_folder(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert check_run("new/run", SETTINGS) is False
        assert list(tmp_path.iterdir()) == []

    def test_a_run_of_the_same_settings_would_go_on(self, run):
        before = snapshot(run)
        assert check_run(run, SETTINGS) is True
        assert snapshot(run) == before

    def test_settings_that_no_trial_depends_on_are_as_good_as_none(self, tmp_path):
        start(tmp_path, SETTINGS)
        assert check_run(tmp_path, {"seed": 4}) is False
        assert check_run(tmp_path, SETTINGS) is True

    def refused_alike(self, path, settings=SETTINGS):
        """The folder is refused as by a real run; the check comes first, and writes nothing."""
        before = snapshot(path.parent)
        told = error_of(lambda: check_run(path, settings))
        assert snapshot(path.parent) == before
        assert told == error_of(lambda: start(path, settings))
        return told

    def test_other_settings_are_refused(self, run):
        told = self.refused_alike(run, {**SETTINGS, "seed": 4})
        assert told.startswith(f"{run} holds a run with other settings: seed is 3 there and 4 now.")

    def test_trials_without_settings_are_refused(self, run):
        (run / "config.json").unlink()
        assert "no config.json" in self.refused_alike(run)

    def test_broken_settings_are_refused(self, run):
        (run / "config.json").write_text("{")
        assert "cannot be read as JSON" in self.refused_alike(run)

    def test_a_folder_in_use_is_refused(self, run):
        with RunFolder(run):
            assert f"in use by another search, process {os.getpid()}" in self.refused_alike(run)

    def test_a_file_or_a_broken_link_in_the_way_is_refused(self, tmp_path):
        (tmp_path / "file").write_text("")
        (tmp_path / "link").symlink_to(tmp_path / "missing")
        for name, reason in (("file", "File exists"), ("link", "File exists")):
            path = tmp_path / name
            told = self.refused_alike(path)
            assert told.startswith(f"Cannot use {path} for the run: {reason}.\nMake room there")
        for name, reason in (("file/a/run", "Not a directory"), ("link/a/run", "File exists")):
            path = tmp_path / name
            told = error_of(lambda path=path: check_run(path, SETTINGS))
            assert told == error_of(lambda path=path: start(path, SETTINGS))
            assert f"Cannot use {path} for the run: {reason}." in told

    def test_a_lock_that_cannot_be_opened_is_refused(self, tmp_path):
        (tmp_path / "run" / "lock").mkdir(parents=True)
        assert "Is a directory" in self.refused_alike(tmp_path / "run")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    @pytest.mark.parametrize("mode", [0o500, 0o400])
    def test_a_folder_that_may_not_be_written_is_refused(self, tmp_path, mode):
        for path in (tmp_path / "here", tmp_path / "above" / "run"):
            folder = tmp_path / path.relative_to(tmp_path).parts[0]
            folder.mkdir()
            folder.chmod(mode)
            told = error_of(lambda path=path: check_run(path, SETTINGS))
            assert told == error_of(lambda path=path: start(path, SETTINGS))
            assert "Permission denied" in told

    @pytest.mark.parametrize(
        ("flag", "reason"), [(0, "Permission denied"), (os.ST_RDONLY, "Read-only file system")]
    )
    def test_what_the_system_would_refuse_is_told_before(self, run, monkeypatch, flag, reason):
        class Status:
            f_flag = flag

        asked = []

        def refuse(path, mode):
            asked.append(pathlib.Path(path))
            return False

        monkeypatch.setattr(os, "access", refuse)
        monkeypatch.setattr(os, "statvfs", lambda path: Status)
        new = run.parent / "new" / "run"
        for path, folder in ((run, run), (new, run.parent)):
            told = error_of(lambda path=path: check_run(path, SETTINGS))
            assert told.startswith(f"Cannot use {path} for the run: {reason}.\n")
            assert asked.pop() == folder


class TestCheckTeacher:
    RECORDED = {"num_params": 5, "weights_sha256": "w", "data_sha256": "d"}

    def test_the_same_digests_pass_also_one_of_them(self, run):
        with RunFolder(run) as folder:
            folder.write_teacher(self.RECORDED)
        assert recorded_teacher(run) == self.RECORDED
        check_teacher(run, {"weights_sha256": "w", "data_sha256": "d"})
        check_teacher(run, {"data_sha256": "d"})

    def test_a_run_without_a_trial_takes_any(self, tmp_path):
        with RunFolder(tmp_path) as folder:
            folder.write_teacher(self.RECORDED)
        assert recorded_teacher(tmp_path) is None
        check_teacher(tmp_path, {"weights_sha256": "x", "data_sha256": "x"})

    def test_a_folder_without_a_teacher_takes_any(self, run, tmp_path):
        assert recorded_teacher(run) is None
        check_teacher(run, {"weights_sha256": "w", "data_sha256": "d"})
        check_teacher(tmp_path / "missing", {"data_sha256": "d"})

    @pytest.mark.parametrize(
        ("digests", "what"),
        [
            ({"weights_sha256": "x", "data_sha256": "d"}, "teacher"),
            ({"weights_sha256": "w", "data_sha256": "x"}, "data"),
            ({"weights_sha256": "x", "data_sha256": "x"}, "teacher"),
            ({"data_sha256": "x"}, "data"),
        ],
    )
    def test_another_teacher_or_other_data_is_refused(self, run, digests, what):
        with RunFolder(run) as folder:
            folder.write_teacher(self.RECORDED)
        assert error_of(lambda: check_teacher(f"{run}/", digests)) == (
            f"{run} holds a search with another {what}.\n"
            f"Choose another --run_dir for a new run, or give the same {what} to resume."
        )

    def test_a_record_without_digests_is_no_match(self, run):
        with RunFolder(run) as folder:
            folder.write_teacher({"num_params": 5})
        assert "another data" in error_of(lambda: check_teacher(run, {"data_sha256": "d"}))


class TestFinishedSummary:
    def summary(self, **student):
        exports = {"keras": "1.keras", "litert": "1.tflite"}
        student = {"exports": exports, "export_failures": {}, **student}
        return {"settings": {**FREE, "export": ["keras", "litert"]}, "students": [student]}

    def test_a_run_with_nothing_left_to_do_is_finished(self, run):
        with RunFolder(run) as folder:
            folder.write_summary(self.summary())
        assert finished_summary(run, FREE) == self.summary()

    def test_a_run_without_a_summary_is_not(self, run, tmp_path):
        assert finished_summary(run, FREE) is None
        assert finished_summary(tmp_path / "missing", FREE) is None

    @pytest.mark.parametrize("change", [{"num_steps": 3}, {"export": ("keras",)}])
    def test_nor_is_one_with_other_settings(self, run, change):
        with RunFolder(run) as folder:
            folder.write_summary(self.summary())
        assert finished_summary(run, {**FREE, **change}) is None

    @pytest.mark.parametrize("failures", [{}, {"litert": "No space left on device"}])
    def test_nor_is_one_whose_export_was_interrupted_or_failed(self, run, failures):
        student = {"exports": {"keras": "1.keras"}, "export_failures": failures}
        with RunFolder(run) as folder:
            folder.write_summary(self.summary(**student))
        assert finished_summary(run, FREE) is None

    def test_a_broken_summary_is_told(self, run):
        (run / "summary.json").write_text("[")
        assert "summary.json cannot be read" in error_of(lambda: finished_summary(run, FREE))


class TestResume:
    @pytest.fixture
    def there(self, tmp_path):
        with RunFolder(tmp_path / "run") as run:
            run.check_or_write_config({"seed": 3})
        return tmp_path / "run"

    @pytest.mark.parametrize("resume", RESUME)
    def test_a_run_that_is_there(self, there, resume):
        if resume == "never":
            with pytest.raises(UserError, match="holds a run already"):
                check_resume(there, resume)
        else:
            check_resume(there, resume)

    @pytest.mark.parametrize("resume", RESUME)
    @pytest.mark.parametrize("name", ["missing", None])
    def test_none_that_is_there(self, tmp_path, resume, name):
        run_dir = name and tmp_path / name
        if resume == "required":
            with pytest.raises(UserError, match="no run to go on with"):
                check_resume(run_dir, resume)
        else:
            check_resume(run_dir, resume)
        assert list(tmp_path.iterdir()) == []
