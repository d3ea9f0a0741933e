"""Teachers from files, and what stands in the place of a good file."""

import json
import zipfile

import keras
import numpy as np
import pytest
import toy

from esnac_tf.errors import UserError
from esnac_tf.teachers.loading import load, load_weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a whole model in each format, and its weights."""
    path = tmp_path_factory.mktemp("models")
    model = toy.teacher()
    model.save(path / "model.keras")
    model.save_weights(path / "model.weights.h5")
    # Keras writes .h5 with a warning on the output; the format is what old models come in.
    model.save(path / "model.h5")
    return path


def same(model, other):
    outputs = [m(toy.TEST[0], training=False) for m in (model, other)]
    np.testing.assert_allclose(*outputs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_a_model_is_loaded_uncompiled(folder, name):
    model = load(folder / name)
    same(model, toy.teacher())
    assert not model.compiled
    same(load(str(folder / name)), model)


@pytest.mark.parametrize("name", ["model.keras", "model.weights.h5"])
def test_weights_are_loaded_into_a_model(folder, name):
    model = toy.untrained()
    load_weights(model, folder / name)
    same(model, toy.teacher())


def told(function, *arguments):
    with pytest.raises(UserError) as caught:
        function(*arguments)
    text = str(caught.value)
    assert len(text.splitlines()) == 2, text
    return text


LAYERS = {
    "custom.keras": {
        "module": "my.package", "class_name": "MyLayer", "registered_name": "my>MyLayer",
    },
    "module.keras": {"module": "keras", "class_name": "layers.Lambda"},
    "tfsm.keras": {"class_name": "TFSMLayer"},
}  # fmt: skip
MEMBERS = {
    "absolute.keras": ("/etc/cron.d/job", 1),
    "parent.keras": ("assets/../../job", 1),
    "bomb.keras": ("assets/zeros", 20 * 2**20),
    "config_bomb.keras": ("config.json", 65 * 2**20),
}


def changed(source, target, members):
    """Copies an archive, compressed, with some members added or replaced."""
    with (
        zipfile.ZipFile(source) as old,
        zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        kept = {name: old.read(name) for name in old.namelist()}
        for name, content in {**kept, **members}.items():
            new.writestr(name, content)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("missing.keras", "no file"),
        ("folder.keras", "is a folder"),
        ("text.keras", "no zip archive"),
        ("empty.keras", "no zip archive"),
        ("short.keras", "broken"),
        ("other.keras", "lacks config.json and model.weights.h5"),
        ("garbage.keras", "can't load"),
        ("text.h5", "no HDF5 file"),
        ("short.h5", "can't load"),
        ("model.weights.h5", "can't load"),
        ("model.onnx", "suffix '.onnx'"),
        ("directory.keras", "broken"),
        ("data.keras", "broken"),
        ("json.keras", "broken"),
        ("lambda.keras", "has a Lambda layer"),
        ("module.keras", "has a Lambda layer"),
        ("tfsm.keras", "has a TFSMLayer layer"),
        ("absolute.keras", "'/etc/cron.d/job' lies outside the archive"),
        ("parent.keras", "lies outside the archive"),
        ("bomb.keras", "more than 100 times the size of the file"),
        ("config_bomb.keras", "config.json has more than 64 MiB"),
        ("custom.keras", "can't load"),
    ],
)
def test_what_is_no_model_is_told(folder, tmp_path, name, expected):
    path = tmp_path / name
    whole = (folder / "model.keras").read_bytes()
    if name == "folder.keras":
        path.mkdir()
    elif name == "short.keras":
        path.write_bytes(whole[: len(whole) // 2])
    elif name == "short.h5":
        path.write_bytes((folder / "model.h5").read_bytes()[:3000])
    elif name == "model.weights.h5":
        path = folder / name
    elif name in ("other.keras", "garbage.keras"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("readme.txt", "hello")
            if name == "garbage.keras":
                archive.writestr("config.json", "{}")
                archive.writestr("model.weights.h5", b"no HDF5")
    elif name == "lambda.keras":
        inputs = keras.Input((8,))
        hidden = keras.layers.Lambda(lambda x: x * 2)(inputs)
        keras.Model(inputs, keras.layers.Dense(3)(hidden)).save(path)
    elif name == "directory.keras":  # the end of the archive is there, its list of members not
        position = whole.index(b"PK\x01\x02")
        path.write_bytes(whole[:position] + b"XX" + whole[position + 2 :])
    elif name == "data.keras":
        position = whole.index(b'"class_name"')
        path.write_bytes(whole[:position] + b"?" + whole[position + 1 :])
    elif name == "json.keras":
        changed(folder / "model.keras", path, {"config.json": "[" * 100_000})
    elif name in LAYERS:
        config = json.loads(zipfile.ZipFile(folder / "model.keras").read("config.json"))
        config["config"]["layers"][1].update(LAYERS[name])
        changed(folder / "model.keras", path, {"config.json": json.dumps(config)})
    elif name in MEMBERS:
        member, size = MEMBERS[name]
        changed(folder / "model.keras", path, {member: b" " * size})
    elif name != "missing.keras":
        path.write_bytes(b"" if name == "empty.keras" else b"hello\n" * 100)
    assert expected in told(load, path)


def test_weights_that_do_not_fit_are_told(folder, tmp_path):
    inputs = keras.Input((8,))
    other = keras.Model(inputs, keras.layers.Dense(2)(inputs), name="other")
    for name in ("model.keras", "model.weights.h5"):
        assert "do not fit teacher 'other'" in told(load_weights, other, folder / name)
    assert "no file" in told(load_weights, other, tmp_path / "missing.weights.h5")
    (tmp_path / "text.weights.h5").write_text("hello")
    assert "do not fit" in told(load_weights, other, tmp_path / "text.weights.h5")
