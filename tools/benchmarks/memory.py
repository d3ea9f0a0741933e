"""Whether a search needs more and more memory."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import keras
import numpy as np

from benchmarks.timing import Finding
from esnac_tf.compression import search_students
from esnac_tf.display import Display
from esnac_tf.trial import Trial

_FIRST = 10
_NUM_KERNELS = 4


def over_trials(size: str) -> Iterator[Finding]:
    """Memory of the process after the last trial of a search / after trial 10.

    A random search with a small convolutional teacher on 256 made-up pictures of 8 x 8 pixels.
    """
    num_trials = 60 if size == "full" else 24
    generator = np.random.default_rng(0)
    x = generator.uniform(0, 16, (320, 8, 8, 1)).astype("float32")
    y = generator.integers(10, size=320)
    display = _MemoryDisplay()
    search_students(
        _teacher(),
        (x[:256], y[:256]),
        (x[256:], y[256:]),
        display=display,
        strategy="random",
        num_steps=num_trials // _NUM_KERNELS,
        num_kernels=_NUM_KERNELS,
        search_epochs=1,
        full_epochs=0,
        batch_size=64,
        export=(),
    )
    first, last = display.resident[_FIRST - 1], display.resident[-1]
    yield Finding(
        f"memory after trial {num_trials} / after trial {_FIRST}",
        last / first,
        limit=1.1 if size == "full" else None,
        detail=f"{last:.0f} MiB to {first:.0f} MiB",
    )


class _MemoryDisplay(Display):
    """Prints nothing, and notes the memory whenever a trial is finished."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.resident: list[float] = []

    def trial_finished(
        self, trial: Trial, best: Trial | None, num_epochs: int | None = None
    ) -> None:
        self.resident.append(resident_mib(pathlib.Path("/proc/self/status").read_text()))

    def warning(self, text: str) -> None:
        """Students can learn nothing of random classes, and the search would say so."""


def resident_mib(status: str) -> float:
    """The resident set size in the text of a /proc/PID/status, which gives it in kB."""
    [line] = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1]) / 1024


def _teacher() -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    x = inputs
    for width in (8, 16, 16):
        x = keras.layers.Conv2D(width, 3, padding="same")(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(10)(x))
