"""The format "saved_model": TensorFlow's folder STEM_saved_model, for serving.

It loads with `tf.saved_model.load(path)` wherever TensorFlow is installed, without Keras and
without this project, and holds:

- `serve(inputs)`: the model in inference mode. One input is given as a tensor, several as a dict
  by input name; the outputs have the structure of the model's. The batch size is free.
- the signature "serving_default": the same with a flat dict of outputs, named by their keys, or
  "output_0", "output_1", ... where the model has a single output or a list of them.

Every weight is written once (`keras.Model.export` of Keras 3.15 writes it twice).
Keep the loaded object alive while you call its functions.
"""

from __future__ import annotations

import contextlib
import logging
import pathlib
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from esnac_tf.errors import UserError
from esnac_tf.files import replacing


def export(model: keras.Model, path_stem: pathlib.Path) -> pathlib.Path:
    """Writes the folder STEM_saved_model.

    Args:
        model: A Functional or Sequential model that is built.
        path_stem: Where to write, without the suffix.

    Returns:
        The path of the folder.

    Raises:
        UserError: If the folder cannot be written, if another folder that is no SavedModel has
            its name, or if the model has no fixed inputs.

    Example:
        >>> import tempfile
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        >>> path = export(model, pathlib.Path(tempfile.mkdtemp()) / "student")
        >>> path.name
        'student_saved_model'
        >>> loaded = tf.saved_model.load(str(path))
        >>> loaded.serve(tf.zeros([5, 3])).shape
        TensorShape([5, 2])
    """
    target = path_stem.with_name(path_stem.name + "_saved_model")
    if target.is_dir() and any(target.iterdir()) and not (target / "saved_model.pb").is_file():
        raise UserError(
            f"Cannot write {target}: there is a folder of this name that is no SavedModel.\n"
            "Move it away, or choose another folder."
        )
    with replacing(target) as path:
        write(model, path)
    return target


def write(model: keras.Model, folder: pathlib.Path) -> None:
    """Writes a SavedModel into a new folder, without the care that `export` takes.

    Args:
        model: A Functional or Sequential model that is built.
        folder: The folder to write.

    Raises:
        UserError: If the model has no fixed inputs.
        OSError: If the folder cannot be written.
    """
    module = tf.Module()
    module.model_variables = [variable.value for variable in model.variables]
    module.tables = [  # of layers that look words up
        node
        for node in tf.train.TrackableView(model).descendants()
        if isinstance(node, tf.saved_model.experimental.TrackableResource)
    ]
    module.serve = _serving_function(model)

    @tf.function(input_signature=module.serve.input_signature, autograph=False)
    def serving_default(inputs: Any) -> dict[str, tf.Tensor]:
        return _flat(module.serve(inputs))

    try:
        with _without_name_warnings():
            tf.saved_model.save(module, str(folder), signatures=serving_default)
    except (
        tf.errors.ResourceExhaustedError,
        tf.errors.PermissionDeniedError,
        tf.errors.UnknownError,
        tf.errors.InternalError,
    ) as error:
        # TensorFlow's file layer has its own exceptions: "{{...}} PATH; REASON [Op:...]".
        reason = error.message.splitlines()[0].split("; ")[-1].split(" [Op:")[0]
        raise OSError(reason) from error


def _serving_function(model: keras.Model) -> Any:
    """The model in inference mode as a `tf.function` with a fixed signature."""
    inputs = getattr(model, "inputs", None)
    if not inputs:
        raise UserError(
            f"The model {model.name!r} cannot be exported: it has no fixed inputs.\n"
            "Expected a Functional model, or a Sequential model that is built."
        )
    specs = {
        tensor.name: tf.TensorSpec(tensor.shape, tensor.dtype, tensor.name) for tensor in inputs
    }
    if len(inputs) == 1:
        (signature,) = specs.values()
    else:
        signature = specs
    # A Sequential model has `inputs`, a list of one, and no `input` before it is called.
    structure = inputs[0] if isinstance(model, keras.Sequential) else model.input

    @tf.function(input_signature=[signature], autograph=False)
    def serve(inputs: Any) -> Any:
        by_name = inputs if isinstance(inputs, dict) else dict.fromkeys(specs, inputs)
        arranged = keras.tree.map_structure(lambda tensor: by_name[tensor.name], structure)
        return model(arranged, training=False)

    return serve


def _flat(outputs: Any) -> dict[str, tf.Tensor]:
    """Outputs by name: their path in a nested structure, a position written "output_1"."""
    if not keras.tree.is_nested(outputs):
        return {"output_0": outputs}
    return {
        "_".join(f"output_{key}" if isinstance(key, int) else str(key) for key in path): tensor
        for path, tensor in keras.tree.flatten_with_path(outputs)
    }


@contextlib.contextmanager
def _without_name_warnings() -> Iterator[None]:
    """Drops the warning, repeated at every trace, that "image-1" is no parameter name in Python."""

    def keep(record: logging.LogRecord) -> bool:
        return "is not a valid tf.function parameter name" not in record.getMessage()

    logger = logging.getLogger("absl")
    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)
