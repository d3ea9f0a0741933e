"""Teachers from files: `.keras` and `.h5` models, which may come from anywhere."""

from __future__ import annotations

import json
import os
import pathlib
import re
import tempfile
import warnings
import zipfile
import zlib
from typing import Any

import h5py
import keras

from esnac_tf.errors import UserError

_HDF5_SUFFIXES = (".h5", ".hdf5")

# What an honest file is far from: the configuration of a large network is a few MB, and weights
# are hardly compressed.
_MAX_CONFIG_BYTES = 64 * 2**20
_MAX_EXPANSION = 100

# What runs code or a graph from the file, by its class name in the configuration.
_REFUSED_CLASSES = {
    "Lambda": "a Lambda layer",
    "TFSMLayer": "a TFSMLayer layer",
    "TorchModuleWrapper": "a TorchModuleWrapper layer",
    "__lambda__": "a Python lambda",
}

# What h5py raises on damaged files.
_HDF5_ERRORS = (OSError, RuntimeError, LookupError, TypeError, ValueError)


def load(
    path: str | os.PathLike[str], *, compiled: bool = False, trusted: bool = False
) -> keras.Model:
    """Loads a Keras model from a file.

    Keras's safe mode is on. These are refused before Keras builds anything: a configuration of
    more than 64 MiB, and Lambda, TFSMLayer and TorchModuleWrapper layers, which run what the file
    brings; of a `.keras` file also members that lie outside the archive by their names, and
    contents of more than 100 times the file's size. Keras itself refuses links to other files in
    an `.h5` file. That is a mitigation, not a wall: safe mode had holes before. Load a file from
    someone you don't trust where it can do no harm. Layers of the user's own are found if they are
    registered (`keras.saving.register_keras_serializable`) before.

    Args:
        path: A `.keras` or `.h5` file that holds a whole model.
        compiled: Whether the model is compiled as the file says.
        trusted: Whether layers that run what the file brings are loaded: safe mode is off.

    Returns:
        The model.

    Raises:
        UserError: There is no such file, it is no model that can be loaded, or it is refused.

    Example:
        >>> load("missing.keras")
        Traceback (most recent call last):
            ...
        esnac_tf.errors.UserError: There is no file missing.keras.
        Give the path of a .keras or .h5 file.
    """
    path = pathlib.Path(path)
    _check_file(path)
    text = _config_text(path)
    if text is None:
        raise UserError(
            f"{path} holds weights without a model.\n"
            "Give the file that model.save('model.keras') writes, or the teacher's name and these "
            f"weights: --teacher=NAME --teacher_weights={path}."
        )
    _check_config(path, text, trusted)
    try:
        with warnings.catch_warnings():
            # One of the optimizer's state, where the model was compiled and never trained.
            warnings.simplefilter("ignore")
            model = keras.saving.load_model(path, compile=compiled, safe_mode=not trusted)
    except Exception as error:  # Keras raises whatever a layer's from_config raises.
        raise UserError(
            f"Keras can't load {path}: {_first_sentence(error)}.\n"
            "Classes and functions of your own are found if --custom_objects=MODULE names the "
            "module that registers them (keras.saving.register_keras_serializable); else save the "
            "model again with this version."
        ) from error
    return model


def content_of(model: keras.Model) -> bytes:
    """The content of the `.keras` file of a model."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "teacher.keras"
        model.save(path)
        return path.read_bytes()


def model_of(content: bytes, compiled: bool = False) -> keras.Model:
    """The model of what `content_of` gave; not for files of others, as safe mode is off."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "teacher.keras"
        path.write_bytes(content)
        return keras.saving.load_model(path, compile=compiled, safe_mode=False)


def load_weights(model: keras.Model, path: str | os.PathLike[str]) -> None:
    """Loads weights into a teacher that was built by name.

    Args:
        model: The teacher.
        path: A `.weights.h5` file, or a `.keras` or `.h5` file of the same architecture.

    Raises:
        UserError: There is no such file, or its weights do not fit.
    """
    path = pathlib.Path(path)
    _check_file(path)
    if _config_text(path) is None:
        try:
            # A warning for each container of layers beside the error, when the file is another's.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
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
    if not path.is_file():
        raise UserError(f"There is no file {path}.\nGive the path of a .keras or .h5 file.")
    if path.suffix not in (".keras", *_HDF5_SUFFIXES):
        raise UserError(
            f"{path} is not a model file, received the suffix {path.suffix!r}.\n"
            "Give a .keras or .h5 file."
        )
    if path.stat().st_size == 0:
        raise _broken(path, "it is empty")


def _config_text(path: pathlib.Path) -> str | bytes | None:
    """The configuration of the model in a file, as JSON; None if the file holds only weights."""
    return _hdf5_config(path) if path.suffix in _HDF5_SUFFIXES else _archive_config(path)


def _hdf5_config(path: pathlib.Path) -> str | bytes | None:
    """The configuration in an `.h5` file, as JSON; None if the file holds only weights."""
    if not h5py.is_hdf5(path):
        raise _broken(path, "it is no HDF5 file")
    try:
        with h5py.File(path, "r") as file:
            text = file.attrs.get("model_config")
            # Where Keras 2, Keras 3 (of a subclassed model only "vars") and the first releases
            # of Keras 3 put weights.
            has_weights = "layer_names" in file.attrs or any(
                name in file for name in ("vars", "layers", "_layer_checkpoint_dependencies")
            )
    except _HDF5_ERRORS as error:
        raise _broken(path, "it is truncated or damaged") from error
    if text is None and has_weights:
        return None
    if not isinstance(text, (str, bytes)):
        raise _broken(path, "it holds no model")
    if len(text) > _MAX_CONFIG_BYTES:
        raise _refused(path, f"its configuration has more than {_MAX_CONFIG_BYTES >> 20} MiB")
    return text


def _archive_config(path: pathlib.Path) -> bytes:
    """The configuration in a `.keras` file, as JSON, after a look at the file's members."""
    if not zipfile.is_zipfile(path):
        raise _broken(path, "it is no zip archive")
    try:
        with zipfile.ZipFile(path) as archive:
            missing = {"config.json", "model.weights.h5"} - set(archive.namelist())
            if missing:
                raise _broken(path, f"it lacks {' and '.join(sorted(missing))}")
            reason = _implausible(archive.infolist(), path.stat().st_size)
            if reason:
                raise _refused(path, reason)
            return archive.read("config.json")
    except UserError:
        raise
    except (OSError, EOFError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise _broken(path, _first_sentence(error)) from error


def _check_config(path: pathlib.Path, text: str | bytes, trusted: bool) -> None:
    """Refuses code in a model's configuration if not trusted, and a model that has no graph."""
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _broken(path, f"its configuration is no JSON, {_first_sentence(error)}") from error
    refused = sorted(_class_names(config).intersection(_REFUSED_CLASSES))
    if refused and not trusted:
        raise UserError(
            f"{path} has {_REFUSED_CLASSES[refused[0]]}, which runs what the file brings, and is "
            "refused.\nGive --trust_teacher if the file is your own, or a model without Lambda "
            "layers and their like; keras.ops can do what they did."
        )
    if not isinstance(config, dict) or "class_name" not in config:
        raise _broken(path, "its configuration is not a model's")
    if isinstance(config.get("config"), dict) and "layers" not in config["config"]:
        raise UserError(
            f"{path} holds a subclassed model (class {config['class_name']!r}), which has no graph "
            "to search.\nMake it functional and save that: inputs = keras.Input(shape); "
            "keras.Model(inputs, model.call(inputs)).save('model.keras')."
        )


def _implausible(members: list[zipfile.ZipInfo], file_bytes: int) -> str:
    """Why members of these names and sizes are in no file that Keras writes; else nothing."""
    for member in members:
        name = member.filename
        if re.match(r"[/\\]|[A-Za-z]:", name) or ".." in re.split(r"[/\\]", name):
            return f"its member {name!r} lies outside the archive"
        if name == "config.json" and member.file_size > _MAX_CONFIG_BYTES:
            return f"its config.json has more than {_MAX_CONFIG_BYTES >> 20} MiB"
    if sum(member.file_size for member in members) > _MAX_EXPANSION * file_bytes:
        return f"its contents have more than {_MAX_EXPANSION} times the size of the file"
    return ""


def _class_names(config: Any) -> set[str]:
    """All class names in a model's configuration, without the modules before them."""
    names: set[str] = set()
    remaining = [config]
    while remaining:
        value = remaining.pop()
        if isinstance(value, dict):
            told = (value.get("class_name"), value.get("registered_name"))
            names.update(re.split("[.>]", name)[-1] for name in told if isinstance(name, str))
            remaining.extend(value.values())
        elif isinstance(value, list):
            remaining.extend(value)
    return names


def _refused(path: pathlib.Path, reason: str) -> UserError:
    return UserError(f"{path} is refused: {reason}.\nGive a file that model.save wrote.")


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
    # Keras prints whole configurations before the reason, and Python objects behind it.
    text = str(error).rpartition("Exception encountered: ")[2]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    reason = re.split(r"\. |: [{[<]", lines[0])[0].rstrip(".")[:200] if lines else ""
    return reason or type(error).__name__
