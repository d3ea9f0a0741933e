"""Teachers by name are trained once and kept."""

import dataclasses

import numpy as np
import pytest

import esnac_tf
from esnac_tf import teacher_training
from esnac_tf.datasets import Normalization, Splits
from esnac_tf.display import Display
from esnac_tf.distillation import TrainingConfig
from esnac_tf.errors import UserError
from esnac_tf.teacher_training import default_cache_dir, trained_teacher

NAME = "resnet18(width=1)"
TRAINING = TrainingConfig.teacher(epochs=1, learning_rate=0.01)


def pictures(count, seed):
    generator = np.random.default_rng(seed)
    y = (np.arange(count) % 2).astype("int32")
    x = generator.integers(0, 100, (count, 8, 8, 1)) + 100 * y[:, None, None, None]
    return x.astype("uint8"), y


SPLITS = Splits(
    "two.npz", *pictures(32, 0), *pictures(8, 1), *pictures(8, 2), 2, ("dark", "bright"),
    augmentation=None, normalization=Normalization((100.0,), (60.0,)),
)  # fmt: skip


@pytest.fixture
def trained(tmp_path, capsys):
    """Calls `trained_teacher` and gives the model and the lines that were printed."""

    def call(splits=SPLITS, training=TRAINING, **changes):
        arguments = {"batch_size": 16, "distribute": "none", "seed": 0, **changes}
        model = trained_teacher(
            NAME, splits, training, cache_dir=tmp_path / "new", display=Display(), **arguments
        )
        return model, capsys.readouterr().out.splitlines()

    return call


def test_it_is_trained_once_and_again_where_the_file_is_broken(trained, tmp_path):
    model, lines = trained()
    [path] = (tmp_path / "new").iterdir()
    assert path.name.startswith("resnet18_width_1_two_")
    assert lines[0] == f"Training teacher {NAME} for 1 epochs on 32 examples."
    assert lines[-1] == f"Teacher {NAME} is kept in {path}."
    again, lines = trained()
    assert lines == [f"Teacher {NAME} is taken from {path}."]
    equal_weights(model, again)
    path.write_bytes(path.read_bytes()[:1000])
    repaired, lines = trained()
    assert "is trained again" in lines[0]
    assert str(path) in lines[0]
    equal_weights(model, repaired)
    assert trained()[1] == [f"Teacher {NAME} is taken from {path}."]


def equal_weights(model, other):
    for one, same in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(one, same)


def test_the_file_is_named_by_all_that_the_weights_depend_on(monkeypatch):
    def stem(
        name=NAME,
        splits=SPLITS,
        training=TRAINING,
        batch_size=16,
        seed=0,
        weights=None,
    ):
        return teacher_training._file_stem(name, splits, training, batch_size, seed, weights)

    def changed(part):
        """One pixel, or one label, is another."""
        array = getattr(SPLITS, part).copy()
        array.flat[-1] = 1 - array.flat[-1] if array.ndim == 1 else array.flat[-1] + 1
        return stem(splits=dataclasses.replace(SPLITS, **{part: array}))

    other_labels = dataclasses.replace(SPLITS, y_train=1 - SPLITS.y_train)
    fewer = dataclasses.replace(SPLITS, x_train=SPLITS.x_train[1:], y_train=SPLITS.y_train[1:])
    stems = [
        stem(),
        stem(name="resnet18(width=2)"),
        stem(splits=other_labels),
        stem(splits=fewer),
        changed("x_train"),
        changed("y_train"),
        changed("x_validation"),
        changed("y_validation"),
        stem(splits=dataclasses.replace(SPLITS, augmentation="crop_flip")),
        stem(splits=dataclasses.replace(SPLITS, normalization=Normalization((100.0,), (61.0,)))),
        stem(training=dataclasses.replace(TRAINING, epochs=2)),
        stem(batch_size=8),
        stem(seed=1),
        stem(weights="imagenet"),
    ]
    with monkeypatch.context() as patch:
        patch.setattr(esnac_tf, "__version__", "0.0.0")
        stems.append(stem())
    assert len(set(stems)) == len(stems)
    assert stem() == stem() == stems[0]


def test_a_training_that_fails_is_told_and_leaves_nothing(trained, tmp_path):
    with pytest.raises(UserError, match=r"failed: loss became .*\nLower --teacher_learning_rate"):
        trained(training=dataclasses.replace(TRAINING, learning_rate=1e30, epochs=2))
    assert not list((tmp_path / "new").iterdir())


def test_a_cache_that_cant_be_written_is_told_before_the_training(trained, tmp_path, capsys):
    (tmp_path / "new").write_text("no folder")
    with pytest.raises(UserError, match=r"Cannot keep the teacher in .*\n.* another --cache_dir"):
        trained()
    assert "Training" not in capsys.readouterr().out


def test_the_cache_is_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.setenv("ESNAC_TF_CACHE", str(tmp_path))
    assert default_cache_dir() == tmp_path
    monkeypatch.delenv("ESNAC_TF_CACHE")
    assert default_cache_dir().parts[-2:] == (".cache", "esnac_tf")
