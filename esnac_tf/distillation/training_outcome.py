"""What a training came to: frozen values, plain Python."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class EpochRecord:
    """One epoch of one student.

    Attributes:
        epoch: Counted from 1.
        loss: Mean over the epoch's steps, the model's own losses (`model.losses`) included,
            weight decay not.
        validation_metric: The metric after the epoch; an accuracy is in [0, 1].
        quality: How good that is, more being better: see `SearchMetric.quality`.
        secs: Wall time of the epoch with its validation. Students that are trained together
            share it: it is the time of all of them.

    Example:
        >>> EpochRecord(epoch=1, loss=0.5, validation_metric=0.75, quality=0.75, secs=2.0).epoch
        1
    """

    epoch: int
    loss: float
    validation_metric: float
    quality: float
    secs: float


@dataclasses.dataclass(frozen=True)
class TrainingOutcome:
    """What the training of one student came to.

    Attributes:
        validation_metric: That of the best epoch; None if no epoch was finished.
        quality: Its quality; 0 if no epoch was finished.
        best_epoch: Counted from 1, the earliest of the equally good; 0 if none was finished.
        history: The finished epochs.
        failure: None, or in one line why the student was given up.

    Example:
        >>> TrainingOutcome.from_history([EpochRecord(1, 0.5, 0.75, 0.75, 2.0)]).best_epoch
        1
    """

    validation_metric: float | None
    quality: float
    best_epoch: int
    history: tuple[EpochRecord, ...] = ()
    failure: str | None = None

    @classmethod
    def from_history(
        cls, history: list[EpochRecord], failure: str | None = None
    ) -> TrainingOutcome:
        """Returns the outcome of the finished epochs.

        Args:
            history: The finished epochs, in order.
            failure: None, or in one line why the student was given up.

        Returns:
            The outcome; of equally good epochs the earliest is the best.
        """
        if not history:
            return cls(None, 0.0, 0, (), failure)
        best = max(history, key=lambda record: record.quality)
        return cls(best.validation_metric, best.quality, best.epoch, tuple(history), failure)
