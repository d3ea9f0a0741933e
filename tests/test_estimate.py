"""The dry run: what a search would be and cost."""

import re

import numpy as np
import pytest
import tensorflow as tf
import toy

from esnac_tf.config import SearchConfig
from esnac_tf.datasets.given import given_training_batches
from esnac_tf.errors import UserError
from esnac_tf.estimate import describe_search
from esnac_tf.graph.teacher import analyse
from esnac_tf.search_space.space import SearchSpace

CONFIG = SearchConfig(num_steps=2, num_kernels=3, search_epochs=4, num_best=2, full_epochs=5)
BATCHES = given_training_batches(toy.TRAIN, 16)


@pytest.fixture(scope="module")
def lines():
    return describe_search(toy.untrained(), CONFIG, BATCHES, teacher_epochs=7)


def test_the_teacher_and_the_space_are_described(lines):
    model = toy.untrained()
    graph = analyse(model)
    text = "\n".join(lines)
    num_params = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    assert f"Teacher toy: {len(graph.nodes)} layers" in text
    assert f"{num_params:,} parameters" in text
    assert f"Removable layers: {len(graph.removals)}." in text
    assert f"Possible skip connections: {len(graph.skip_pairs)}." in text
    assert "Channel groups and widths: 12: 12." in text
    exponent = int(re.search(r"at most 10\^(\d+) students", text).group(1))
    assert exponent == round(SearchSpace(graph).log10_size)


def test_the_shares_of_parameters_are_in_order(lines):
    [line] = [line for line in lines if "Random students have" in line]
    median, low, high = (float(value) for value in re.findall(r"([\d.]+)%", line))
    assert 0 < low <= median <= high <= 100


def work_in(lines, start):
    [line] = [line for line in lines if line.startswith(start)]
    return float(re.search(r"([\d.e+]+) multiply-adds", line).group(1))


def test_the_work_follows_the_settings(lines):
    kernels = 8 * 12 + 12 * 12 + 12 * 3  # multiply-adds of the teacher's dense layers
    examples = 96
    teacher = work_in(lines, "Training of the teacher")
    assert teacher == pytest.approx(7 * examples * 3 * kernels, rel=0.3)
    # At least the teacher's passes, at most students as large as the teacher.
    search = work_in(lines, "Search: 6 students")
    assert 2 * 4 * examples * kernels < search < 2 * 4 * examples * kernels * 12
    full = work_in(lines, "Full training: 2 students")
    assert 0 < full < 5 * examples * 2 * 3 * kernels * 1.3
    doubled = describe_search(
        toy.untrained(), SearchConfig(num_steps=4, num_kernels=3, search_epochs=4), BATCHES
    )
    assert work_in(doubled, "Search: 12 students") == pytest.approx(2 * search, rel=0.1)
    assert not any(line.startswith("Training of the teacher") for line in doubled)


def test_nobody_takes_the_arithmetic_for_the_time_of_the_search(lines):
    costs = [line for line in lines if "multiply-adds" in line]
    assert len(costs) == 3
    for line in costs:
        assert re.search(r"multiply-adds, at least about [\d.]+ \w+\.$", line)
    assert lines[-1].startswith("This is not the time that it will take, but the least: bare")
    assert "small models take many times as long" in lines[-1]


def test_a_data_set_of_unknown_length_has_no_cost():
    dataset = tf.data.Dataset.from_tensor_slices(toy.TRAIN).batch(16).filter(lambda x, y: True)
    lines = describe_search(toy.untrained(), CONFIG, given_training_batches(dataset, 16))
    assert lines[-1] == "Cost: not known, as the number of batches is not."


def test_data_that_does_not_fit_is_told():
    narrow = given_training_batches(toy.examples(32, features=5), 16)
    with pytest.raises(UserError, match=r"takes examples of shape \(8,\)"):
        describe_search(toy.untrained(), CONFIG, narrow)
