"""Many students at once: their actions as arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclasses.dataclass(frozen=True, eq=False)
class Candidates:
    """M students of one teacher, as arrays of what is done to it.

    Attributes:
        removed: Whether each node of the layer sequence is removed: bool [M, T].
        widths: The width of each width group, 1 to F: int64 [M, G].
        skips: Whether each skip connection that may be added is: bool [M, P].
    """

    removed: npt.NDArray[np.bool_]
    widths: npt.NDArray[np.int64]
    skips: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.removed)

    def __getitem__(self, index: Any) -> Candidates:
        """Some of the candidates; the index is a slice, a mask or an array of positions."""
        return Candidates(self.removed[index], self.widths[index], self.skips[index])

    def codes(self) -> npt.NDArray[np.void]:
        """For each candidate a value that is equal just where all its actions are equal: void [M].

        Candidates of one teacher have codes of one type, which NumPy's set functions take.
        """
        bits = np.packbits(np.concatenate([self.removed, self.skips], axis=1), axis=1)
        widths = np.ascontiguousarray(self.widths).view(np.uint8)
        # The column of zeros lets a code be at least a byte, as a view needs.
        zeros = np.zeros((len(self), 1), np.uint8)
        rows = np.ascontiguousarray(np.concatenate([zeros, bits, widths], axis=1))
        return rows.view(np.dtype((np.void, rows.shape[1])))[:, 0]

    def keys(self) -> Iterator[bytes]:
        """The codes as bytes, which sets and dictionaries take."""
        return iter(self.codes().tolist())

    @staticmethod
    def concatenate(parts: Sequence[Candidates]) -> Candidates:
        """All candidates of several sets."""
        return Candidates(
            np.concatenate([part.removed for part in parts]),
            np.concatenate([part.widths for part in parts]),
            np.concatenate([part.skips for part in parts]),
        )
