"""Students trained in this process, those of a step together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from esnac_tf.architecture import ActionSet
from esnac_tf.executors import ExecutorContext


class LocalExecutor:
    """Trains what was submitted at once as one, while somebody waits for it.

    Args:
        context: What it works with.
    """

    def __init__(self, context: ExecutorContext) -> None:
        self._context = context
        self._submitted: list[tuple[Mapping[int, ActionSet], int]] = []

    def submit(self, proposals: Mapping[int, ActionSet], step: int) -> None:
        """Takes in students that are to be trained."""
        self._submitted.append((proposals, step))

    def wait(self) -> int:
        """Trains students that were submitted, if there are any; then there is room for one."""
        if self._submitted:
            context, (proposals, step) = self._context, self._submitted.pop(0)
            title, epochs = f"Step {step + 1}", context.evaluator.config.epochs
            with context.progress(title, epochs) as (on_epoch, on_batch):
                context.evaluator.evaluate(
                    proposals,
                    step,
                    on_epoch,
                    on_batch,
                    context.on_finished,
                    context.placement.step_size,
                )
        return 0 if self._submitted else 1


@contextlib.contextmanager
def opened(context: ExecutorContext) -> Iterator[LocalExecutor]:
    """Makes the executor."""
    yield LocalExecutor(context)
