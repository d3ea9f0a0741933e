"""What is told about a fit."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class FitReport:
    """What came of a fit; tuples have one entry for each kernel that was fitted.

    Attributes:
        initial_log_likelihoods: Mean leave-one-out log likelihood of a kernel's own subset with
            its initial weights, nats an observation.
        final_log_likelihoods: The same when last evaluated: with the final weights where a kernel
            stopped early, before the last training step where it used all of them. Both are NaN
            where there were none.
        num_steps: Training steps taken.
        subset_sizes: Observations in a kernel's own subset.
        duration_secs: Wall seconds, compilation included.

    Example:
        >>> FitReport((-1.0,), (-0.5,), (7,), (12,), 0.1).num_steps
        (7,)
    """

    initial_log_likelihoods: tuple[float, ...]
    final_log_likelihoods: tuple[float, ...]
    num_steps: tuple[int, ...]
    subset_sizes: tuple[int, ...]
    duration_secs: float
