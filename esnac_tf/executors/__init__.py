"""Executors: where the students of a search are trained. One file each, found by its name.

A new one is a file of this folder with a function `opened(context)`; no other file changes.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from esnac_tf.architecture import ActionSet
from esnac_tf.families import Family

if TYPE_CHECKING:
    from esnac_tf.evaluation import Evaluator, OnFinished

FAMILY = Family("executor", __name__)


class Executor(Protocol):
    """Trains students, and hands over results as they come (`ExecutorContext.on_finished`)."""

    def submit(self, proposals: Mapping[int, ActionSet], step: int) -> None:
        """Takes in students that are to be trained; it does not wait for them.

        Args:
            proposals: Actions by the number of their trial.
            step: The search step they belong to, from 0.
        """
        ...

    def wait(self) -> int:
        """Waits until a student that was submitted is finished, if there are any.

        Returns:
            How many students more could be trained at once, 0 or more.
        """
        ...


@dataclasses.dataclass(frozen=True)
class ExecutorContext:
    """What executors are made from.

    Attributes:
        evaluator: Makes trials of students, in this process.
        on_finished: Called with results as they come, before `wait` returns, by one thread at a
            time.
        progress: A phase of the display that follows a training, by its title and its epochs
            (`esnac_tf.training_progress`).
        step_size: How many students a search step has.
    """

    evaluator: Evaluator
    on_finished: OnFinished
    progress: Callable[[str, int], contextlib.AbstractContextManager[Any]]
    step_size: int


def names() -> list[str]:
    """All executors.

    Example:
        >>> "local" in names()
        True
    """
    return FAMILY.names()


def opened(name: str, context: ExecutorContext) -> contextlib.AbstractContextManager[Executor]:
    """The executor of a name, for as long as the context lasts.

    Raises:
        UnknownNameError: There is none.
    """
    executor: contextlib.AbstractContextManager[Executor] = FAMILY.module(name).opened(context)
    return executor
