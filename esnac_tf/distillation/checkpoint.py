"""A training that another process can go on with, from the end of an epoch."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from esnac_tf.datasets.digests import digest_of
from esnac_tf.distillation.array_files import read_arrays, write_arrays
from esnac_tf.distillation.interruption import Deferred, deferred
from esnac_tf.profiling import measured

# Saving takes one in so many seconds at most.
_SHARE = 20.0


@dataclasses.dataclass
class Cost:
    """What writing takes.

    Attributes:
        secs: Seconds of the last time; 0: there was none.
        end: When that was.
    """

    secs: float = 0.0
    end: float = 0.0

    def is_due(self) -> bool:
        """Whether it may be written again."""
        return time.monotonic() - self.end >= _SHARE * self.secs


class Checkpoint:
    """A file that keeps a training after epochs.

    It is written after the first epoch, later when writing takes no more than a twentieth of the
    time, and when an interruption waits, which is raised then. A file that is damaged, or of
    another training, counts as none: the training begins anew, and comes out the same.

    Args:
        path: The file; the suffix is `.npz`.
        names: What tells each student, and all that its training depends on, from any other.
        interruption: Ends the training after an epoch. None: nothing does.
        costs: What writing takes, of each file by its name: one dict for all trainings that are
            kept one after the other.

    Example:
        >>> import tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "training.npz"
        >>> Checkpoint(path, ["student 3"]).after_epoch({"epoch": 1}, lambda: [np.ones(2)])
        >>> Checkpoint(path, ["student 3"]).load()
        ({'epoch': 1}, [array([1., 1.])])
        >>> Checkpoint(path, ["student 4"]).load()
    """

    def __init__(
        self,
        path: pathlib.Path,
        names: Sequence[str],
        interruption: Deferred | None = None,
        costs: dict[str, Cost] | None = None,
    ) -> None:
        self._path, self._names = path, list(names)
        self._interruption = interruption or Deferred()
        self._costs = {} if costs is None else costs
        self._cost = self._costs.setdefault(path.name, Cost())

    def of(self, indices: Sequence[int], suffix: str = "") -> Checkpoint:
        """The checkpoint of some of the students that are trained by themselves.

        Args:
            indices: Which.
            suffix: Of the file's name, where others are trained at the same time.
        """
        path = self._path.with_stem(self._path.stem + suffix)
        names = [self._names[index] for index in indices]
        return Checkpoint(path, names, self._interruption, self._costs)

    def load(self) -> tuple[dict[str, Any], list[np.ndarray]] | None:
        """What was kept last: values, and arrays; None if there is nothing."""
        arrays = read_arrays(self._path, self._key())
        if arrays is None:
            return None
        return json.loads(arrays.pop(0).tobytes()), arrays

    def after_epoch(self, values: dict[str, Any], arrays: Callable[[], list[Any]]) -> None:
        """Keeps a training, if it is time.

        Args:
            values: What it is at, as JSON has it.
            arrays: Gives the rest.

        Raises:
            KeyboardInterrupt: It was asked for.
            UserError: The file can't be written.
        """
        if self._interruption.is_asked or self._cost.is_due():
            start = time.monotonic()
            text = np.frombuffer(json.dumps(values).encode(), np.uint8)
            with measured("writing"):
                write_arrays(self._path, self._key(), [text, *arrays()])
            self._cost.end = time.monotonic()
            self._cost.secs = self._cost.end - start
        self._interruption.check()

    def _key(self) -> str:
        return digest_of([np.array(json.dumps(self._names))])


@contextlib.contextmanager
def kept_training(
    path: pathlib.Path | None, names: Sequence[str], costs: dict[str, Cost] | None = None
) -> Iterator[Checkpoint | None]:
    """A training that is kept, and that an interruption ends after an epoch.

    Args:
        path: The file; None: nothing is kept, and an interruption ends it at once.
        names: As of `Checkpoint`.
        costs: Likewise.

    Raises:
        KeyboardInterrupt: In the end, if there was one.
    """
    if path is None:
        yield None
        return
    with deferred() as interruption:
        yield Checkpoint(path, names, interruption, costs)
