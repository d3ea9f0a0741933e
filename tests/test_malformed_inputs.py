"""Whatever is given: an error of few lines and exit code 2, or it is right; no traceback, no harm.

The inputs are made by `malformed`, each by its seed.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import random
import shutil
import sys

import malformed
import numpy as np
import pytest
import toy

from esnac_tf import search
from esnac_tf.command_flags import FLAGS

# So many times as many inputs as usual.
TIMES = int(os.environ.get("MALFORMED_TIMES", "1"))
# At most so many lines of an error.
_MAX_LINES = 3
TINY = [
    "--num_steps=1", "--num_kernels=2", "--num_candidates=5", "--strategy=random",
    "--search_epochs=1", "--num_best=1", "--full_epochs=1", "--batch_size=32", "--export=keras",
]  # fmt: skip
# What would wait for the network, or start many processes.
NOT_TRIED = {"ray_address", "executor", "data_dir", "help", "helpfull", "helpshort", "helpxml"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with a teacher, data, and the run folder of a finished search."""
    folder = tmp_path_factory.mktemp("whole")
    names = ("x_train", "y_train", "x_test", "y_test")
    np.savez(folder / "toy.npz", **dict(zip(names, (*toy.TRAIN, *toy.TEST), strict=True)))
    toy.teacher().save(folder / "toy.keras")
    code = search.main(command(folder, TINY))
    assert code == 0
    return folder


def command(folder, flags, teacher="toy.keras", data="toy.npz"):
    given = [f"--teacher={folder / teacher}", f"--dataset={folder / data}"]
    return ["search", *given, f"--run_dir={folder / 'run'}", *flags]


@pytest.fixture
def folder(whole, tmp_path, monkeypatch):
    """A copy of it."""
    copy = tmp_path / "work"
    shutil.copytree(whole, copy)
    monkeypatch.chdir(copy)
    return copy


def digests(folder):
    """What lies in a folder, but for the lock."""
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in pathlib.Path(folder).rglob("*")
        if path.is_file() and path.name != "lock"
    }


def tried(arguments, folder, capsys, may_change=False):
    """Runs the command; its exit code, which must be explained by few lines.

    Where a file can't be replaced because a folder is in its place, that is seen when it is
    written: `may_change`.
    """
    before, shown = digests(folder), sys.stdout
    try:
        code = search.main(arguments)
    except SystemExit as error:
        code = error.code
    finally:
        sys.stdout = shown
    told = capsys.readouterr()
    error = told.err[told.err.find("Error: ") :] if "Error: " in told.err else ""
    assert "Traceback" not in told.err + told.out
    assert code in (0, 2), f"exit code {code}: {told.err}"
    if code == 2:
        assert error, f"exit code 2 without an error: {told.err}"
        assert len(error.strip().splitlines()) <= _MAX_LINES, error
        after = digests(folder)
        changed = [path for path, digest in before.items() if after.get(path) != digest]
        assert may_change or not changed, f"changed though refused: {changed}\n{error}"
    return code


def tried_anew(folder, capsys):
    """Runs the command on teacher and data, without the run folder, up to the training."""
    shutil.rmtree(folder / "run")
    tried(command(folder, [*TINY, "--dry_run"]), folder, capsys)


@pytest.mark.parametrize("seed", range(130 * TIMES))
def test_flags(seed, folder, capsys):
    generator = random.Random(seed)
    names = sorted(set(FLAGS) - NOT_TRIED)
    flags = malformed.flag(generator, names)
    tried([*command(folder, TINY), *flags, "--dry_run"], folder, capsys)


@pytest.mark.parametrize("seed", range(90 * TIMES))
def test_models(seed, folder, capsys):
    generator = random.Random(seed)
    path = folder / "toy.keras"
    way = generator.choices([malformed.junk_in_zip, malformed.junk_in_bytes], [3, 1])[0]
    path.write_bytes(way(generator, path.read_bytes()))
    tried_anew(folder, capsys)


@pytest.mark.parametrize("seed", range(70 * TIMES))
def test_data(seed, folder, capsys):
    generator = random.Random(seed)
    path = folder / "toy.npz"
    if generator.random() < 0.6:
        with np.load(path) as arrays:
            np.savez(path, **malformed.junk_arrays(generator, dict(arrays)))
    else:
        way = generator.choice([malformed.junk_in_zip, malformed.junk_in_bytes])
        path.write_bytes(way(generator, path.read_bytes()))
    tried_anew(folder, capsys)


@pytest.mark.parametrize("seed", range(90 * TIMES))
def test_run_folders(seed, folder, capsys):
    generator = random.Random(seed)
    outside = folder.parent / "outside.txt"
    outside.write_text("of nobody else\n")
    files = sorted(path for path in (folder / "run").rglob("*") if path.is_file())
    files = [path for path in files if path.name != "lock" and "tensorboard" not in path.parts]
    path = generator.choice(files)
    how = generator.choices(["malformed", "folder", "link", "gone"], [12, 1, 1, 1])[0]
    if how == "malformed":
        content = path.read_bytes()
        if path.suffix == ".json" and generator.random() < 0.7:
            path.write_bytes(malformed.junk_in_json(generator, content))
        elif path.suffix == ".jsonl" and generator.random() < 0.7:
            *lines, last = content.splitlines(keepends=True)
            last = malformed.junk_in_json(generator, last) + b"\n"
            path.write_bytes(b"".join([last, *lines] if seed % 2 else [*lines, last]))
        else:
            path.write_bytes(malformed.junk_in_bytes(generator, content))
    else:
        path.unlink()
        if how == "folder":
            path.mkdir()
        elif how == "link":
            path.symlink_to(outside)
    more = ["--num_steps=2"] * (generator.random() < 0.5)  # it is not finished then
    tried(command(folder, [*TINY, *more]), folder, capsys, may_change=how == "folder")
    assert outside.read_text() == "of nobody else\n"
