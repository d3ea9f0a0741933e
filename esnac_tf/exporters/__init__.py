"""Formats in which a student leaves the project, one file a format.

A format's name, in `--export`, is the name of its file in this folder. A new format is
one new file with one public function:

    def export(model: keras.Model, path_stem: pathlib.Path) -> pathlib.Path

which writes the model beside `path_stem` with a suffix of its own and returns the path written.
It writes inside `esnac_tf.files.replacing`, so that a reader only ever sees a whole file. The
contract test `tests/exporters/test_exporters.py` runs over every file of this folder.

Importing this package imports no TensorFlow, so that a wrong name is told at once.
"""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Protocol, cast

from esnac_tf.families import Family

if TYPE_CHECKING:
    from keras import Model

__all__ = ["FAMILY", "Exporter", "get", "names"]

FAMILY = Family("export format", __name__)


class Exporter(Protocol):
    """What every module of this folder offers."""

    def export(self, model: Model, path_stem: pathlib.Path) -> pathlib.Path:
        """Writes a model in inference mode.

        Args:
            model: A Functional or Sequential model that is built.
            path_stem: Where to write, without the suffix: "runs/a/students/1" becomes
                "runs/a/students/1.keras" and the like. Missing parent folders are made; what an
                earlier export left under the same name is replaced.

        Returns:
            The path of the file or folder written.

        Raises:
            UserError: If the path cannot be written, or the format cannot hold this model.
        """


def names() -> list[str]:
    """The names of all export formats, sorted.

    Example:
        >>> "keras" in names()
        True
    """
    return FAMILY.names()


def get(name: str) -> Exporter:
    """The exporter of a format.

    Args:
        name: One of `names()`.

    Returns:
        A module with the function `export(model, path_stem)`.

    Raises:
        UnknownNameError: If there is no such format.

    Example:
        >>> get("saved_model").__name__
        'esnac_tf.exporters.saved_model'
        >>> get("paper")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        esnac_tf.errors.UnknownNameError: Unknown export format 'paper'.
        Known: ... A new one is added in esnac_tf/exporters/.
    """
    return cast(Exporter, FAMILY.module(name))
