"""Teachers by name: one file a family, each with a function for every member.

A teacher is written as its name, or its name with arguments: `resnet18(width=16)`.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from esnac_tf.errors import UnknownNameError, UserError

if TYPE_CHECKING:
    import keras

# (mean, standard deviation) of each channel of the input.
Normalization = tuple[Sequence[float], Sequence[float]]


def names() -> list[str]:
    """All teachers that can be built by name.

    Example:
        >>> "resnet18" in names()
        True
    """
    return sorted(_families())


def parse_name(text: str) -> tuple[str, dict[str, int]]:
    """Splits a teacher as the user writes it into its name and its arguments.

    Raises:
        UserError: It can't be read.
        UnknownNameError: There is no such teacher.

    Example:
        >>> parse_name("resnet18(width=16)")
        ('resnet18', {'width': 16})
    """
    try:
        expression = ast.parse(text.strip(), mode="eval").body
        if isinstance(expression, ast.Name):
            name, arguments = expression.id, {}
        elif isinstance(expression, ast.Call) and isinstance(expression.func, ast.Name):
            name = expression.func.id
            arguments = {
                str(keyword.arg): ast.literal_eval(keyword.value) for keyword in expression.keywords
            }
            if expression.args or len(arguments) < len(expression.keywords):
                raise ValueError("an argument without a name, or twice")
        else:
            raise ValueError("neither a name nor a call")
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        raise _unreadable(text) from None
    if name not in _families():
        raise UnknownNameError("teacher", name, names(), "esnac_tf/teachers/")
    if set(arguments) - {"width"} or not all(
        type(value) is int and value >= 1 for value in arguments.values()
    ):
        raise UserError(
            f"Teacher {text!r} has an argument that is not known or out of range.\n"
            "Known: width, the number of channels of the first stage, a whole number from 1."
        )
    return name, arguments


def build(
    text: str,
    input_shape: tuple[int, ...],
    num_classes: int,
    normalization: Normalization | None = None,
) -> keras.Model:
    """Builds a teacher with fresh weights.

    Args:
        text: Its name, or its name with arguments, such as "resnet18(width=16)".
        input_shape: (height, width, channels) of a picture.
        num_classes: C, the number of logits.
        normalization: Mean and standard deviation of each channel, in the units of the
            pictures; they become a `Normalization` layer, so that the model takes raw
            pictures. None leaves the layer out.

    Returns:
        A functional model from pictures [B, height, width, channels] to logits [B, C].

    Raises:
        UserError: The name can't be read, or the pictures are too small for the teacher.
        UnknownNameError: There is no such teacher.
    """
    name, arguments = parse_name(text)
    if len(input_shape) != 3:
        raise UserError(
            f"Teacher {name!r} takes pictures of shape (height, width, channels), received "
            f"examples of shape {tuple(input_shape)}.\n"
            "Give such a data set, or a Keras model of your own as --teacher."
        )
    module = importlib.import_module(f"{__name__}.{_families()[name]}")
    builder: Any = getattr(module, name)
    return builder(tuple(input_shape), num_classes, normalization=normalization, **arguments)


def _families() -> dict[str, str]:
    """Each teacher's module, read from the source so that TensorFlow is not imported."""
    found = {}
    for module_info in pkgutil.iter_modules(__path__):
        if module_info.name in ("blocks", "loading"):
            continue
        spec = module_info.module_finder.find_spec(module_info.name, None)
        source = spec.loader.get_source(module_info.name)  # type: ignore[union-attr]
        for statement in ast.parse(source).body:
            if isinstance(statement, ast.FunctionDef) and not statement.name.startswith("_"):
                found[statement.name] = module_info.name
    return found


def _unreadable(text: str) -> UserError:
    return UserError(
        f"Can't read the teacher {text!r}.\n"
        "Give a name, a name with arguments such as 'resnet18(width=16)', or the path of a "
        ".keras or .h5 file."
    )
