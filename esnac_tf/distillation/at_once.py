"""How many students have room at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence


class AtOnce:
    """How many students are trained at once: at first all, and what has room once memory ran out.

    Several threads may use it.

    Args:
        told: Called with one line whenever it falls.

    Attributes:
        limit: How many at most; None: all.

    Example:
        >>> at_once = AtOnce(print)
        >>> at_once.memory_ran_out(5)
        Memory ran out with 5 students at once: 2 at a time are trained from now on.
        >>> at_once.parts(range(5))
        [[0, 1], [2, 3], [4]]
    """

    def __init__(self, told: Callable[[str], None] | None = None) -> None:
        self.limit: int | None = None
        self._told = told
        self._most = 0  # that had room
        self._lock = threading.Lock()

    def parts(self, indices: Sequence[int]) -> list[list[int]]:
        """The students in parts that are trained one after the other."""
        size = self.limit or max(1, len(indices))
        return [list(indices[i : i + size]) for i in range(0, len(indices), size)]

    def had_room(self, num_students: int) -> None:
        """Notes that so many students were trained at once."""
        with self._lock:
            self._most = max(self._most, num_students)

    def memory_ran_out(self, num_students: int) -> None:
        """Notes that so many students, more than one, are too many."""
        with self._lock:
            if self._most >= num_students:  # other students, or less memory, than then
                self._most = 0
            limit = max(num_students // 2, self._most)
            if self.limit is None or limit < self.limit:
                self.limit = limit
                if self._told is not None:
                    self._told(
                        f"Memory ran out with {num_students} students at once: {limit} at a time "
                        "are trained from now on."
                    )
