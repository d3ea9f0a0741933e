"""Shows a training in the display: batches, epochs, accuracies, time left."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from esnac_tf.display import Display
from esnac_tf.distillation import EpochRecord
from esnac_tf.distillation.training import Batches, OnBatch, OnEpoch
from esnac_tf.quantities import metric_value


@contextlib.contextmanager
def training_progress(
    display: Display, title: str, num_epochs: int, batches: Batches, metric: str = "accuracy"
) -> Iterator[tuple[OnEpoch, OnBatch]]:
    """A phase of the display that follows a training.

    Args:
        display: Where to show it.
        title: What is trained.
        num_epochs: How many epochs it will take.
        metric: Name of the metric.
        batches: The training data; its `num_batches`, if it knows them, are the phase's parts.

    Yields:
        What to give `esnac_tf.distillation.train` as `on_epoch` and `on_batch`.
    """
    num_batches = getattr(batches, "num_batches", None)
    total = num_epochs * num_batches if num_batches else None
    with display.phase(title, total) as phase:

        def on_epoch(epoch: int, records: Mapping[int, EpochRecord]) -> None:
            best = max(records.values(), key=lambda record: record.quality)
            value = metric_value(metric, best.validation_metric)
            phase.update(f"epoch {epoch} of {num_epochs}, best {metric} {value}")

        is_first = True

        def on_batch(epoch: int, step: int) -> None:
            nonlocal is_first
            if is_first and num_batches and epoch > 1:  # some are of an earlier process
                phase.advance((epoch - 1) * num_batches, is_new=False)
            is_first = False
            phase.advance()

        yield on_epoch, on_batch
