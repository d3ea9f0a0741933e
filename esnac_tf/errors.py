"""Errors that a user can cause, each told in one or two lines."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

# What Keras and TensorFlow tell around the reason of an error.
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_TRACEBACK = re.compile(r'^ *File ".*", line \d+.*\n(?: +.*\n)*\n*', re.MULTILINE)
_CALL_OF_LAYER = re.compile(r"Exception encountered(?: when calling .*\.call\(\)\.|:)\s")
_FIRST_OF_SEVERAL = re.compile(r"^ *\(0\) [A-Za-z_ ]+: *(.*)", re.MULTILINE)
_HEADERS = re.compile(
    r"^(?:Graph execution error:|Detected at node .*|<stack traces unavailable>|in user code:)$",
    re.MULTILINE,
)
_NODES = re.compile(r" for '\{\{node [^']*'|\n\t \[\[.*\]\]|\{\{.*?\}\}|\[Op:[^\]]*\](?: name:)?")
_HINTS = re.compile(
    r"Arguments received by |Call arguments received by |Hint: If you want to see|Traceback \(most"
)
_MAX_REASON = 250


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
        Install it: pip install scikit-learn, or in a checkout pip install '.[quickstart]'
    """

    def __init__(self, purpose: str, package: str, extra: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package}.\n"
            f"Install it: pip install {package}, or in a checkout pip install '.[{extra}]'"
        )


def error_reason(error: BaseException) -> str:
    r"""Returns why something failed, in one line of at most 250 characters.

    It leaves out what Keras and TensorFlow tell around it: tracebacks, names of nodes and
    devices, and the arguments of a call.

    Args:
        error: Any exception.

    Returns:
        The reason, without the class of the exception or a full stop; else the class alone.

    Example:
        >>> error_reason(ValueError("{{function_node Sub}} No [8] vs. [9] [Op:Sub] name: "))
        'No [8] vs. [9]'
        >>> error_reason(KeyError())
        'KeyError'
    """
    text = _COLOUR.sub("", str(error))
    told = _HINTS.split(text)[0] or text
    for before in (_TRACEBACK, _CALL_OF_LAYER):
        told = before.split(told)[-1] or told
    first = _FIRST_OF_SEVERAL.search(told)
    told = _NODES.sub("", _HEADERS.sub("", first[1] if first else told))
    line = " ".join(told.split()).removeprefix(f"{type(error).__name__}: ")
    line = line.rstrip(".") or type(error).__name__
    return line if len(line) <= _MAX_REASON else line[: _MAX_REASON - 3] + "..."


class InfeasibleStudentError(Exception):
    """A set of actions gives no model that can be built: the trial fails, the search goes on."""
