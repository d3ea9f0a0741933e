import io
import zipfile

import numpy as np
import pytest

from esnac_tf import datasets


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    y = np.arange(40) % 3
    rng.shuffle(y)
    return {
        "x_train": rng.integers(0, 256, [40, 6, 6, 3], dtype=np.uint8),
        "y_train": y,
        "x_test": rng.integers(0, 256, [10, 6, 6, 3], dtype=np.uint8),
        "y_test": np.arange(10) % 3,
    }


@pytest.fixture
def path(tmp_path):
    return tmp_path / "mine.npz"


def test_what_is_written_is_read(path, arrays, not_tested_on):
    np.savez_compressed(path, **arrays)
    splits = datasets.load(path)
    x, y = not_tested_on(splits)
    np.testing.assert_array_equal(x, arrays["x_train"])
    np.testing.assert_array_equal(y, arrays["y_train"])
    np.testing.assert_array_equal(splits.x_test, arrays["x_test"])
    assert splits.x_train.dtype == np.uint8
    assert splits.class_names == ("0", "1", "2")
    assert splits.augmentation is None
    assert splits.name == str(path)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int64, np.bool_])
def test_other_numbers_become_float32(path, arrays, dtype):
    arrays["x_train"], arrays["x_test"] = (
        arrays[f"x_{p}"].astype(dtype) for p in ("train", "test")
    )
    np.savez(path, **arrays)
    splits = datasets.load(path)
    assert splits.x_train.dtype == splits.x_test.dtype == np.float32
    np.testing.assert_array_equal(splits.x_test, arrays["x_test"].astype(np.float32))


def test_mixed_numbers_become_float32(path, arrays):
    np.savez(path, **{**arrays, "x_test": arrays["x_test"].astype(np.float64)})
    assert datasets.load(path).x_train.dtype == np.float32


def test_any_rank_and_column_labels(path, arrays):
    arrays["x_train"] = arrays["x_train"].reshape(40, -1)
    arrays["x_test"] = arrays["x_test"].reshape(10, -1)
    arrays["y_train"] = arrays["y_train"][:, np.newaxis]
    np.savez(path, **arrays)
    splits = datasets.load(path)
    assert splits.x_train.shape == (36, 108)
    assert splits.y_train.shape == (36,)
    assert len(splits.normalization.mean) == 108


def test_class_names(path, arrays, user_error):
    np.savez(path, **arrays, class_names=np.array(["a", "b", "c", "d"]))
    assert datasets.load(path).class_names == ("a", "b", "c", "d")
    np.savez(path, **arrays, class_names=np.array(["a", "b"]))
    assert "2 classes" in user_error(datasets.load, path)
    np.savez(path, **arrays, class_names=np.arange(3))
    assert "strings" in user_error(datasets.load, path)


def test_a_file_in_the_order_of_its_classes_is_shuffled(path, arrays, not_tested_on):
    order = np.argsort(arrays["y_train"], kind="stable")
    arrays["x_train"], arrays["y_train"] = arrays["x_train"][order], arrays["y_train"][order]
    np.savez(path, **arrays)
    splits = datasets.load(path, validation_examples=10)
    assert set(splits.y_validation) == {0, 1, 2}
    np.testing.assert_array_equal(
        splits.x_train, datasets.load(path, validation_examples=10).x_train
    )
    other = datasets.load(path, validation_examples=10, seed=1)
    assert not np.array_equal(splits.x_train, other.x_train)
    # Pictures keep their labels.
    label_of = {x.tobytes(): y for x, y in zip(arrays["x_train"], arrays["y_train"], strict=True)}
    for x, y in zip(*not_tested_on(splits), strict=True):
        assert label_of[x.tobytes()] == y


def nan(x):
    x = x.astype(np.float64)
    x[3, 0, 0, 0] = np.nan
    return x


def ragged(_):
    return np.array([[1], [1, 2]], dtype=object)


WRONG = {
    "no pictures": ("x_train", lambda x: x[:0], "at least one example"),
    "no width": ("x_test", lambda x: x[:, :, :0], "at least one example"),
    "rank 1": ("x_train", lambda x: x[:, 0, 0, 0], "received (40,)"),
    "NaN": ("x_train", nan, "the first in example 3"),
    "too large": ("x_test", lambda x: x * 1e300, "too large for float32"),
    "strings": ("x_train", lambda x: x.astype(str), "real numbers"),
    "complex": ("x_test", lambda x: x.astype(complex), "complex128"),
    "objects": ("x_train", ragged, "Python objects"),
    "object labels": ("y_train", lambda y: y.astype(object), "Python objects"),
    "lengths": ("x_train", lambda x: x[:-1], "received 39 and 40"),
    "test lengths": ("y_test", lambda y: y[:-1], "received 10 and 9"),
    "shapes": ("x_test", lambda x: x[:, 1:], "(5, 6, 3)"),
    "one-hot": ("y_train", lambda y: np.eye(3)[y], "store y_train.argmax(axis=1)"),
    "several labels": ("y_test", lambda y: np.stack([y] * 4, axis=1), "(10, 4), and the command"),
    "two labels": ("y_train", lambda y: np.eye(3)[y] + np.eye(3)[0], "reads one class for each"),
    "no class": ("y_train", lambda y: np.eye(2)[y % 2] * [0, 1], "Python: esnac_tf.compress."),
    "rank 3 labels": ("y_train", lambda y: y[:, None, None], "(40, 1, 1)"),
    "scalar label": ("y_test", lambda y: y[0], "received ()"),
    "no labels": ("y_test", lambda y: y[:0], "received (0,)"),
    "float labels": ("y_train", lambda y: y.astype(np.float32), "integer dtype"),
    "numbers": ("y_test", lambda y: y + 0.5, "Store classes as integers. Models of other labels"),
    "names": ("y_test", lambda y: y.astype(str), "integer dtype, received dtype <U"),
    "negative": ("y_train", lambda y: y - 1, "received -1"),
    "from one": ("y_train", lambda y: y + 1, "no example of class 0"),
    "gap": ("y_train", lambda y: y * 2, "no example of class 1"),
    "huge": ("y_train", lambda y: y * 10**15, "no example of class 1"),
    "unknown class": ("y_test", lambda y: y + 1, "0 .. 2 (3 classes), received 3"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arrays(case, path, arrays, user_error):
    name, change, expected = WRONG[case]
    arrays[name] = change(arrays[name])
    np.savez(path, **arrays)
    text = user_error(datasets.load, path)
    assert expected in text
    assert str(path) in text


def test_missing_arrays(path, arrays, user_error):
    del arrays["x_test"], arrays["y_test"]
    np.savez(path, **arrays, other=np.zeros(1))
    text = user_error(datasets.load, path)
    assert "lacks x_test, y_test; it holds: x_train, y_train, other" in text
    np.savez(path)
    assert "it holds: nothing" in user_error(datasets.load, path)


def test_broken_files(path, arrays, user_error):
    np.savez(path, **arrays)
    content = path.read_bytes()
    for broken in (b"", b"text", content[:100], content[: len(content) // 2], content[:-30]):
        path.write_bytes(broken)
        text = user_error(datasets.load, path)
        assert f"{path} cannot be read" in text
        assert "pickle" not in text
    # A flipped byte in the pictures: the zip's checksum finds it.
    path.write_bytes(content[:2000] + bytes([content[2000] ^ 255]) + content[2001:])
    assert "x_train" in user_error(datasets.load, path)


def test_a_single_array_is_no_data_set(path, user_error):
    with path.open("wb") as file:
        np.save(file, np.zeros([3, 2]))
    assert "single array" in user_error(datasets.load, path)


def test_an_absurd_shape_is_refused(path, arrays, user_error):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (10**15, 6, 6, 3)}
    )
    np.savez(path, **{name: value for name, value in arrays.items() if name != "x_train"})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x_train.npy", header.getvalue())
    assert "cannot be read" in user_error(datasets.load, path)


def test_a_member_that_is_no_array(path, arrays, user_error):
    np.savez(path, **{name: value for name, value in arrays.items() if name != "y_test"})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("y_test.npy", b"text")
    assert "y_test" in user_error(datasets.load, path)
