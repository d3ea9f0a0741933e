"""The format "keras": Keras 3's own file, STEM.keras.

It loads with `keras.models.load_model(path)` wherever Keras is installed, without this project,
and can be trained on. It holds the architecture and each weight once: what `compile` added (the
optimizer with its state, the losses, which may be somebody's own classes) stays out.
"""

from __future__ import annotations

import pathlib

import keras

from esnac_tf.files import replacing


def export(model: keras.Model, path_stem: pathlib.Path) -> pathlib.Path:
    """Writes STEM.keras.

    Args:
        model: A Functional or Sequential model that is built.
        path_stem: Where to write, without the suffix.

    Returns:
        The path of the file.

    Raises:
        UserError: If the file cannot be written.

    Example:
        >>> import tempfile
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        >>> path = export(model, pathlib.Path(tempfile.mkdtemp()) / "student")
        >>> path.name
        'student.keras'
        >>> keras.models.load_model(path).count_params()
        8
    """
    target = path_stem.with_name(path_stem.name + ".keras")
    with replacing(target) as path:
        _uncompiled(model).save(path)
    return target


def _uncompiled(model: keras.Model) -> keras.Model:
    """The model without what `compile` added; layers and weights are shared, not copied."""
    if not model.compiled:
        return model
    if isinstance(model, keras.Sequential):
        return keras.Model(model.inputs, model.outputs, name=model.name)
    return keras.Model(model.input, model.output, name=model.name)
