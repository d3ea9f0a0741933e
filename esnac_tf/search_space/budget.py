"""Students of at most so many parameters, by construction."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from esnac_tf.errors import UserError
from esnac_tf.graph.widths import ParameterTable
from esnac_tf.search_space.candidates import Candidates

# Halvings of the interval in which the largest student that fits is looked for.
_HALVINGS = 12


class ParameterBudget:
    """The largest number of parameters that students may have.

    Args:
        table: Counts parameters.
        max_params: The largest number, 1 or more.

    Example:
        >>> import keras
        >>> from esnac_tf.graph.teacher import analyse
        >>> from esnac_tf.search_space.space import SearchSpace
        >>> inputs = keras.Input((4,))
        >>> model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Dense(20)(inputs)))
        >>> graph = analyse(model)
        >>> budget = ParameterBudget(ParameterTable(graph, model), max_params=50)
        >>> candidates = SearchSpace(graph, budget=budget).sample(100, np.random.default_rng(0))
        >>> bool(budget.fits(candidates).all())
        True
    """

    def __init__(self, table: ParameterTable, max_params: int) -> None:
        self._table = table
        self.max_params = max_params

    def fits(self, candidates: Candidates) -> npt.NDArray[np.bool_]:
        """Whether each of M candidates has few enough parameters: [M]."""
        counts = self._table.count(candidates.removed, candidates.widths)
        return np.asarray(counts <= self.max_params)

    def check(self, smallest: Candidates) -> None:
        """Holds the budget against the smallest student that there is.

        Raises:
            UserError: It has more parameters.
        """
        if not self.fits(smallest).all():
            least = int(self._table.count(smallest.removed, smallest.widths)[0])
            raise UserError(
                f"max_params={self.max_params} is too few: the smallest student of this teacher "
                f"has {least:,} parameters.\nGive at least as many."
            )

    def largest(
        self, count: int, candidates: Callable[[npt.NDArray[np.float64]], Candidates]
    ) -> Candidates:
        """The largest of M families of candidates that fit.

        Args:
            count: M.
            candidates: Gives M candidates for M shares, 0 to 1: the larger the share, the larger
                the candidate.

        Returns:
            M candidates, those of share 0 where none fits.
        """
        low, high = np.zeros(count), np.ones(count)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            fits = self.fits(candidates(middle))
            low, high = np.where(fits, middle, low), np.where(fits, high, middle)
        return candidates(low)
