"""Features of students, number by number."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from small_models import MODELS, MODES, TEACHERS, graph_of

from esnac_tf.architecture import ActionSet
from esnac_tf.encoding import MAX_DISTANCE, NUM_FEATURES, Encoder
from esnac_tf.graph.teacher import analyse
from esnac_tf.layers.handler import KINDS
from esnac_tf.search_space.space import SearchSpace

INCOMING, OUTGOING = 16, 144


def encode(graph, *actions):
    candidates = SearchSpace(graph).from_actions(actions)
    return Encoder(graph).encode(candidates.removed, candidates.widths, candidates.skips)


def edges(features):
    """(source, target) of every edge, from the incoming and from the outgoing bits."""
    incoming = {
        (int(row - bit - 1), int(row))
        for row, bit in np.argwhere(features[:, INCOMING:OUTGOING] == 1)
    }
    outgoing = {
        (int(row), int(row + bit + 1)) for row, bit in np.argwhere(features[:, OUTGOING:] == 1)
    }
    return incoming, outgoing


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [*TEACHERS, *MODELS])
def test_contract(name, mode):
    graph = graph_of(name, mode)
    candidates = SearchSpace(graph).sample(5, np.random.default_rng(0))
    features = Encoder(graph).encode(candidates.removed, candidates.widths, candidates.skips)
    assert features.shape == (5, len(graph.nodes), NUM_FEATURES)
    assert features.dtype == np.float32
    assert np.isfinite(features).all()
    np.testing.assert_array_equal(features[..., : len(KINDS)].sum(-1), ~candidates.removed)
    assert not features[candidates.removed][:, :INCOMING].any()
    existing = {(s, t) for t, node in enumerate(graph.nodes) for s in node.predecessors}
    for row in range(5):
        added = {
            (graph.skip_pairs[index].source, graph.skip_pairs[index].target)
            for index in np.flatnonzero(candidates.skips[row])
        }
        expected = {(s, t) for s, t in existing | added if t - s <= MAX_DISTANCE}
        assert edges(features[row]) == (expected, expected)


def test_rows_of_a_teacher():
    graph = graph_of("residual", "width")
    features = encode(graph, ActionSet())[0]
    kinds = [KINDS[row] for row in features[:, : len(KINDS)].argmax(axis=1)]
    assert kinds == [
        "convolution",
        "convolution",
        "normalization",
        "activation",
        "convolution",
        "convolution",
        "activation",
        "average_pooling",
        "dense",
    ]
    # kernel size, stride, padding, groups, input width, output width
    np.testing.assert_array_equal(features[0, 10:16], [3, 1, 1, 1, 3, 6])
    np.testing.assert_array_equal(features[2, 10:16], [0, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(features[5, 10:16], [1, 1, 0, 1, 6, 8])
    np.testing.assert_array_equal(features[8, 10:16], [0, 0, 0, 0, 8, 3])
    assert edges(features)[0] == {
        (0, 1), (1, 2), (0, 3), (2, 3), (3, 4), (3, 5), (4, 6), (5, 6), (6, 7), (7, 8),
    }  # fmt: skip


def test_rows_of_a_student():
    actions = ActionSet.of(["bn1"], {"6": 2, "8": 5}, [("stem", "conv2")])
    features = encode(graph_of("residual", "width"), ActionSet(), actions)
    teacher, student = features
    np.testing.assert_array_equal(student[0, 14:16], [3, 2])
    np.testing.assert_array_equal(student[4, 14:16], [2, 5])
    np.testing.assert_array_equal(student[8, 14:16], [5, 3])
    assert not student[2, :INCOMING].any()
    assert edges(student)[0] - edges(teacher)[0] == {(0, 4)}
    assert edges(student)[1] >= edges(teacher)[1]


def test_a_student_does_not_change_the_next():
    graph = graph_of("residual", "width")
    before = encode(graph, ActionSet())
    encoder = Encoder(graph)
    candidates = SearchSpace(graph).sample(20, np.random.default_rng(0))
    encoder.encode(candidates.removed, candidates.widths, candidates.skips)
    teacher = SearchSpace(graph).teacher()
    np.testing.assert_array_equal(
        encoder.encode(teacher.removed, teacher.widths, teacher.skips), before
    )


def test_edges_that_are_too_long_are_left_out():
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(4, name="first")(inputs)
    for index in range(140):
        hidden = keras.layers.ReLU(name=f"relu{index}")(hidden)
    graph = analyse(keras.Model(inputs, keras.layers.Dense(2, name="top")(hidden)))
    plain, near, far = encode(
        graph,
        ActionSet(),
        ActionSet.of(skips=[("first", f"relu{MAX_DISTANCE - 1}")]),
        ActionSet.of(skips=[("first", f"relu{MAX_DISTANCE}")]),
    )
    assert edges(near)[0] - edges(plain)[0] == {(0, MAX_DISTANCE)}
    np.testing.assert_array_equal(far, plain)


def test_no_students():
    graph = graph_of("residual", "width")
    assert encode(graph).shape == (0, len(graph.nodes), NUM_FEATURES)


def test_heads_and_key_sizes_are_told():
    inputs = keras.Input((4, 8))
    attention = keras.layers.MultiHeadAttention(4, 6, name="attention")(inputs, inputs)
    graph = analyse(keras.Model(inputs, keras.layers.Dense(2)(attention)), "dependency")
    names = [group.name for group in graph.width_groups]
    full = np.array([group.width for group in graph.width_groups])
    heads, keys = full.copy(), full.copy()
    heads[names.index("attention/heads")] = 3
    keys[[index for index, name in enumerate(names) if "key" in name]] = 2
    widths = np.stack([full, heads, keys])
    features = Encoder(graph).encode(
        np.zeros((3, len(graph.nodes)), bool), widths, np.zeros((3, len(graph.skip_pairs)), bool)
    )
    row = graph.position["attention"]
    assert features[:, row, 10:12].tolist() == [[4, 6], [3, 6], [4, 2]]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [*TEACHERS, *MODELS])
def test_features_that_no_student_has_are_left_out(name, mode):
    graph = graph_of(name, mode)
    candidates = SearchSpace(graph).sample(200, np.random.default_rng(0))
    actions = candidates.removed, candidates.widths, candidates.skips
    whole, encoder = Encoder(graph).encode(*actions), Encoder(graph, only_used=True)
    few = encoder.encode(*actions)
    np.testing.assert_array_equal(few, whole[..., encoder.columns])
    assert not np.delete(whole, encoder.columns, axis=-1).any()
