"""Teachers from files: `.keras` and `.h5` models, loaded in safe mode."""

from __future__ import annotations

import os
import pathlib
import zipfile

import keras

from esnac_tf.errors import UserError

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def load(path: str | os.PathLike[str]) -> keras.Model:
    """Loads a Keras model from a file.

    Nothing in the file is executed: Keras's safe mode is on, so a model with a Lambda of
    Python code is refused.

    Args:
        path: A `.keras` or `.h5` file that holds a whole model.

    Returns:
        The model, not compiled.

    Raises:
        UserError: There is no such file, or it is no model that can be loaded.
    """
    path = pathlib.Path(path)
    _check_file(path)
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises whatever a layer's from_config raises.
        raise UserError(
            f"Keras can't load {path}: {_first_sentence(error)}.\n"
            "Give a whole model that this version of Keras saved, without Lambda layers."
        ) from error
    return model


def load_weights(model: keras.Model, path: str | os.PathLike[str]) -> None:
    """Loads weights into a teacher that was built by name.

    Args:
        model: The teacher.
        path: A `.weights.h5` file, or a `.keras` file of the same architecture.

    Raises:
        UserError: There is no such file, or its weights do not fit.
    """
    path = pathlib.Path(path)
    if path.name.endswith(".weights.h5"):
        _require_file(path)
        try:
            model.load_weights(path)
        except Exception as error:
            raise _unfit(model, path, _first_sentence(error)) from error
        return
    weights = load(path).get_weights()
    expected = [tuple(weight.shape) for weight in model.weights]
    received = [weight.shape for weight in weights]
    if expected != received:
        raise _unfit(model, path, "its weights have other shapes")
    model.set_weights(weights)


def _check_file(path: pathlib.Path) -> None:
    """Looks at a file before Keras does, which says "not found" to whatever it can't read."""
    if path.is_dir():
        raise UserError(
            f"{path} is a folder, expected a .keras or .h5 file.\n"
            "A SavedModel holds no Keras layers; give the file that model.save wrote."
        )
    _require_file(path)
    if path.suffix == ".keras":
        if not zipfile.is_zipfile(path):
            raise _broken(path, "it is no zip archive")
        with zipfile.ZipFile(path) as archive:
            missing = {"config.json", "model.weights.h5"} - set(archive.namelist())
        if missing:
            raise _broken(path, f"it lacks {' and '.join(sorted(missing))}")
    elif path.suffix in (".h5", ".hdf5"):
        with path.open("rb") as file:
            if file.read(len(_HDF5_SIGNATURE)) != _HDF5_SIGNATURE:
                raise _broken(path, "it is no HDF5 file")
    else:
        raise UserError(
            f"{path} is not a model file, received the suffix {path.suffix!r}.\n"
            "Give a .keras or .h5 file."
        )


def _require_file(path: pathlib.Path) -> None:
    if not path.is_file():
        raise UserError(f"There is no file {path}.\nGive the path of a .keras or .h5 file.")


def _broken(path: pathlib.Path, reason: str) -> UserError:
    return UserError(
        f"{path} is broken or no Keras model: {reason}.\nSave the model again with model.save."
    )


def _unfit(model: keras.Model, path: pathlib.Path, reason: str) -> UserError:
    return UserError(
        f"The weights in {path} do not fit teacher {model.name!r}: {reason}.\n"
        "Give weights of the same architecture, width, input shape and number of classes."
    )


def _first_sentence(error: Exception) -> str:
    """What went wrong, without Keras's advice to Python programmers."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[0].split(". ")[0].rstrip(".")[:300] if lines else ""
    return reason or type(error).__name__
