"""When going on with a search makes no sense."""

from __future__ import annotations

from collections.abc import Sequence

from esnac_tf.errors import UserError
from esnac_tf.trial import Trial

# Failed students in a row after which a search stops.
_MAX_FAILURES = 10


def require_success(step: Sequence[Trial], trials: Sequence[Trial]) -> None:
    """Stops a search that only fails; its trials stay recorded, and are not tried again.

    Args:
        step: The trials of the last step.
        trials: All trials so far.

    Raises:
        UserError: All students of a step of two or more failed, or ten in a row.

    Example:
        >>> from esnac_tf.architecture import ActionSet
        >>> good = Trial(0, "complete", ActionSet(), 9, 9, 0.5, 0.5, 1.0)
        >>> require_success([good], [good])
    """
    last = sorted(trials, key=lambda trial: trial.number)[-_MAX_FAILURES:]
    if len(step) > 1 and not any(trial.is_complete for trial in step):
        told = f"All {len(step)} students of step {step[0].step + 1} failed"
    elif len(last) == _MAX_FAILURES and not any(trial.is_complete for trial in last):
        told = f"The last {_MAX_FAILURES} students all failed"
    else:
        return
    raise UserError(
        f"{told}: {last[-1].failure}\n"
        "Recorded trials are not repeated: mend the cause and give another --run_dir, or the same "
        "one with more --num_steps."
    )
