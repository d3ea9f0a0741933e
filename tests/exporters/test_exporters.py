"""The contract of the export formats: every file in esnac_tf/exporters/ passes it."""

import importlib
import json
import os
import pathlib
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest

from esnac_tf import exporters
from esnac_tf.errors import UnknownNameError, UserError
from esnac_tf.files import replacing


def image_model():
    """BatchNorm, Add, Normalization, Dropout; one input, one output."""
    rng = np.random.default_rng(0)
    normalization = keras.layers.Normalization(axis=-1)
    normalization.adapt(rng.normal(3.0, 2.0, (32, 8, 8, 3)).astype("float32"))
    inputs = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Conv2D(16, 3, padding="same")(normalization(inputs))
    x = keras.layers.BatchNormalization()(x)
    y = keras.layers.SeparableConv2D(16, 3, padding="same", activation="relu")(x)
    x = keras.layers.Dropout(0.5)(keras.layers.Add()([x, y]))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(5)(x), name="image_model")


def dict_model():
    """Two inputs as a dict, names that are no Python names, a dict of outputs."""
    image = keras.Input((8, 8, 3), name="the-image")
    meta = keras.Input((4,), name="meta")
    x = keras.layers.Flatten()(keras.layers.Conv2D(4, 3, use_bias=False)(image))
    x = keras.layers.BatchNormalization()(keras.layers.Concatenate()([x, meta]))
    outputs = {"label": keras.layers.Dense(5)(x), "box": [keras.layers.Dense(4)(x), x * 2.0]}
    return keras.Model({"the-image": image, "meta": meta}, outputs, name="dict_model")


def list_model():
    """Two inputs and two outputs in lists; one layer called twice."""
    first, second = keras.Input((4,), name="first"), keras.Input((4,), name="second")
    shared = keras.layers.Dense(3, name="shared")
    outputs = [shared(first), keras.layers.Add()([shared(first), shared(second)])]
    return keras.Model([first, second], outputs, name="list_model")


def sequential_model():
    return keras.Sequential(
        [keras.Input((4,), name="row"), keras.layers.Dense(6), keras.layers.BatchNormalization()],
        name="sequential_model",
    )


def compiled_model():
    """Trained with an optimizer and a loss that no other process knows."""
    model = keras.Sequential([keras.Input((4,), name="row"), keras.layers.Dense(2)])
    model.compile("adam", lambda target, output: keras.ops.mean((target - output) ** 2, axis=-1))
    model.fit(np.ones((8, 4)), np.ones((8, 2)), verbose=0)
    return model


MODELS = [image_model, dict_model, list_model, sequential_model, compiled_model]

# Runs in a process that knows nothing of this project.
READER = textwrap.dedent(
    """
    import json, sys

    class Refuse:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] == "esnac_tf":
                raise ImportError("the export needs esnac_tf")

    sys.meta_path.insert(0, Refuse())
    import numpy as np

    def flat(values):
        if isinstance(values, dict):
            return [item for key in sorted(values) for item in flat(values[key])]
        if isinstance(values, (list, tuple)):
            return [item for value in values for item in flat(value)]
        return [np.array(values)]

    def read_keras(path, inputs):
        import keras
        model = keras.models.load_model(path)
        assert not model.compiled
        values = next(iter(inputs.values())) if len(inputs) == 1 else inputs
        return flat(model(values, training=False))

    def read_saved_model(path, inputs):
        import tensorflow as tf
        loaded = tf.saved_model.load(path)
        tensors = {name: tf.constant(value) for name, value in inputs.items()}
        values = next(iter(tensors.values())) if len(tensors) == 1 else tensors
        served = flat(loaded.serve(values))
        signature = loaded.signatures["serving_default"]
        named = {name.replace("-", "_"): value for name, value in tensors.items()}
        for one, other in zip(served, flat(signature(**named)), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)
        return served

    def read_litert(path, inputs):
        from ai_edge_litert.interpreter import Interpreter
        interpreter = Interpreter(path)
        return flat(interpreter.get_signature_runner("serving_default")(**inputs))

    READERS = {"keras": read_keras, "saved_model": read_saved_model, "litert": read_litert}
    for job in json.loads(sys.argv[1]):
        inputs = dict(np.load(job["inputs"]))
        outputs = READERS[job["format"]](job["path"], inputs)
        np.savez(job["outputs"], *outputs)
    """
)


def flat_numpy(values):
    """Arrays of a nested structure, dicts by sorted key."""
    return [keras.ops.convert_to_numpy(value) for value in keras.tree.flatten(values)]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Every model in every format, its outputs here and in the other process."""
    folder = tmp_path_factory.mktemp("exports")
    rng = np.random.default_rng(1)
    results, jobs = {}, []
    for make in MODELS:
        model = make()
        inputs = {
            tensor.name: rng.normal(size=(3, *tensor.shape[1:])).astype("float32")
            for tensor in model.inputs
        }
        np.savez(folder / f"{make.__name__}.npz", **inputs)
        values = list(inputs.values())
        if isinstance(getattr(model, "input", None), dict):
            values = inputs
        expected = flat_numpy(model(values[0] if len(values) == 1 else values, training=False))
        for name in exporters.names():
            path = exporters.get(name).export(model, folder / f"{make.__name__}.v1")
            outputs = folder / f"{make.__name__}-{name}.npz"
            jobs.append(
                {
                    "format": name,
                    "path": str(path),
                    "inputs": str(folder / f"{make.__name__}.npz"),
                    "outputs": str(outputs),
                }
            )
            results[make, name] = (path, expected, outputs)
    reader = subprocess.run(
        [sys.executable, "-c", READER, json.dumps(jobs)],
        cwd=folder,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert reader.returncode == 0, reader.stderr[-3000:]
    return results


@pytest.mark.parametrize("name", exporters.names())
@pytest.mark.parametrize("make", MODELS)
def test_outputs_equal_the_model_s_in_a_process_without_the_project(exported, make, name):
    _, expected, outputs = exported[make, name]
    with np.load(outputs) as archive:
        received = [archive[key] for key in archive.files]
    assert len(received) == len(expected)
    for one, other in zip(received, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", exporters.names())
def test_the_path_keeps_the_stem_and_nothing_else_is_left_beside_it(tmp_path, name):
    stem = tmp_path / "new" / "folder" / "student.1"
    path = exporters.get(name).export(sequential_model(), stem)
    assert path.parent == stem.parent
    assert path.name.startswith("student.1")
    assert [entry.name for entry in stem.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("name", exporters.names())
def test_an_earlier_export_is_replaced(tmp_path, name):
    exporters.get(name).export(image_model(), tmp_path / "student")
    before = _size(tmp_path)
    path = exporters.get(name).export(sequential_model(), tmp_path / "student")
    assert _size(tmp_path) < before
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("name", exporters.names())
def test_a_failed_export_leaves_the_earlier_one(tmp_path, name, monkeypatch):
    path = exporters.get(name).export(sequential_model(), tmp_path / "student")
    before = _contents(path)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"student.*No space left on device\.\n.*another folder"):
        exporters.get(name).export(image_model(), tmp_path / "student")
    assert _contents(path) == before
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("name", exporters.names())
def test_a_file_in_the_place_of_the_folder_is_told_in_two_lines(tmp_path, name):
    (tmp_path / "students").write_text("a file")
    with pytest.raises(UserError, match="students") as caught:
        exporters.get(name).export(sequential_model(), tmp_path / "students" / "1")
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize("name", exporters.names())
def test_the_model_is_left_as_it_was(tmp_path, name):
    model = image_model()
    before = [keras.ops.convert_to_numpy(variable) for variable in model.variables]
    config = model.get_config()
    exporters.get(name).export(model, tmp_path / "student")
    assert model.get_config() == config
    for one, other in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(one, keras.ops.convert_to_numpy(other))


def test_an_unknown_format_is_told_with_the_known_ones():
    with pytest.raises(UnknownNameError, match=r"'saved-model'.*'saved_model'\?\nKnown: keras"):
        exporters.get("saved-model")


def test_names_are_told_without_tensorflow():
    code = "import esnac_tf.exporters as e, sys; e.names(); assert 'tensorflow' not in sys.modules"
    root = pathlib.Path(importlib.import_module("esnac_tf").__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)


class TestReplacing:
    def test_an_exception_leaves_the_target_and_no_litter(self, tmp_path):
        (tmp_path / "a").write_text("old")

        def fail_halfway():
            with replacing(tmp_path / "a") as path:
                path.write_text("half")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail_halfway()
        assert _contents(tmp_path) == {"a": b"old"}

    def test_a_folder_is_replaced_whole(self, tmp_path):
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "old").write_text("old")
        with replacing(tmp_path / "a") as path:
            path.mkdir()
            (path / "new").write_text("new")
        assert _contents(tmp_path) == {"a/new": b"new"}

    def test_a_folder_that_cannot_be_replaced_comes_back(self, tmp_path, monkeypatch):
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "old").write_text("old")
        replace = os.replace

        def refuse_new(source, target):
            if pathlib.Path(source).name == "a" and pathlib.Path(source).parent != tmp_path:
                raise PermissionError(13, "Permission denied")
            replace(source, target)

        monkeypatch.setattr(os, "replace", refuse_new)
        with (
            pytest.raises(UserError, match="Permission denied"),
            replacing(tmp_path / "a") as path,
        ):
            path.mkdir()
        assert _contents(tmp_path) == {"a/old": b"old"}

    def test_a_file_does_not_replace_a_folder(self, tmp_path):
        (tmp_path / "a").mkdir()
        with pytest.raises(UserError, match="a"), replacing(tmp_path / "a") as path:
            path.write_text("new")
        assert (tmp_path / "a").is_dir()


def _contents(path):
    if path.is_file():
        return {"": path.read_bytes()}
    return {
        str(entry.relative_to(path)): entry.read_bytes()
        for entry in sorted(path.rglob("*"))
        if entry.is_file()
    }


def _size(path):
    return sum(len(content) for content in _contents(path).values())
