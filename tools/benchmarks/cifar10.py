"""CIFAR-10, for the benchmarks of whole commands: its folder is named in the environment."""

from __future__ import annotations

import os

DATA_DIR = "ESNAC_TF_CIFAR10_DIR"


def cifar10_flags() -> list[str]:
    """Flags of a search by which it reads CIFAR-10; none if the environment names no folder."""
    folder = os.environ.get(DATA_DIR)
    return ["--dataset=cifar10", f"--data_dir={os.path.abspath(folder)}"] if folder else []
