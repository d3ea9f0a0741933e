"""The format "litert": a file STEM.tflite for phones and small devices, in float32.

TensorFlow alone converts: this format needs no extra. To *run* the file, on a machine without
TensorFlow too, install ai-edge-litert (`pip install ai-edge-litert`; the extra `litert` of this
project brings it):

    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter("student.tflite")
    runner = interpreter.get_signature_runner("serving_default")
    outputs = runner(image=images)

Inputs and outputs have the names of the format "saved_model"; one input alone is called by its
own name too. The batch size is free.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import sys
import tempfile
from collections.abc import Iterator

import keras
import tensorflow as tf

from esnac_tf.errors import UserError
from esnac_tf.exporters import saved_model
from esnac_tf.files import replacing


def export(model: keras.Model, path_stem: pathlib.Path) -> pathlib.Path:
    """Writes STEM.tflite.

    Args:
        model: A Functional or Sequential model that is built.
        path_stem: Where to write, without the suffix.

    Returns:
        The path of the file.

    Raises:
        UserError: If the file cannot be written, or LiteRT lacks an operation of the model.

    Example:
        >>> import tempfile
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        >>> path = export(model, pathlib.Path(tempfile.mkdtemp()) / "student")
        >>> path.name
        'student.tflite'
    """
    target = path_stem.with_name(path_stem.name + ".tflite")
    with replacing(target) as path:
        folder = path.parent / "saved_model"
        saved_model.write(model, folder)
        path.write_bytes(_convert(folder, model.name))
    return target


def _convert(folder: pathlib.Path, model_name: str) -> bytes:
    converter = tf.lite.TFLiteConverter.from_saved_model(
        str(folder), signature_keys=["serving_default"]
    )
    try:
        with _without_native_chatter():
            return converter.convert()
    # The converter's own exception is no public name; it tells of all that it cannot convert.
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"The model {model_name!r} cannot be exported as litert: {reason}\n"
            "LiteRT lacks one of its operations; export it as saved_model or keras."
        ) from error


@contextlib.contextmanager
def _without_native_chatter() -> Iterator[None]:
    """Sends what native code writes to the standard error away.

    The converter reports a dozen lines there that concern nobody, past Python and its logging.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with tempfile.TemporaryFile() as away:
            os.dup2(away.fileno(), 2)
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
