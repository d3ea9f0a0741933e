"""Tells a student's errors from those of the data and the machines."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import tensorflow as tf

from esnac_tf.errors import UserError, error_reason

# Errors of the machines, not of a student: nobody can go on after them.
MACHINE_ERRORS = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.UnavailableError,
)


# For want of memory, the student that happens to ask for it last fails: anyone's fault.
_MEMORY_ERRORS = (tf.errors.ResourceExhaustedError, MemoryError)


class StepError(Exception):
    """A step of several students failed, and nothing tells which student's fault it was."""

    @property
    def is_of_memory(self) -> bool:
        """Whether memory ran out."""
        return isinstance(self.__cause__, _MEMORY_ERRORS)


@contextlib.contextmanager
def as_step_errors(*kinds: type[Exception]) -> Iterator[None]:
    """Raises errors of these kinds as StepError; not those of the user or the machines.

    Only a step belongs in this context, never the data that comes to it.

    Args:
        *kinds: The errors that a student may cause here; by default those of operations and
            of memory.

    Raises:
        StepError: With a description in one line; the error is its `__cause__`.

    Example:
        >>> with as_step_errors():
        ...     raise tf.errors.ResourceExhaustedError(None, None, "no memory")
        Traceback (most recent call last):
            ...
        esnac_tf.distillation.step_error.StepError: ResourceExhaustedError: no memory
    """
    kinds = kinds or (tf.errors.OpError, MemoryError)
    try:
        yield
    except (*MACHINE_ERRORS, UserError):
        raise
    except kinds as error:
        raise StepError(describe_error(error)) from error


def blame_student(error: Exception) -> str:
    """Returns in one line why a student failed, if the error is that student's fault.

    Args:
        error: What was raised while this student alone was at work.

    Raises:
        StepError: If memory ran out, of which all students have a share.
        tf.errors.OpError: The error itself, if it is one of the machines.

    Example:
        >>> blame_student(ValueError("no training mode"))
        'ValueError: no training mode'
        >>> blame_student(MemoryError("no room"))
        Traceback (most recent call last):
            ...
        esnac_tf.distillation.step_error.StepError: MemoryError: no room
    """
    if isinstance(error, MACHINE_ERRORS):
        raise error
    if isinstance(error, _MEMORY_ERRORS):
        raise StepError(describe_error(error)) from error
    return describe_error(error)


def describe_error(error: BaseException) -> str:
    r"""Returns an exception in one line: its class and `error_reason`.

    Example:
        >>> describe_error(ValueError("the shapes\n  don't fit"))
        "ValueError: the shapes don't fit"
    """
    name, reason = type(error).__name__, error_reason(error)
    return name if reason == name else f"{name}: {reason}"
