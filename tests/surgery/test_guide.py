"""The examples of docs/surgery.md run and print what stands there."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

from esnac_tf import surgery

ROOT = pathlib.Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "surgery.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)


def test_the_examples_print_what_stands_there(tmp_path):
    (tmp_path / "example.py").write_text("".join(blocks("python")))
    result = subprocess.run(
        [sys.executable, "example.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == "".join(blocks("text"))


def test_names_every_function():
    for name in surgery.__all__:
        if name.islower():
            assert f"`{name}`" in GUIDE, name


def test_links_lead_to_files():
    for target in re.findall(r"\]\(([^)#]+)\)", GUIDE):
        assert (ROOT / "docs" / target).exists(), target
