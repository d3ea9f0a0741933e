"""Executors: where the students of a search are trained. One file each, found by its name.

A new one is a file of this folder with a function `opened(context)`, and with `check(placement)` if
there is something to check; no other file changes.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from esnac_tf.architecture import ActionSet
from esnac_tf.families import Family

if TYPE_CHECKING:
    from esnac_tf.distillation.training import OnBatch, OnEpoch
    from esnac_tf.evaluation import Evaluator, OnFinished

FAMILY = Family("executor", __name__, frozenset({"parcel", "placement", "worker"}))


class Executor(Protocol):
    """Trains students, and hands over results as they come (`ExecutorContext.on_finished`).

    Of each student that was submitted it hands over one result, a failed or a lost trial at worst.
    """

    def submit(self, proposals: Mapping[int, ActionSet], step: int) -> None:
        """Takes in students that are to be trained, together where there is no better place.

        It does not wait for them. One that is lost may be submitted again.

        Args:
            proposals: Actions by the number of their trial.
            step: The search step they belong to, from 0.
        """
        ...

    def wait(self) -> int:
        """Waits until a student that was submitted is finished or lost, if there are any.

        Returns:
            How many students more could be trained at once, 0 or more.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where students shall be trained.

    Attributes:
        step_size: How many students a search step has.
        ray_address: Of a Ray cluster; empty: one is started on this machine.
        cpus_per_candidate: CPUs of a student where executors place it; None: by the executor.
        gpus_per_candidate: GPUs of a student likewise, also a part of one.
    """

    step_size: int
    ray_address: str = ""
    cpus_per_candidate: int | None = None
    gpus_per_candidate: float | None = None


@dataclasses.dataclass(frozen=True)
class ExecutorContext:
    """What executors are made from.

    Attributes:
        evaluator: Makes trials of students, in this process.
        on_finished: Called with results as they come, before `wait` returns, by one thread at a
            time.
        progress: A phase of the display that follows a training, by its title and its epochs; it
            yields what trainings call after epochs and after batches
            (`esnac_tf.training_progress`).
        told: Called with a line for people.
        placement: Where students shall be trained.
    """

    evaluator: Evaluator
    on_finished: OnFinished
    progress: Callable[[str, int], contextlib.AbstractContextManager[tuple[OnEpoch, OnBatch]]]
    told: Callable[[str], None]
    placement: Placement


def names() -> list[str]:
    """All executors.

    Example:
        >>> "local" in names()
        True
    """
    return FAMILY.names()


def check(name: str, placement: Placement) -> None:
    """Refuses what can't be done here, before anything is trained.

    Raises:
        UnknownNameError: There is no executor of that name.
        MissingExtraError: It needs a package that is not installed.
        UserError: Its machines can't be reached, or have no room for a student.

    Example:
        >>> check("local", Placement(step_size=8))
    """
    getattr(FAMILY.module(name), "check", lambda placement: None)(placement)


def opened(name: str, context: ExecutorContext) -> contextlib.AbstractContextManager[Executor]:
    """The executor of a name, for as long as the context lasts.

    Raises:
        UnknownNameError: There is none.
    """
    executor: contextlib.AbstractContextManager[Executor] = FAMILY.module(name).opened(context)
    return executor
