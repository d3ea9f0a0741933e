"""One process writes a run folder, and asking who does changes nothing."""

import os
import subprocess
import sys

import pytest

from esnac_tf import run_lock
from esnac_tf.errors import UserError

CODE = """
import pathlib, sys
from esnac_tf import run_lock
from esnac_tf.errors import UserError
try:
    getattr(run_lock, sys.argv[1])(pathlib.Path(sys.argv[2]))
except UserError as error:
    print(error)
"""


@pytest.mark.parametrize("function", ["take", "check_free"])
def test_a_second_process_is_told_who_holds_the_folder(tmp_path, function):
    descriptor = run_lock.take(tmp_path)
    command = [sys.executable, "-c", CODE, function, str(tmp_path)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    os.close(descriptor)
    assert told == (
        f"{tmp_path} is in use by another search, process {os.getpid()}.\n"
        "Wait until it has ended, or choose another --run_dir.\n"
    )
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == ""


def test_asking_makes_no_file_and_keeps_no_lock(tmp_path):
    run_lock.check_free(tmp_path / "missing")
    run_lock.check_free(tmp_path)
    assert list(tmp_path.iterdir()) == []
    os.close(run_lock.take(tmp_path))
    written = (tmp_path / "lock").stat().st_mtime_ns
    run_lock.check_free(tmp_path)
    assert (tmp_path / "lock").stat().st_mtime_ns == written
    os.close(run_lock.take(tmp_path))


@pytest.mark.parametrize("use", [run_lock.take, run_lock.check_free])
def test_what_the_file_system_refuses_is_the_caller_s_to_tell(tmp_path, use):
    (tmp_path / "lock").mkdir()
    with pytest.raises(IsADirectoryError):
        use(tmp_path)


def test_a_full_disk_frees_the_lock(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", refuse)
    with pytest.raises(OSError, match="No space left"):
        run_lock.take(tmp_path)
    monkeypatch.undo()
    os.close(run_lock.take(tmp_path))


def test_the_holder_is_unknown_where_it_wrote_nothing(tmp_path):
    descriptor = run_lock.take(tmp_path)
    os.ftruncate(descriptor, 0)
    with pytest.raises(UserError, match="process unknown"):
        run_lock.check_free(tmp_path)
    os.close(descriptor)
