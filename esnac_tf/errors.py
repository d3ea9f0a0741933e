"""Errors that a user can cause, each told in one or two lines."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Something the user gave is wrong.

    The message says what is wrong, what was expected, what was received and how to fix it,
    in at most two lines. The command line prints it without a traceback and exits with 2.

    Example:
        >>> raise UserError("--num_steps must be at least 1, received 0.")
        Traceback (most recent call last):
            ...
        esnac_tf.errors.UserError: --num_steps must be at least 1, received 0.
    """


class UnknownNameError(UserError):
    """A name that is in no list: the message offers the nearest and lists the known ones.

    Args:
        kind: What the name should have named, such as "teacher".
        name: What was received.
        known: The names that exist.
        add_in: The folder in which a new one is added.

    Example:
        >>> known = ["resnet18", "vgg16"]
        >>> raise UnknownNameError("teacher", "resnet81", known, "esnac_tf/teachers/")
        Traceback (most recent call last):
            ...
        esnac_tf.errors.UnknownNameError: Unknown teacher 'resnet81'. Did you mean 'resnet18'?
        Known: resnet18, vgg16. A new one is added in esnac_tf/teachers/.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], add_in: str) -> None:
        names = sorted(known)
        nearest = difflib.get_close_matches(name, names, n=1)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
        super().__init__(
            f"Unknown {kind} {name!r}.{hint}\n"
            f"Known: {', '.join(names)}. A new one is added in {add_in}."
        )


class MissingExtraError(UserError):
    """An optional package is needed and not installed.

    Args:
        purpose: What the package is needed for.
        package: The package that is missing.
        extra: The installation extra that brings it.

    Example:
        >>> raise MissingExtraError("--dataset=digits", "scikit-learn", "quickstart")
        Traceback (most recent call last):
            ...
        esnac_tf.errors.MissingExtraError: --dataset=digits needs the package scikit-learn.
        Install it with: pip install 'esnac-tf[quickstart]'
    """

    def __init__(self, purpose: str, package: str, extra: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package}.\n"
            f"Install it with: pip install 'esnac-tf[{extra}]'"
        )


class InfeasibleStudentError(Exception):
    """A set of actions gives no model that can be built: the trial fails, the search goes on."""
