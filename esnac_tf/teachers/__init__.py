"""Teachers by name: one file a family, each with a function for every member.

A teacher is written as its name, or its name with arguments: `resnet18(width=16)`. The models of
`keras.applications` are teachers, too: `keras.applications.MobileNetV2(alpha=0.35)`.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from esnac_tf.errors import UnknownNameError, UserError

if TYPE_CHECKING:
    import keras

# (mean, standard deviation) of each channel of the input.
Normalization = tuple[Sequence[float], Sequence[float]]

_APPLICATIONS = "keras.applications."
# Modules of this folder that hold no teachers by name.
_NO_FAMILIES = ("applications", "blocks", "custom_objects", "loading")


def names() -> list[str]:
    """All teachers that can be built by name.

    Example:
        >>> "resnet18" in names()
        True
    """
    return sorted(_families())


def parse_name(text: str) -> tuple[str, dict[str, Any]]:
    """Splits a teacher as the user writes it into its name and its arguments.

    Whether there is such a model in `keras.applications`, only `check` tells.

    Raises:
        UserError: It can't be read.
        UnknownNameError: There is no such teacher.

    Example:
        >>> parse_name("resnet18(width=16)")
        ('resnet18', {'width': 16})
        >>> parse_name("keras.applications.MobileNetV2(alpha=0.35)")
        ('keras.applications.MobileNetV2', {'alpha': 0.35})
    """
    try:
        expression = ast.parse(text.strip(), mode="eval").body
        arguments: dict[str, Any] = {}
        if isinstance(expression, ast.Call):
            arguments = {
                str(keyword.arg): ast.literal_eval(keyword.value) for keyword in expression.keywords
            }
            if expression.args or len(arguments) < len(expression.keywords):
                raise ValueError("an argument without a name, or twice")
            expression = expression.func
        name = ast.unparse(expression)
        if not isinstance(expression, ast.Name) and not is_application(name):
            raise ValueError("neither a name nor a call")
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        raise _unreadable(text) from None
    if is_application(name):
        return name, arguments
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


def is_application(text: str) -> bool:
    """Whether this is meant to be a model of `keras.applications`, with arguments or without.

    Example:
        >>> is_application("keras.applications.MobileNetV2"), is_application("resnet18")
        (True, False)
    """
    return bool(re.match(r"keras\.applications\.\w+($|\()", text.strip()))


def check(text: str) -> None:
    """Raises what `build` would raise of the name and the arguments alone.

    Raises:
        UserError: As `parse_name`; or `keras.applications` has no such model or argument.
    """
    name, arguments = parse_name(text)
    if is_application(name):
        from esnac_tf.teachers import applications

        applications.check(name.removeprefix(_APPLICATIONS), arguments)


def build(
    text: str,
    input_shape: tuple[int, ...],
    num_classes: int,
    normalization: Normalization | None = None,
    weights: str | None = None,
) -> keras.Model:
    """Builds a teacher, with fresh weights unless it is one of `keras.applications`.

    Args:
        text: Its name, or its name with arguments, such as "resnet18(width=16)".
        input_shape: (height, width, channels) of a picture.
        num_classes: C, the number of logits.
        normalization: Mean and standard deviation of each channel, in the units of the
            pictures; they become a `Normalization` layer, so that the model takes raw
            pictures. None leaves the layer out.
        weights: None, or "imagenet" for a model of `keras.applications`
            (`esnac_tf.teachers.applications.build`).

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
    if is_application(name):
        from esnac_tf.teachers import applications

        function = name.removeprefix(_APPLICATIONS)
        return applications.build(
            function, arguments, tuple(input_shape), num_classes, normalization, weights
        )
    module = importlib.import_module(f"{__name__}.{_families()[name]}")
    builder: Any = getattr(module, name)
    return builder(tuple(input_shape), num_classes, normalization=normalization, **arguments)


def _families() -> dict[str, str]:
    """Each teacher's module, read from the source so that TensorFlow is not imported."""
    found = {}
    for module_info in pkgutil.iter_modules(__path__):
        if module_info.name in _NO_FAMILIES:
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
        "Give a name, a name with arguments such as 'resnet18(width=16)' or "
        "'keras.applications.MobileNetV2(alpha=0.35)', or the path of a .keras or .h5 file."
    )
