"""What every named data set must keep; a new one is tested without an edit here."""

import importlib
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from esnac_tf import datasets
from esnac_tf.datasets.splits import AUGMENTATIONS
from esnac_tf.errors import MissingExtraError, UnknownNameError

KERAS_SHAPES = {
    "cifar10": (32, 32, 3),
    "cifar100": (32, 32, 3),
    "mnist": (28, 28),
    "fashion_mnist": (28, 28),
}


@pytest.fixture(params=datasets.names())
def name(request, monkeypatch, fake_files):
    """Every name, with a fake in place of the download."""
    name = request.param
    if name in KERAS_SHAPES:
        module = importlib.import_module(f"keras.datasets.{name}")
        parts = []
        for count in (90, 20):
            y = fake_files.rng.integers(0, 10, count).astype(np.uint8)
            column = y[:, np.newaxis] if name.startswith("cifar") else y
            parts.append((fake_files.pictures(count, KERAS_SHAPES[name]), column))
        monkeypatch.setattr(module, "load_data", lambda: tuple(parts))
    return name


def test_parts_fit_each_other(name):
    splits = datasets.load(name, train_examples=70)

    shape = splits.x_train.shape[1:]
    assert len(shape) == 3
    assert splits.name == name
    assert len(splits.x_train) == 70
    for part in ("train", "validation", "test"):
        x, y = getattr(splits, f"x_{part}"), getattr(splits, f"y_{part}")
        assert x.shape == (len(y), *shape)
        assert len(y) > 0
        assert x.dtype in (np.uint8, np.float32)
        assert y.dtype == np.int32
        assert x.min() >= 0
        assert 1 < x.max() <= 255
        assert y.min() >= 0
        assert y.max() < splits.num_classes
    assert len(set(splits.class_names)) == splits.num_classes
    assert all(isinstance(class_name, str) for class_name in splits.class_names)
    assert splits.augmentation in (None, *AUGMENTATIONS)
    for numbers in splits.normalization:
        assert len(numbers) == shape[-1]
    assert all(deviation > 0 for deviation in splits.normalization.standard_deviation)


def test_validation_is_the_end_and_the_seed_changes_nothing(name):
    small = datasets.load(name, train_examples=30, validation_examples=10)
    large = datasets.load(name, validation_examples=20, seed=1)

    np.testing.assert_array_equal(small.x_train, large.x_train[:30])
    np.testing.assert_array_equal(small.y_train, large.y_train[:30])
    np.testing.assert_array_equal(small.x_validation, large.x_validation[10:])
    np.testing.assert_array_equal(small.x_test, large.x_test)


def test_only_cifar_is_augmented(name):
    expected = "crop_flip" if name.startswith("cifar") else None
    assert datasets.load(name).augmentation == expected


def test_wrong_data_dir_is_explained(name, tmp_path, user_error):
    assert "--data_dir" in user_error(datasets.load, name, data_dir=tmp_path / "missing")
    assert "--data_dir" in user_error(datasets.load, name, data_dir=tmp_path)
    assert "--data_dir" in user_error(datasets.load, name, data_dir="~nobody_here")
    (tmp_path / "file").touch()
    assert "--data_dir" in user_error(datasets.load, name, data_dir=tmp_path / "file")


@pytest.mark.parametrize("name", sorted(KERAS_SHAPES))
def test_failed_download_offers_data_dir(name, monkeypatch, user_error):
    def fail():
        raise Exception("URL fetch failure on https://x.org: None\nsecond line\nthird line")

    module = importlib.import_module(f"keras.datasets.{name}")
    monkeypatch.setattr(module, "load_data", fail)
    text = user_error(datasets.load, name)
    assert text.startswith(f"Cannot download {name}: URL fetch failure")
    assert "second line" not in text
    assert "--data_dir=FOLDER" in text.splitlines()[1]


def test_names_are_the_modules_that_read():
    folder = pathlib.Path(datasets.__file__).parent
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    readers = {
        stem
        for stem in modules
        if hasattr(importlib.import_module(f"esnac_tf.datasets.{stem}"), "read")
    }
    assert set(datasets.names()) == readers
    assert modules - readers == {"digests", "given", "pipelines", "splits", "stored", "structures"}


def test_import_and_names_are_light():
    code = (
        "import sys, esnac_tf.datasets as d; d.load('digits'); "
        "sys.exit(any(m in sys.modules for m in ('tensorflow', 'keras')))"
    )
    root = pathlib.Path(datasets.__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_unknown_names(tmp_path, user_error, monkeypatch):
    with pytest.raises(UnknownNameError, match="Did you mean 'cifar10'"):
        datasets.load("cifar-10")
    text = user_error(datasets.load, "nothing_like_it")
    assert "digits" in text
    assert "esnac_tf/datasets/" in text
    user_error(datasets.load, "")
    user_error(datasets.load, "splits")
    user_error(datasets.load, "formats")
    user_error(datasets.load, "a\0b")
    user_error(datasets.load, "~nobody_here")


def test_paths_that_cannot_be_read(tmp_path, user_error):
    assert "does not exist" in user_error(datasets.load, tmp_path / "missing.npz")
    assert "does not exist" in user_error(datasets.load, "no/such/folder")
    (tmp_path / "data.csv").touch()
    assert "'.csv'" in user_error(datasets.load, tmp_path / "data.csv")
    (tmp_path / "data.npz").touch()
    text = user_error(datasets.load, tmp_path / "data.npz", data_dir=tmp_path)
    assert "Leave --data_dir out" in text


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r"pip install scikit-learn\b"):
        datasets.load("digits")


def test_digits_are_all_there():
    splits = datasets.load("digits")
    assert len(splits.x_train) + len(splits.x_validation) + len(splits.x_test) == 1797
    for y in (splits.y_train, splits.y_validation, splits.y_test):
        assert set(y) == set(range(10))
    assert splits.x_train.max() == 16
