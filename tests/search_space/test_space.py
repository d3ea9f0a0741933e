"""The search space: settled candidates, their neighbours and their names."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import keras
import numpy as np
import pytest
from small_models import MODELS, MODES, TEACHERS, graph_of

from esnac_tf.architecture import ActionSet
from esnac_tf.graph.surgery import check_actions
from esnac_tf.graph.teacher import analyse
from esnac_tf.search_space import REMOVAL_PROBABILITIES
from esnac_tf.search_space.candidates import Candidates
from esnac_tf.search_space.space import SearchSpace

SETTINGS = hypothesis.settings(max_examples=5, deadline=None, derandomize=True)
NAMES = [*TEACHERS, *MODELS]
CASES = pytest.mark.parametrize(("name", "mode"), [(n, m) for n in NAMES for m in MODES])
seeds = st.integers(0, 10**6)


def space_of(name, mode):
    return SearchSpace(graph_of(name, mode))


def assert_equal(first, second):
    np.testing.assert_array_equal(first.removed, second.removed)
    np.testing.assert_array_equal(first.widths, second.widths)
    np.testing.assert_array_equal(first.skips, second.skips)


def assert_settled(space, candidates):
    """Only what is allowed is done, and settling again changes nothing."""
    graph = space.graph
    allowed = np.zeros(len(graph.nodes), bool)
    allowed[list(graph.removals)] = True
    assert not candidates.removed[:, ~allowed].any()
    full = np.array([group.width for group in graph.width_groups], np.int64)
    assert (candidates.widths >= 1).all()
    assert (candidates.widths <= full).all()
    for index, pair in enumerate(graph.skip_pairs):
        assert not (candidates.skips[:, index] & candidates.removed[:, pair.target]).any()
    assert_equal(space.settle(candidates), candidates)


@CASES
@SETTINGS
@hypothesis.given(seed=seeds)
def test_samples_are_settled_and_allowed(name, mode, seed):
    space = space_of(name, mode)
    candidates = space.sample(20, np.random.default_rng(seed))
    assert len(candidates) == 20
    assert_settled(space, candidates)
    for actions in space.to_actions(candidates[:5]):
        check_actions(space.graph, actions)


@CASES
@SETTINGS
@hypothesis.given(seed=seeds)
def test_mutants_are_settled_neighbours(name, mode, seed):
    space = space_of(name, mode)
    generator = np.random.default_rng(seed)
    parents = space.sample(20, generator)
    before = [part.copy() for part in (parents.removed, parents.widths, parents.skips)]
    mutants = space.mutate(parents, generator)
    assert len(mutants) == len(parents)
    assert_settled(space, mutants)
    # One thing was changed; what else differs, settling did: widths and skip connections.
    assert ((mutants.removed != parents.removed).sum(axis=1) <= 1).all()
    for part, copy in zip((parents.removed, parents.widths, parents.skips), before, strict=True):
        np.testing.assert_array_equal(part, copy)


@CASES
@SETTINGS
@hypothesis.given(seed=seeds)
def test_actions_name_candidates(name, mode, seed):
    space = space_of(name, mode)
    candidates = space.sample(10, np.random.default_rng(seed))
    actions = space.to_actions(candidates)
    assert_equal(space.from_actions(actions), candidates)
    assert space.to_actions(space.from_actions(actions)) == actions


@CASES
def test_the_teacher_is_no_action(name, mode):
    space = space_of(name, mode)
    assert space.to_actions(space.teacher()) == [ActionSet()]
    assert_equal(space.from_actions([ActionSet()]), space.teacher())
    assert_settled(space, space.teacher())


@pytest.mark.parametrize("name", ["resnet18", "shufflenet", "residual", "concatenated"])
def test_keys_are_equal_just_where_actions_are(name):
    space = space_of(name, "width")
    candidates = space.sample(50, np.random.default_rng(0))
    candidates = Candidates.concatenate([candidates, candidates[:10], space.teacher()])
    keys, actions = list(candidates.keys()), space.to_actions(candidates)
    assert len(keys) == 61
    assert len(set(keys)) == len(set(actions))
    assert keys[50:60] == keys[:10]


@pytest.mark.parametrize("name", ["resnet18", "concatenated"])
def test_codes_are_keys_that_numpy_takes(name):
    space = space_of(name, "width")
    candidates = space.sample(50, np.random.default_rng(0))
    candidates = Candidates.concatenate([candidates, candidates[:10]])
    codes = candidates.codes()
    assert codes.shape == (60,)
    assert [bytes(code) for code in codes] == list(candidates.keys())
    assert len(np.unique(codes)) == len(set(candidates.keys()))
    assert np.isin(codes[50:], codes[:50]).all()
    assert candidates[::2].codes().tolist() == codes[::2].tolist()
    assert candidates[:0].codes().dtype == codes.dtype


def test_a_candidate_to_which_nothing_can_be_done_has_a_code():
    nothing = Candidates(np.zeros((2, 0), bool), np.zeros((2, 0), np.int64), np.zeros((2, 0), bool))
    assert len(np.unique(nothing.codes())) == 1


def test_mutation_reaches_every_part_and_each_alone():
    space = space_of("resnet18", "dependency")
    parents = Candidates.concatenate([space.teacher()] * 300)
    mutants = space.mutate(parents, np.random.default_rng(0))
    parts = [
        (mutants.removed != parents.removed).any(axis=1),
        (mutants.widths != parents.widths).any(axis=1),
        (mutants.skips != parents.skips).any(axis=1),
    ]
    assert all(part.sum() > 50 for part in parts)
    assert (np.sum(parts, axis=0) <= 1).all()
    assert mutants.removed.sum(axis=1).max() == 1
    assert mutants.skips.sum(axis=1).max() == 1


def test_a_teacher_that_nothing_can_be_done_to():
    inputs = keras.Input((4,))
    space = SearchSpace(analyse(keras.Model(inputs, keras.layers.Dense(3)(inputs))))
    generator = np.random.default_rng(0)
    candidates = space.sample(3, generator)
    assert space.to_actions(space.mutate(candidates, generator)) == [ActionSet()] * 3
    assert space.log10_size == 0


def test_no_candidates():
    space = space_of("residual", "width")
    none = space.sample(0, np.random.default_rng(0))
    assert len(none) == 0
    assert space.to_actions(none) == []
    assert len(space.mutate(none, np.random.default_rng(0))) == 0
    assert len(space.from_actions([])) == 0


def test_draws_are_the_papers():
    space = space_of("resnet34", "width")
    candidates = space.sample(4000, np.random.default_rng(0))
    removable = sorted(space.graph.removals)
    share = candidates.removed[:, removable].mean()
    assert share == pytest.approx(np.mean(REMOVAL_PROBABILITIES), abs=0.02)
    full = np.array([group.width for group in space.graph.width_groups])
    # floor((1 - r) F) is uniform over 0 to F - 1, and the share 1 / F that is 0 becomes 1.
    expected = (full - 1) / 2 + 1 / full
    assert candidates.widths.mean(axis=0) == pytest.approx(expected, rel=0.05)
    kept_targets = ~candidates.removed[:, [pair.target for pair in space.graph.skip_pairs]]
    assert candidates.skips[kept_targets].mean() == pytest.approx(0.0196, abs=0.004)


@pytest.mark.parametrize("name", ["resnet18", "shufflenet"])
def test_no_width_group_shrinks_by_more_than_the_largest_ratio(name):
    graph = graph_of(name, "width")
    space, generator = SearchSpace(graph, max_shrinkage=0.9), np.random.default_rng(0)
    full = np.array([group.width for group in graph.width_groups])
    candidates = space.sample(4000, generator)
    mutants = space.mutate(candidates, generator)
    least = np.maximum(1, full // 10)
    for widths in (candidates.widths, mutants.widths):
        assert (widths.min(axis=0) == least).all()
        assert (widths <= full).all()
    # floor((1 - r) F) with r ~ U(0, 0.9)
    assert candidates.widths[:, -1].mean() == pytest.approx(0.55 * full[-1] - 0.5, rel=0.02)
    assert space.log10_size < SearchSpace(graph).log10_size


def test_equal_generators_draw_equal_candidates():
    space = space_of("resnet18", "width")
    first, second = (space.sample(5, np.random.default_rng(7)) for _ in range(2))
    assert_equal(first, second)


def test_joined_widths_are_the_least_of_their_widths():
    layers = keras.layers
    inputs = keras.Input((8, 8, 3))
    hidden = inputs
    for name in ("a", "b", "c", "d"):
        hidden = layers.Conv2D(8, 3, padding="same", name=name)(hidden)
    graph = analyse(keras.Model(inputs, layers.Conv2D(2, 1)(hidden)), "dependency")
    space = SearchSpace(graph)
    wanted = {"a": 7, "b": 5, "c": 6, "d": 3}
    settled = space.settle(space.from_actions([ActionSet.of(["c", "d"], wanted)]))
    assert dict(space.to_actions(settled)[0].widths) == {"a": 7, "b": 3, "c": 3, "d": 3}
    settled = space.settle(space.from_actions([ActionSet.of([], wanted, [("a", "d")])]))
    assert dict(space.to_actions(settled)[0].widths) == {"a": 6, "b": 5, "c": 6, "d": 3}


def test_the_size_counts_bits_and_widths():
    space = space_of("residual", "width")
    bits = len(space.graph.removals) + len(space.graph.skip_pairs)
    assert space.log10_size == pytest.approx(bits * np.log10(2) + np.log10(6 * 8))


def test_candidates_of_removals_alone_have_codes():
    """So few actions, and no width, that they are one byte."""
    inputs = keras.Input((6,))
    hidden = keras.layers.Lambda(lambda x: x + 1)(keras.layers.Dense(6)(inputs))
    space = SearchSpace(analyse(keras.Model(inputs, keras.layers.Dense(2)(hidden))))
    assert space.teacher().widths.shape == (1, 0)
    codes = space.sample(50, np.random.default_rng(0)).codes()
    assert len(np.unique(codes)) > 1
