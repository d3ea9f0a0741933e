"""The settings of a search."""

import dataclasses
import json
import math
import subprocess
import sys

import numpy as np
import pytest

from esnac_tf import config
from esnac_tf.config import SearchConfig
from esnac_tf.errors import UserError


def test_the_defaults_are_the_paper_s():
    settings = SearchConfig()
    assert (settings.num_steps, settings.num_kernels, settings.num_candidates) == (20, 8, 1000)
    assert (settings.search_epochs, settings.full_epochs, settings.num_best) == (10, 300, 4)
    search, full = settings.search_training(), settings.full_training()
    assert (search.optimizer, search.learning_rate, search.weight_decay) == ("adam", 1e-3, 5e-4)
    assert (full.optimizer, full.learning_rate, full.momentum) == ("sgd", 0.01, 0.9)
    assert full.learning_rate_drop_epochs == 100
    assert settings.surrogate().max_steps == 100


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[(name, -1) for name in ("num_steps", "full_epochs", "seed", "weight_decay")],
        *[
            (name, 0)
            for name in (
                "num_kernels",
                "num_candidates",
                "kernel_steps",
                "search_epochs",
                "num_best",
                "batch_size",
                "search_learning_rate",
                "full_learning_rate",
            )
        ],
        *[("max_shrinkage", value) for value in (0, -0.5, 1.1, math.nan, "0.9", True)],
        *[("max_params", value) for value in (0, -5, 1.5, "100", True)],
        ("seed", 2**32),
        ("num_steps", 1.5),
        ("num_steps", True),
        *[
            (name, value)
            for name in ("search_learning_rate", "full_learning_rate", "weight_decay")
            for value in ("0.1", None, True)
            if (name, value) != ("full_learning_rate", None)
        ],
        *[(name, value) for name in ("mixed_precision", "jit_compile") for value in (1, "no")],
        *[(name, value) for name in config._NAMES for value in (None, 3, ["esnac"])],
        ("num_steps", None),
        ("num_steps", "3"),
        ("search_learning_rate", math.nan),
        ("full_learning_rate", math.inf),
        ("weight_decay", math.nan),
        *[
            (name, "nonsense")
            for name in ("channel_groups", "channel_importance", "distribute", "full_optimizer")
        ],
    ],
)
def test_a_value_out_of_range_is_told_by_its_name(name, value):
    with pytest.raises(UserError) as caught:
        SearchConfig(**{name: value})
    assert str(caught.value).startswith(f"{name} must ")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("value", [(), None, 0.3, (0.3, 1.5), (-0.1,), ("0.3",), (math.nan,)])
def test_removal_probabilities_are_shares(value):
    with pytest.raises(UserError, match="removal_probabilities must be numbers from 0 to 1"):
        SearchConfig(removal_probabilities=value)


@pytest.mark.parametrize("value", [-1, -0.5, 1.5, math.nan, math.inf, True, "1"])
def test_gpus_of_a_candidate_are_a_share_or_whole(value):
    with pytest.raises(UserError, match="gpus_per_candidate must be a whole number or a share"):
        SearchConfig(gpus_per_candidate=value)


@pytest.mark.parametrize("value", [None, 0, 0.25, 1, 4.0])
def test_such_gpus_are_taken(value):
    assert SearchConfig(executor="ray", gpus_per_candidate=value).gpus_per_candidate == value


@pytest.mark.parametrize("value", [1, "yes", None])
def test_asynchronous_is_yes_or_no(value):
    with pytest.raises(UserError, match="asynchronous must be True or False"):
        SearchConfig(asynchronous=value)


@pytest.mark.parametrize("factor", [1, 2])
def test_where_students_are_trained_is_fixed_where_they_are_compared(factor):
    fixed = SearchConfig(halving_factor=factor).fixed()
    assert ("distribute" in fixed) == (factor > 1)
    assert "asynchronous" in fixed
    assert not {"executor", "cpus_per_candidate", "gpus_per_candidate"} & set(fixed)


@pytest.mark.parametrize(
    ("name", "value"),
    [("ray_address", "auto"), ("cpus_per_candidate", 2), ("gpus_per_candidate", 0)],
)
def test_what_is_for_ray_needs_ray(name, value):
    with pytest.raises(UserError, match=rf"^{name} is for executor='ray', .*\nGive that executor"):
        SearchConfig(**{name: value})
    assert getattr(SearchConfig(executor="ray", **{name: value}), name) == value


def test_students_that_are_trained_apart_are_not_compared():
    with pytest.raises(UserError, match=r"^halving_factor=2 compares .*\nLeave one of the two out"):
        SearchConfig(halving_factor=2, executor="ray")


def test_sequences_are_written_as_json_has_them():
    settings = SearchConfig(removal_probabilities=[0, 0.5])
    assert settings.removal_probabilities == (0.0, 0.5)
    assert settings.fixed()["removal_probabilities"] == [0.0, 0.5]


@pytest.mark.parametrize("value", [None, 3, ["keras", None], {"keras"}])
def test_export_formats_that_are_no_names_are_told(value):
    with pytest.raises(UserError, match=r"^export must be a tuple of names, .*\nGive [^\n]*$"):
        SearchConfig(export=value)


@pytest.mark.parametrize(
    "name",
    ["strategy", "acquisition", "objective", "full_loss", "export"],
)
def test_an_unknown_name_is_told_with_the_known_ones(name):
    with pytest.raises(UserError, match=r"Unknown .*'nonsense'\.\nKnown: "):
        SearchConfig(**{name: ("nonsense",) if name == "export" else "nonsense"})


def test_whole_numbers_of_numpy_and_single_formats_are_taken():
    settings = SearchConfig(num_steps=np.int64(3), seed=np.uint8(5), export="keras")
    assert settings == SearchConfig(num_steps=3, seed=5, export=("keras",))
    json.dumps(settings.fixed())


def test_the_largest_seed_and_numbers_of_numpy_are_taken():
    settings = SearchConfig(seed=2**32 - 1, full_learning_rate=np.float32(0.5), weight_decay=0)
    assert (settings.seed, settings.full_learning_rate) == (2**32 - 1, 0.5)
    json.dumps({**settings.fixed(), **settings.free()})


def test_what_is_no_classifier_is_trained_fully_by_adam():
    def chosen(is_classifier, **settings):
        training = SearchConfig(**settings).full_training(is_classifier)
        return training.optimizer, training.learning_rate

    assert chosen(True) == ("sgd", 0.01)
    assert chosen(False) == ("adam", 0.001)
    assert chosen(True, full_optimizer="adam") == ("adam", 0.001)
    assert chosen(False, full_optimizer="sgd", full_learning_rate=0.5) == ("sgd", 0.5)


def test_learning_rates_fall_after_each_third_of_any_number_of_epochs():
    for epochs, expected in ((0, 1), (1, 1), (2, 1), (3, 1), (4, 2), (20, 7)):
        training = SearchConfig(full_epochs=epochs).full_training()
        assert training.learning_rate_drop_epochs == expected


def test_only_what_changes_no_trial_may_change_in_a_resumed_run():
    fixed = SearchConfig().fixed()
    names = {field.name for field in dataclasses.fields(SearchConfig)}
    assert names - set(fixed) == {*config._FREE, "resume"}
    assert {"seed", "num_kernels", "search_epochs", "batch_size", "strategy"} <= set(fixed)


def test_the_module_needs_no_tensorflow():
    code = "import esnac_tf.config, sys; print('tensorflow' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert result.stdout == b"False\n"
