import os
import pathlib
import tarfile

import numpy as np
import pytest
import tensorflow as tf

from esnac_tf import datasets


def write(path, value=0, size=(6, 4), channels=3):
    """A picture of one colour; its value is found again after decoding (also in JPEG, nearly)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.full([*size, channels], value, np.uint8)
    encode = tf.io.encode_jpeg if path.suffix in (".jpg", ".jpeg") else tf.io.encode_png
    path.write_bytes(encode(picture).numpy())


@pytest.fixture
def folder(tmp_path):
    """20 training and 6 test pictures; the value of a picture says its class."""
    for part, count in (("train", 10), ("test", 3)):
        for number in range(count):
            write(tmp_path / part / "dog" / f"{number}.png", 100 + number)
            write(tmp_path / part / "cat" / f"{number}.PNG", number)
    return tmp_path


def check_labels(x, y):
    np.testing.assert_array_equal(x[:, 0, 0, 0] >= 100, y == 1)


def test_train_and_test_folders(folder):
    splits = datasets.load(folder)
    assert splits.class_names == ("cat", "dog")
    assert splits.x_train.shape == (18, 6, 4, 3)
    assert splits.x_test.shape == (6, 6, 4, 3)
    for part in ("train", "validation", "test"):
        check_labels(getattr(splits, f"x_{part}"), getattr(splits, f"y_{part}"))
    # Not in the order of the classes: a validation set from the end would hold only dogs.
    assert set(datasets.load(folder, validation_examples=10).y_validation) == {0, 1}


def test_class_folders_only(folder, not_tested_on):
    root = folder / "train"
    splits = datasets.load(root)
    assert len(splits.x_test) == 4
    assert len(splits.x_train) + len(splits.x_validation) == 16
    x, y = not_tested_on(splits)
    x, y = np.concatenate([x, splits.x_test]), np.concatenate([y, splits.y_test])
    check_labels(x, y)
    assert len(set(x[:, 0, 0, 0].tolist())) == 20
    np.testing.assert_array_equal(splits.x_test, datasets.load(root).x_test)
    assert not np.array_equal(splits.x_train, datasets.load(root, seed=1).x_train)


def test_hidden_and_other_files_are_skipped(folder):
    expected = datasets.load(folder).x_train
    (folder / "train" / "cat" / ".hidden.png").write_bytes(b"nothing")
    (folder / "train" / "cat" / "Thumbs.db").write_bytes(b"nothing")
    (folder / "train" / ".cache").mkdir()
    (folder / "train" / "readme.txt").touch()
    np.testing.assert_array_equal(datasets.load(folder).x_train, expected)


def test_grey_stays_grey_and_mixed_becomes_colour(tmp_path, not_tested_on):
    for number in range(4):
        write(tmp_path / "a" / f"{number}.png", 50, channels=1)
        write(tmp_path / "b" / f"{number}.png", 60, channels=2)
    assert datasets.load(tmp_path).x_train.shape == (5, 6, 4, 1)
    write(tmp_path / "b" / "colour.png", 60, channels=4)
    splits = datasets.load(tmp_path)
    assert splits.x_train.shape[1:] == (6, 4, 3)
    assert set(np.unique(not_tested_on(splits)[0])) == {50, 60}


def test_jpeg(tmp_path):
    for number in range(3):
        write(tmp_path / "a" / f"{number}.jpg", 50)
        write(tmp_path / "b" / f"{number}.jpeg", 200)
    splits = datasets.load(tmp_path)
    np.testing.assert_array_equal(splits.x_train[:, 0, 0, 0] > 120, splits.y_train == 1)


def test_wrong_layouts(tmp_path, user_error):
    assert "0 class folders" in user_error(datasets.load, tmp_path)
    write(tmp_path / "train" / "cat" / "1.png")
    assert "no folder test" in user_error(datasets.load, tmp_path)
    (tmp_path / "test").mkdir()
    assert "1 class folders" in user_error(datasets.load, tmp_path)
    (tmp_path / "train" / "dog").mkdir()
    assert f"{tmp_path / 'train' / 'dog'} has no pictures" in user_error(datasets.load, tmp_path)
    write(tmp_path / "train" / "dog" / "1.png")
    assert "0 test pictures" in user_error(datasets.load, tmp_path)
    write(tmp_path / "test" / "bird" / "1.png")
    assert "'bird'" in user_error(datasets.load, tmp_path)
    (tmp_path / "test" / "bird").rename(tmp_path / "test" / "dog")
    splits = datasets.load(tmp_path)
    assert splits.y_test.tolist() == [1]


def test_wrong_pictures(folder, user_error):
    path = folder / "train" / "dog" / "bad.png"
    good = (folder / "train" / "dog" / "1.png").read_bytes()
    for content in (b"", b"no picture", good[:40]):
        path.write_bytes(content)
        assert f"{path} cannot be read as a picture" in user_error(datasets.load, folder)
    path.unlink()
    path.mkdir()
    assert str(path) in user_error(datasets.load, folder)
    path.rmdir()
    write(path, size=(4, 6))
    text = user_error(datasets.load, folder)
    assert f"{path} is 6 by 4 pixels" in text
    assert "is 4 by 6" in text


def test_real_pictures(tmp_path, not_tested_on):
    archive = os.environ.get("ESNAC_TF_CIFAR10_PICTURES")
    if not archive:
        pytest.skip("ESNAC_TF_CIFAR10_PICTURES names no .tar.xz of pictures in folders by class")
    wanted = {"airplane": 30, "automobile": 20}
    with tarfile.open(archive, "r:xz") as tar:
        for member in tar:
            name = pathlib.PurePosixPath(member.name)
            if member.isfile() and wanted.get(name.parent.name, 0):
                wanted[name.parent.name] -= 1
                (tmp_path / name.parent.name).mkdir(exist_ok=True)
                content = tar.extractfile(member).read()
                (tmp_path / name.parent.name / name.name).write_bytes(content)
            if not any(wanted.values()):
                break
    splits = datasets.load(tmp_path)
    assert splits.x_train.shape == (36, 32, 32, 3)
    assert splits.class_names == ("airplane", "automobile")
    # Aeroplanes are on blue sky.
    x, y = not_tested_on(splits)
    red, _, blue = x[y == 0].mean((0, 1, 2))
    assert blue > red
