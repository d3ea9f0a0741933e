"""TensorFlow, started without what its native code says of the machine."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator


def start_tensorflow() -> None:
    """Imports TensorFlow and looks for its devices: what it says at its start, it says here."""
    if "tensorflow" in sys.modules:
        return
    with silenced():
        import tensorflow as tf

        tf.get_logger().setLevel("ERROR")
        for gpu in tf.config.list_physical_devices("GPU"):  # others may be on it, too
            tf.config.experimental.set_memory_growth(gpu, True)


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Hides what native code writes to the error output, where Python has no say."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
