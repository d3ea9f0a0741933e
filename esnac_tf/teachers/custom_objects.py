"""Layers, losses and functions of the user's own, which a teacher's file only names."""

from __future__ import annotations

import importlib
from collections.abc import Iterable

from esnac_tf.errors import UserError, error_reason


def import_modules(names: Iterable[str]) -> None:
    """Imports modules that register what is in a file.

    They do so by `keras.saving.register_keras_serializable`.

    Args:
        names: The modules, as an import has them.

    Raises:
        UserError: One can't be imported.

    Example:
        >>> import_modules(["no_such_module"])
        Traceback (most recent call last):
            ...
        esnac_tf.errors.UserError: --custom_objects: can't import 'no_such_module': \
ModuleNotFoundError: No module named 'no_such_module'.
        Give modules as an import has them, without .py, from this folder or installed.
    """
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:  # whatever the module raises
            raise UserError(
                f"--custom_objects: can't import {name!r}: {type(error).__name__}: "
                f"{error_reason(error)}.\n"
                "Give modules as an import has them, without .py, from this folder or installed."
            ) from error
