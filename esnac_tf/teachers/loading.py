"""Teachers from files: `.keras` and `.h5` models, which may come from anywhere."""

from __future__ import annotations

import json
import os
import pathlib
import re
import zipfile
import zlib
from typing import Any

import keras

from esnac_tf.errors import UserError

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"

# What an honest file is far from: the configuration of a large network is a few MB, and weights
# are hardly compressed.
_MAX_CONFIG_BYTES = 64 * 2**20
_MAX_EXPANSION = 100

# Layers that run code or a graph from the file.
_REFUSED_CLASSES = ("Lambda", "TFSMLayer")


def load(path: str | os.PathLike[str]) -> keras.Model:
    """Loads a Keras model from a file.

    Keras's safe mode is on. Of a `.keras` file these are refused before Keras reads it: members
    that lie outside the archive by their names, a configuration of more than 64 MiB, contents of
    more than 100 times the file's size, and Lambda and TFSMLayer layers, which run what the file
    brings. That is a mitigation, not a wall: safe mode had holes before. Load a file from someone
    you don't trust where it can do no harm.

    Args:
        path: A `.keras` or `.h5` file that holds a whole model.

    Returns:
        The model, not compiled.

    Raises:
        UserError: There is no such file, it is no model that can be loaded, or it is refused.
    """
    path = pathlib.Path(path)
    _check_file(path)
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises whatever a layer's from_config raises.
        raise UserError(
            f"Keras can't load {path}: {_first_sentence(error)}.\n"
            "Give a whole functional model of Keras's own layers, saved by model.save in this "
            "version; with layers of your own call esnac_tf.compress from Python."
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
        _check_archive(path)
    elif path.suffix in (".h5", ".hdf5"):
        with path.open("rb") as file:
            if file.read(len(_HDF5_SIGNATURE)) != _HDF5_SIGNATURE:
                raise _broken(path, "it is no HDF5 file")
    else:
        raise UserError(
            f"{path} is not a model file, received the suffix {path.suffix!r}.\n"
            "Give a .keras or .h5 file."
        )


def _check_archive(path: pathlib.Path) -> None:
    """Looks at the members of a `.keras` file and at the classes it names."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            missing = {"config.json", "model.weights.h5"} - set(archive.namelist())
            reason = _implausible(members, path.stat().st_size)
            content = b"{}" if missing or reason else archive.read("config.json")
        config = json.loads(content)
    except (OSError, EOFError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise _broken(path, _first_sentence(error)) from error
    if missing:
        raise _broken(path, f"it lacks {' and '.join(sorted(missing))}")
    if reason:
        raise UserError(f"{path} is refused: {reason}.\nGive a file that model.save wrote.")
    refused = sorted(_class_names(config).intersection(_REFUSED_CLASSES))
    if refused:
        raise UserError(
            f"{path} has a {refused[0]} layer, which runs what the file brings, and is refused.\n"
            "Give a model without Lambda and TFSMLayer layers, with keras.ops in their place."
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
