import math

import pytest

from esnac_tf.distillation import EpochRecord, TrainingConfig, TrainingOutcome
from esnac_tf.errors import UserError


class TestTrainingConfig:
    def test_the_papers_search(self):
        config = TrainingConfig.search()
        assert (config.epochs, config.optimizer, config.learning_rate) == (10, "adam", 1e-3)
        assert config.weight_decay == 5e-4
        assert config.learning_rate_at(10) == 1e-3

    @pytest.mark.parametrize(
        ("config", "epochs", "learning_rate"),
        [(TrainingConfig.full(), 300, 0.01), (TrainingConfig.teacher(), 400, 0.1)],
    )
    def test_the_papers_long_trainings(self, config, epochs, learning_rate):
        assert (config.epochs, config.optimizer, config.momentum) == (epochs, "sgd", 0.9)
        rates = [config.learning_rate_at(epoch) for epoch in (1, 100, 101, 200, 201, 300)]
        expected = [learning_rate * factor for factor in (1, 1, 0.1, 0.1, 0.01, 0.01)]
        assert rates == pytest.approx(expected)

    def test_presets_take_changes(self):
        assert TrainingConfig.full(epochs=3, jit_compile=True).jit_compile

    @pytest.mark.parametrize(
        "change",
        [
            {"epochs": 0},
            {"optimizer": "rmsprop"},
            {"learning_rate": 0.0},
            {"learning_rate": math.nan},
            {"momentum": 1.0},
            {"weight_decay": -1e-4},
            {"learning_rate_drop_epochs": -1},
        ],
    )
    def test_out_of_range(self, change):
        with pytest.raises(UserError, match=next(iter(change))):
            TrainingConfig.search(**change)


class TestTrainingOutcome:
    def test_of_equally_good_epochs_the_earliest_is_the_best(self):
        history = [
            EpochRecord(e, 1.0, -quality, quality, 0.1)
            for e, quality in enumerate((0.2, 0.7, 0.7), 1)
        ]
        outcome = TrainingOutcome.from_history(history)
        assert (outcome.best_epoch, outcome.validation_metric) == (2, -0.7)
        assert outcome.history == tuple(history)

    def test_without_an_epoch(self):
        outcome = TrainingOutcome.from_history([], failure="no memory")
        assert (outcome.best_epoch, outcome.validation_metric) == (0, None)
        assert outcome.failure == "no memory"
