"""Trainings that another process goes on with."""

from __future__ import annotations

import signal

import keras
import numpy as np
import pytest

from esnac_tf.distillation import TrainingConfig, losses, train
from esnac_tf.distillation.checkpoint import Checkpoint, kept_training
from esnac_tf.distillation.interruption import Deferred, deferred
from esnac_tf.errors import UserError

from .tiny import ArrayBatches, conv_net, pictures, validation

EPOCHS = 5
CONFIGS = {
    "adam": TrainingConfig.search(epochs=EPOCHS, learning_rate=0.01),
    "sgd": TrainingConfig.full(epochs=EPOCHS, optimizer="sgd", learning_rate=0.05),
}


class Killed(Exception):
    """In the place of a SIGKILL."""


def students():
    """Two that learn, one of them with Dropout."""
    return [conv_net(4, seed=1), conv_net(3, seed=5, end=[keras.layers.Dropout(0.3)])]


def trained(models, checkpoint=None, config="adam", **settings):
    x, y = pictures(64)
    outcomes = train(
        models,
        ArrayBatches(x[:48], y[:48]),
        validation(x[48:], y[48:]),
        CONFIGS[config],
        loss=losses.get("cross_entropy"),
        checkpoint=checkpoint,
        **settings,
    )
    values = [
        [(record.epoch, record.loss, record.validation_metric) for record in outcome.history]
        for outcome in outcomes
    ]
    return values, [weight for model in models for weight in model.get_weights()]


def killed_after(epoch):
    def on_epoch(number, records):
        if number == epoch:
            raise Killed

    return on_epoch


@pytest.fixture
def path(tmp_path):
    return tmp_path / "training.npz"


@pytest.mark.parametrize("config", ["adam", "sgd"])
@pytest.mark.parametrize("epoch", [1, 3, EPOCHS])
def test_a_training_that_was_killed_comes_out_the_same(config, epoch, path, monkeypatch):
    monkeypatch.setattr("esnac_tf.distillation.checkpoint._SHARE", 0.0)  # after every epoch
    expected = trained(students(), config=config)
    names = ["a", "b"]
    with pytest.raises(Killed):
        trained(students(), Checkpoint(path, names), config, on_epoch=killed_after(epoch))
    assert path.exists() == (epoch > 1)
    epochs = []

    def on_epoch(number, records):
        epochs.append(number)

    values, weights = trained(students(), Checkpoint(path, names), config, on_epoch=on_epoch)
    assert epochs == list(range(max(1, epoch), EPOCHS + 1))  # that of the kill was not kept
    assert values == expected[0]
    for one, other in zip(weights, expected[1], strict=True):
        np.testing.assert_array_equal(one, other)
    # It stays until its outcome is kept: once more, nothing is trained.
    values, weights = trained(students(), Checkpoint(path, names), config, on_epoch=epochs.append)
    assert values == expected[0]


def test_students_that_failed_or_were_discarded_stay_so(path, monkeypatch):
    monkeypatch.setattr("esnac_tf.distillation.checkpoint._SHARE", 0.0)

    def models():
        broken = conv_net(4, seed=2)
        broken.layers[-1].bias.assign([np.nan] * 3)
        return [broken, *students()]

    def discard(epoch, qualities, num_students):
        return [2] if epoch == 2 else []

    expected = trained(models(), discard=discard)
    assert [len(history) for history in expected[0]] == [0, EPOCHS, 2]
    names = ["a", "b", "c"]
    with pytest.raises(Killed):
        trained(models(), Checkpoint(path, names), discard=discard, on_epoch=killed_after(4))
    values, weights = trained(models(), Checkpoint(path, names), discard=discard)
    assert values == expected[0]
    for one, other in zip(weights, expected[1], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("damage", ["gone", "cut off", "a byte", "of others", "of other shapes"])
def test_without_a_whole_file_it_begins_anew(damage, path, monkeypatch):
    monkeypatch.setattr("esnac_tf.distillation.checkpoint._SHARE", 0.0)
    expected = trained(students())
    with pytest.raises(Killed):
        trained(students(), Checkpoint(path, ["a", "b"]), on_epoch=killed_after(3))
    names = ["a", "b"]
    if damage == "gone":
        path.unlink()
    elif damage == "cut off":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "a byte":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "of others":
        names = ["a", "c"]
    else:
        models = [conv_net(5, seed=1), conv_net(5, seed=5)]
        path.unlink()
        with pytest.raises(Killed):
            trained(models, Checkpoint(path, names), on_epoch=killed_after(3))
    epochs = []
    values, _ = trained(
        students(), Checkpoint(path, names), on_epoch=lambda epoch, records: epochs.append(epoch)
    )
    assert values == expected[0]
    assert epochs[0] == 1


def test_it_is_written_as_often_as_it_costs_little(path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("esnac_tf.distillation.checkpoint.time.monotonic", lambda: now[0])
    checkpoint = Checkpoint(path, ["a"])
    written = []
    for epoch in range(30):

        def arrays(epoch=epoch):
            written.append(epoch)
            now[0] += 1.0  # what writing takes
            return [np.zeros(2)]

        checkpoint.of([0]).after_epoch({"epoch": epoch}, arrays)
        now[0] += 5.0
    assert written == [0, 4, 8, 12, 16, 20, 24, 28]


def interrupted(path, on_batch):
    """Trains until an interruption ends it."""
    with pytest.raises(KeyboardInterrupt), kept_training(path, ["a", "b"]) as checkpoint:
        trained(students(), checkpoint, on_batch=on_batch)


def test_an_interruption_waits_for_the_end_of_the_epoch(path):
    batches = []

    def on_batch(epoch, step):
        batches.append((epoch, step))
        if (epoch, step) == (2, 1):
            signal.raise_signal(signal.SIGINT)

    interrupted(path, on_batch)
    assert batches[-1] == (2, 3)
    values, _ = Checkpoint(path, ["a", "b"]).load()
    assert values["epoch"] == 2


def test_a_second_one_does_not_wait(path):
    batches = []

    def on_batch(epoch, step):
        batches.append(step)
        if step < 3:
            signal.raise_signal(signal.SIGINT)

    interrupted(path, on_batch)
    assert batches == [1, 2]
    assert not path.exists()


def test_nothing_is_kept_without_a_path():
    with kept_training(None, ["a"]) as checkpoint:
        assert checkpoint is None


def test_a_full_disk_is_told(path):
    path.mkdir()
    (path / "in the way").touch()
    with pytest.raises(UserError, match="Cannot write"):
        Checkpoint(path, ["a"]).after_epoch({"epoch": 1}, lambda: [np.zeros(2)])


def test_without_an_interruption_nothing_happens():
    with deferred() as interruption:
        assert not interruption.is_asked
        interruption.check()
    Deferred().check()
