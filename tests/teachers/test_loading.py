"""Teachers from files, and what stands in the place of a good file."""

import json
import shutil
import warnings
import zipfile

import h5py
import keras
import numpy as np
import pytest
import toy

from esnac_tf import teachers
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


@pytest.mark.parametrize("name", ["model.keras", "model.h5", "model.weights.h5"])
def test_weights_are_loaded_into_a_model(folder, name):
    model = toy.untrained()
    load_weights(model, folder / name)
    same(model, toy.teacher())


def test_weights_alone_in_the_older_format_are_loaded_into_a_model(folder, tmp_path):
    path = tmp_path / "weights.h5"
    older_weights(folder / "model.h5", path)
    model = toy.untrained()
    load_weights(model, path)
    same(model, toy.teacher())
    assert "do not fit" in told(load_weights, keras.Sequential([keras.Input((8,))]), path)


def older_weights(source, target):
    """Writes what Keras 2 wrote for weights alone: the weights of a whole model, at the root."""
    with h5py.File(source) as whole, h5py.File(target, "w") as weights:
        for name in whole["model_weights"]:
            whole.copy(f"model_weights/{name}", weights)
        weights.attrs.update(whole["model_weights"].attrs)


class Subclassed(keras.Model):
    """A model without a graph."""

    def __init__(self, units=12, **arguments):
        super().__init__(**arguments)
        self.hidden = keras.layers.Dense(units, activation="relu")
        self.classes = keras.layers.Dense(toy.CLASSES)

    def call(self, inputs):
        return self.classes(self.hidden(inputs))


@pytest.mark.parametrize("name", ["subclassed.keras", "subclassed.h5"])
def test_a_subclassed_model_is_told_how_to_become_functional(tmp_path, name):
    model = Subclassed()
    expected = model(toy.TEST[0])
    model.save(tmp_path / name)
    text = told(load, tmp_path / name)
    assert "holds a subclassed model (class 'Subclassed')" in text
    assert "keras.Model(inputs, model.call(inputs))" in text

    inputs = keras.Input((toy.FEATURES,))
    keras.Model(inputs, model.call(inputs)).save(tmp_path / "functional.keras")
    loaded = load(tmp_path / "functional.keras")
    np.testing.assert_allclose(loaded(toy.TEST[0]), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["weights.weights.h5", "weights.h5", "subclassed.weights.h5"])
def test_weights_without_a_model_are_told(folder, tmp_path, name):
    path = tmp_path / name
    if name == "weights.h5":
        older_weights(folder / "model.h5", path)
    elif name == "subclassed.weights.h5":
        model = Subclassed()
        model(toy.TEST[0])
        model.save_weights(path)
    else:
        shutil.copy(folder / "model.weights.h5", path)
    text = told(load, path)
    assert "holds weights without a model" in text
    assert "model.save('model.keras')" in text
    assert f"--teacher=NAME --teacher_weights={path}" in text


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
    "torch.keras": {"class_name": "TorchModuleWrapper"},
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
        ("empty.keras", "it is empty"),
        ("short.keras", "broken"),
        ("other.keras", "lacks config.json and model.weights.h5"),
        ("garbage.keras", "its configuration is not a model's"),
        ("empty.h5", "it is empty"),
        ("text.h5", "no HDF5 file"),
        ("short.h5", "truncated or damaged"),
        ("model.onnx", "suffix '.onnx'"),
        ("directory.keras", "broken"),
        ("data.keras", "broken"),
        ("json.keras", "broken"),
        ("lambda.keras", "has a Lambda layer"),
        ("module.keras", "has a Lambda layer"),
        ("tfsm.keras", "has a TFSMLayer layer"),
        ("torch.keras", "has a TorchModuleWrapper layer"),
        ("absolute.keras", "'/etc/cron.d/job' lies outside the archive"),
        ("parent.keras", "lies outside the archive"),
        ("bomb.keras", "more than 100 times the size of the file"),
        ("config_bomb.keras", "config.json has more than 64 MiB"),
        ("custom.keras", "Could not locate class 'MyLayer'"),
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
        path.write_bytes(b"" if name.startswith("empty") else b"hello\n" * 100)
    assert expected in told(load, path)


def layer(class_name, **arguments):
    return {"class_name": class_name, "config": arguments}


LAMBDA = {"class_name": "__lambda__", "config": {"code": "4wA=", "defaults": None, "closure": None}}
CONFIGS = [
    (None, "it holds no model"),
    (3, "it holds no model"),
    (h5py.Empty("f"), "it holds no model"),
    ("{", "its configuration is no JSON"),
    (b"\xff", "its configuration is no JSON"),
    ("[" * 100_000, "its configuration is no JSON"),
    ("[]", "its configuration is not a model's"),
    ("null", "its configuration is not a model's"),
    ("{}", "its configuration is not a model's"),
    (layer("Sequential", layers=[layer("Lambda", function=LAMBDA)]), "has a Lambda layer"),
    # As Keras 2 wrote it, and with a function that is named.
    (
        layer("Sequential", layers=[layer("Lambda", function=["4wA=", None, None])]),
        "a Lambda layer",
    ),
    (layer("Sequential", layers=[layer("Lambda", function="relu")]), "has a Lambda layer"),
    (
        layer("Sequential", layers=[layer("TimeDistributed", layer=layer("my>Lambda"))]),
        "has a Lambda layer",
    ),
    (layer("Sequential", layers=[layer("TFSMLayer", filepath="x")]), "has a TFSMLayer layer"),
    (layer("Sequential", layers=[layer("Dense", activation=LAMBDA)]), "has a Python lambda"),
    (
        layer("Sequential", name="a", layers=[layer("MyLayer", name="b")]),
        "Unknown layer: 'MyLayer'",
    ),
    (layer("MyModel", units=3), "holds a subclassed model (class 'MyModel')"),
]


@pytest.mark.parametrize(("config", "expected"), CONFIGS)
def test_what_is_no_model_in_hdf5_is_told(tmp_path, config, expected):
    path = tmp_path / "model.h5"
    with h5py.File(path, "w") as file:
        file["data"] = np.zeros(3)
        if config is not None:
            text = json.dumps(config) if isinstance(config, dict) else config
            file.attrs["model_config"] = text
    assert expected in told(load, path)


def test_a_configuration_that_is_too_large_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("esnac_tf.teachers.loading._MAX_CONFIG_BYTES", 2**20)
    with h5py.File(tmp_path / "large.h5", "w") as file:
        file.attrs["model_config"] = " " * (2**20 + 1)
    assert "is refused: its configuration has more than 1 MiB" in told(load, tmp_path / "large.h5")


@pytest.mark.parametrize("kind", ["lambda", "activation"])
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
def test_code_that_keras_saved_is_refused(tmp_path, kind, suffix):
    inputs = keras.Input((8,))
    x = inputs
    if kind == "lambda":
        x = keras.layers.Lambda(lambda x: x * 2)(x)
    activation = (lambda x: x * 2) if kind == "activation" else None
    path = tmp_path / f"model{suffix}"
    keras.Model(inputs, keras.layers.Dense(3, activation=activation)(x)).save(path)
    text = told(load, path)
    assert ("has a Lambda layer" if kind == "lambda" else "activation function") in text
    assert len(text) < 300 + len(str(path))


@pytest.mark.parametrize("link", [h5py.ExternalLink("other.h5", "/"), h5py.SoftLink("/data")])
def test_weights_that_lie_elsewhere_are_refused(folder, tmp_path, link):
    """Keras does this by itself; load's documentation relies on it."""
    path = tmp_path / "model.h5"
    shutil.copy(folder / "model.h5", path)
    with h5py.File(path, "a") as file:
        del file["model_weights/classes"]
        file["model_weights/classes"] = link
    assert "Not allowed: H5 file with" in told(load, path)


def test_damaged_hdf5_is_told(folder, tmp_path, monkeypatch):
    """Every kind of error that h5py raises on files with changed bytes."""
    for error in (OSError, RuntimeError, KeyError, ValueError, TypeError):

        def fail(*_, error=error):
            raise error("Unable to synchronously read")

        monkeypatch.setattr(h5py.AttributeManager, "get", fail)
        assert "truncated or damaged" in told(load, folder / "model.h5")


def test_weights_that_do_not_fit_are_told(folder, tmp_path):
    inputs = keras.Input((8,))
    other = keras.Model(inputs, keras.layers.Dense(2)(inputs), name="other")
    for name in ("model.keras", "model.h5", "model.weights.h5"):
        assert "do not fit teacher 'other'" in told(load_weights, other, folder / name)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        told(
            load_weights,
            teachers.build("resnet18(width=4)", (8, 8, 1), 3),
            folder / "model.weights.h5",
        )
    assert not heard
    assert "no file" in told(load_weights, other, tmp_path / "missing.weights.h5")
    (tmp_path / "text.weights.h5").write_text("hello")
    assert "no HDF5 file" in told(load_weights, other, tmp_path / "text.weights.h5")
    (tmp_path / "weights.npz").touch()
    assert "suffix '.npz'" in told(load_weights, other, tmp_path / "weights.npz")
