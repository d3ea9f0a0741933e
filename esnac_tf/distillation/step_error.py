"""Tells a student's errors from those of the data and the machines."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import tensorflow as tf

from esnac_tf.errors import UserError

# Errors of the machines, not of a student: nobody can go on after them.
_MACHINE_ERRORS = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.UnavailableError,
)


class StepError(Exception):
    """A step of several students failed, and nothing tells which student's fault it was."""


@contextlib.contextmanager
def as_step_errors(kind: type[Exception] = tf.errors.OpError) -> Iterator[None]:
    """Raises errors of that kind as StepError; not those of the user or the machines.

    Only a step belongs in this context, never the data that comes to it.

    Args:
        kind: The errors that a student may cause here.

    Raises:
        StepError: With a description in one line; the error is its `__cause__`.

    Example:
        >>> with as_step_errors():
        ...     raise tf.errors.ResourceExhaustedError(None, None, "no memory")
        Traceback (most recent call last):
            ...
        esnac_tf.distillation.step_error.StepError: ResourceExhaustedError: no memory
    """
    try:
        yield
    except (*_MACHINE_ERRORS, UserError):
        raise
    except kind as error:
        raise StepError(describe_error(error)) from error


def describe_error(error: BaseException) -> str:
    r"""Returns an exception in one line of at most 300 characters.

    Example:
        >>> describe_error(ValueError("the shapes\n  don't fit"))
        "ValueError: the shapes don't fit"
    """
    line = " ".join(str(error).split())
    text = f"{type(error).__name__}: {line}" if line else type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."
