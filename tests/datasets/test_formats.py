"""The binary formats: CIFAR archives and IDX files."""

import gzip
import os
import pathlib
import struct

import numpy as np
import pytest

from esnac_tf import datasets
from esnac_tf.datasets import cifar10, cifar100


@pytest.mark.parametrize("inside", [True, False])
def test_cifar10_is_or_is_in_data_dir(inside, tmp_path, fake_files):
    folder = tmp_path / "cifar-10-batches-bin"
    x, y = fake_files.cifar10(folder)
    splits = datasets.load("cifar10", data_dir=folder if inside else tmp_path)
    np.testing.assert_array_equal(splits.x_train[:12], x)
    np.testing.assert_array_equal(splits.y_train[:12], y)
    assert len(splits.x_train) + len(splits.x_validation) == 60
    assert len(splits.x_test) == 12
    assert splits.class_names == tuple(f"class {i}" for i in range(10))
    assert splits.x_train.flags.c_contiguous


def test_cifar10_in_a_folder_of_another_name(tmp_path, fake_files):
    fake_files.cifar10(tmp_path / "mine")
    (tmp_path / "mine" / "batches.meta.txt").unlink()
    splits = datasets.load("cifar10", data_dir=tmp_path / "mine")
    assert splits.class_names == cifar10.CLASS_NAMES


def test_cifar100_uses_the_fine_label(tmp_path, fake_files):
    x, y = fake_files.cifar100(tmp_path / "cifar-100-binary", count=40)
    splits = datasets.load("cifar100", data_dir=tmp_path, validation_examples=1)
    np.testing.assert_array_equal(splits.x_train, x[:-1])
    np.testing.assert_array_equal(splits.y_train, y[:-1])
    assert splits.num_classes == 100
    assert splits.normalization.mean[0] == pytest.approx(0.4914 * 255)


def test_class_names_are_in_the_order_of_the_labels():
    # Both archives number their classes alphabetically.
    for names, count in ((cifar10.CLASS_NAMES, 10), (cifar100.CLASS_NAMES, 100)):
        assert len(names) == count
        assert list(names) == sorted(names)


def test_broken_cifar(tmp_path, fake_files, user_error):
    folder = tmp_path / "cifar-10-batches-bin"
    fake_files.cifar10(folder)
    broken = folder / "data_batch_3.bin"
    content = broken.read_bytes()

    def message():
        return user_error(datasets.load, "cifar10", data_dir=tmp_path)

    broken.write_bytes(content[:-1])
    assert f"{broken} is broken: expected a multiple of 3073 bytes" in message()
    assert f"received {len(content) - 1}" in message()
    broken.write_bytes(b"")
    assert "received 0 bytes" in message()
    broken.write_bytes(content[: 2 * 3073] + bytes([10]) + content[2 * 3073 + 1 :])
    assert "expected labels in 0 .. 9, received 10 in record 2" in message()
    broken.unlink()
    assert "lacks data_batch_3.bin" in message()
    broken.write_bytes(content)
    (folder / "batches.meta.txt").write_text("cat\ndog\n")
    assert "expected 10 names, one a line, received 2" in message()
    (folder / "batches.meta.txt").write_bytes(b"\xff\xfe\xfa")
    assert "as text" in message()


def test_broken_cifar100_label(tmp_path, user_error):
    folder = tmp_path / "cifar-100-binary"
    folder.mkdir()
    (folder / "train.bin").write_bytes(bytes([20, 0]) + bytes(3072))
    (folder / "test.bin").write_bytes(bytes([0, 100]) + bytes(3072))
    assert "0 .. 19, received 20" in user_error(datasets.load, "cifar100", data_dir=tmp_path)
    (folder / "train.bin").write_bytes(bytes([19, 0]) + bytes(3072))
    assert "0 .. 99, received 100" in user_error(datasets.load, "cifar100", data_dir=tmp_path)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize("compressed", [True, False])
def test_idx(name, compressed, tmp_path, fake_files):
    x, y = fake_files.mnist(tmp_path, compressed=compressed)
    splits = datasets.load(name, data_dir=tmp_path)
    np.testing.assert_array_equal(splits.x_train[..., 0], x[:27])
    np.testing.assert_array_equal(splits.y_train, y[:27])
    assert splits.normalization.mean[0] == pytest.approx(x[:27].mean())


def test_idx_names_with_a_dot(tmp_path, fake_files):
    fake_files.mnist(tmp_path)
    for path in list(tmp_path.iterdir()):
        path.rename(tmp_path / path.name.replace("-idx", ".idx"))
    assert datasets.load("mnist", data_dir=tmp_path).x_train.shape == (27, 28, 28, 1)


def test_broken_idx(tmp_path, fake_files, user_error):
    fake_files.mnist(tmp_path)
    pictures, labels = tmp_path / "train-images-idx3-ubyte", tmp_path / "train-labels-idx1-ubyte"
    content, label_content = pictures.read_bytes(), labels.read_bytes()

    def message():
        text = user_error(datasets.load, "mnist", data_dir=tmp_path)
        return text

    pictures.write_bytes(content[:-10])
    assert f"expected {30 * 784} bytes" in message()
    assert str(pictures) in message()
    pictures.write_bytes(b"")
    assert "received nothing" in message()
    pictures.write_bytes(label_content)
    assert "00 00 08 03" in message()
    pictures.write_bytes(struct.pack(">4B3I", 0, 0, 8, 3, 0, 28, 28))
    assert "(0, 28, 28)" in message()
    pictures.write_bytes(struct.pack(">4B3I", 0, 0, 8, 3, 30, 1, 2) + bytes(60))
    assert "28 by 28" in message()
    pictures.write_bytes(content)
    labels.write_bytes(struct.pack(">4BI", 0, 0, 8, 1, 29) + bytes(29))
    assert "expected 30 labels, received 29" in message()
    labels.write_bytes(label_content[:-1] + bytes([10]))
    assert "0 .. 9, received 10" in message()
    labels.unlink()
    assert "has no train-labels-idx1-ubyte" in message()
    packed = tmp_path / "train-labels-idx1-ubyte.gz"
    packed.write_bytes(b"not gzip")
    assert f"Cannot read {packed}" in message()
    packed.write_bytes(gzip.compress(label_content)[:-9])
    assert f"Cannot read {packed}" in message()


def test_the_real_cifar10(not_tested_on):
    data_dir = os.environ.get("ESNAC_TF_CIFAR10_DIR")
    if not data_dir:
        pytest.skip("ESNAC_TF_CIFAR10_DIR names no folder with the binary archive of CIFAR-10")
    splits = datasets.load("cifar10", data_dir=pathlib.Path(data_dir))
    assert splits.x_train.shape == (45_000, 32, 32, 3)
    assert splits.x_validation.shape == (5_000, 32, 32, 3)
    assert splits.x_test.shape == (10_000, 32, 32, 3)
    np.testing.assert_array_equal(np.bincount(not_tested_on(splits)[1]), np.full(10, 5000))
    # The published means are those of the pictures: the planes are where they belong.
    means = splits.x_train.mean((0, 1, 2))
    np.testing.assert_allclose(means, splits.normalization.mean, atol=2)
