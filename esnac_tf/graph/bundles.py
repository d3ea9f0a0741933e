"""Bundles: the smallest sets of channels that can go without unbalancing anything."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]

# A group whose slots fall into more cells than this is too entangled to be worth a search.
_MAX_CELLS = 256


def partition_into_bundles(
    slots: IntArray, sources: Sequence[IntArray], balanced: Sequence[IntArray]
) -> tuple[tuple[IntArray, ...], IntArray]:
    """Partitions the slots of a group into bundles.

    Slots that belong to the same layers and to the same rows are alike: a cell. A bundle takes
    so many slots of each cell that every matrix of `balanced` loses equally many of each of its
    rows. Whatever can't be put into a bundle is always kept.

    Args:
        slots: The group's slots, [F].
        sources: For each layer that creates channels of the group, their slots.
        balanced: Matrices [rows, columns] of slots of which equally many of each row are kept.

    Returns:
        Classes of bundles, each an array [bundles, slots of a bundle], and the slots that are
        always kept.

    Example:
        Two blocks of a grouped convolution: a channel goes from both or from none.

        >>> bundles, fixed = partition_into_bundles(
        ...     np.arange(4), [np.arange(4)], [np.array([[0, 1], [2, 3]])]
        ... )
        >>> bundles[0].tolist(), fixed.tolist()
        ([[0, 2], [1, 3]], [])
    """
    balanced = [rows for rows in balanced if len(rows) > 1]
    counts = [_count_rows(slots, rows) for rows in balanced]
    memberships = [_count_rows(slots, source[None]) for source in sources]
    signatures = np.concatenate([*counts, *memberships], axis=0)
    _, first, cell_of_slot = np.unique(signatures, axis=1, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(first))  # number cells as they first appear
    cell_of_slot = order[cell_of_slot.reshape(-1)]
    cells = [slots[cell_of_slot == cell] for cell in range(len(first))]
    if len(cells) > _MAX_CELLS:
        return (), slots
    representatives = np.sort(first)
    rows_of_cells = [count[:, representatives] for count in counts]
    remaining = np.array([len(cell) for cell in cells])
    taken = np.zeros(len(cells), np.int64)
    bundles: list[IntArray] = []
    while remaining.any():
        pattern = _smallest_bundle(remaining, rows_of_cells)
        if pattern is None:
            break
        number = int(np.min(remaining[pattern > 0] // pattern[pattern > 0]))
        parts = []
        for cell in np.flatnonzero(pattern):
            amount = number * int(pattern[cell])
            part = cells[cell][taken[cell] : taken[cell] + amount]
            parts.append(part.reshape(number, -1))
            taken[cell] += amount
        remaining = remaining - number * pattern
        bundles.append(np.concatenate(parts, axis=1))
    fixed = [cell[start:] for cell, start in zip(cells, taken, strict=True)]
    return tuple(bundles), np.concatenate(fixed)


def num_kept_bundles(num_bundles: int, width: npt.ArrayLike, full_width: int) -> IntArray:
    """How many of n bundles are kept where W of F channels are: max(1, floor(n * W / F)).

    Args:
        num_bundles: n.
        width: W, 1 to F, of any shape.
        full_width: F.

    Returns:
        Numbers of bundles, of the shape of `width`.
    """
    return np.maximum(1, np.asarray(width, np.int64) * num_bundles // full_width)


def _count_rows(slots: IntArray, rows: IntArray) -> IntArray:
    """How often each slot stands in each row: [rows, slots]."""
    width = int(max(slots.max(), rows.max())) + 1
    return np.stack([np.bincount(row, minlength=width)[slots] for row in rows])


def _smallest_bundle(remaining: IntArray, rows_of_cells: Sequence[IntArray]) -> IntArray | None:
    """The fewest slots of each cell that, taken away together, keep all rows balanced.

    The first cell that has slots left is in it. Searched depth first with a growing bound;
    only cells that add to the row which lacks most are tried, as one of them must be taken.
    """
    start = int(np.flatnonzero(remaining)[0])
    pattern = np.zeros(len(remaining), np.int64)
    pattern[start] = 1
    limit = 4 * max([len(rows) for rows in rows_of_cells], default=1)
    for size in range(1, limit + 1):
        seen: set[bytes] = set()
        found = _search(pattern, size, remaining, rows_of_cells, seen)
        if found is not None:
            return found
    return None


def _search(
    pattern: IntArray,
    size: int,
    remaining: IntArray,
    rows_of_cells: Sequence[IntArray],
    seen: set[bytes],
) -> IntArray | None:
    """Depth-first search for a balanced pattern of at most `size` slots."""
    key = pattern.tobytes()
    if key in seen:
        return None
    seen.add(key)
    spare = size - int(pattern.sum())
    worst, candidates = 0, None
    for rows in rows_of_cells:
        sums = rows @ pattern
        missing = int((sums.max() - sums).sum())
        if missing > spare * int(rows.max(initial=1)):
            return None
        lack = int(sums.max() - sums.min())
        if lack > worst:
            worst, candidates = lack, rows[int(sums.argmin())] > 0
    if candidates is None:
        return pattern
    for cell in np.flatnonzero(candidates & (remaining > pattern)):
        larger = pattern.copy()
        larger[cell] += 1
        found = _search(larger, size, remaining, rows_of_cells, seen)
        if found is not None:
            return found
    return None
