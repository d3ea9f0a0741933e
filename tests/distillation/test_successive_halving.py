"""Which students go on: those that are better, and one at least."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from esnac_tf.distillation import TrainingConfig, losses, train
from esnac_tf.distillation.successive_halving import discarded, rungs, student_epochs

from .tiny import ArrayBatches, conv_net, pictures, validation


@given(st.integers(1, 64), st.integers(1, 300), st.integers(1, 9))
def test_rungs_rise_within_the_epochs_and_leave_ever_fewer(num_students, num_epochs, factor):
    found = rungs(num_students, num_epochs, factor)
    epochs, sizes = list(found), list(found.values())
    assert epochs == sorted(set(epochs))
    assert sizes == sorted(sizes, reverse=True)
    assert all(1 <= epoch < num_epochs for epoch in epochs)
    assert all(1 <= size < num_students for size in sizes)
    assert bool(found) == (factor > 1 and num_students >= factor and num_epochs >= factor)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((8, 10, 2), {1: 4, 2: 2, 5: 1}),
        ((9, 27, 3), {3: 3, 9: 1}),
        ((6, 5, 2), {1: 3, 2: 2}),
        ((8, 10, 1), {}),
        ((1, 10, 2), {}),
        ((4, 1, 2), {}),
    ],
)
def test_rungs_by_hand(arguments, expected):
    assert rungs(*arguments) == expected


@given(st.integers(1, 64), st.integers(1, 300), st.integers(1, 9))
def test_epochs_of_all_students(num_students, num_epochs, factor):
    left = sorted(rungs(num_students, num_epochs, factor).items())
    expected = sum(
        next((size for end, size in reversed(left) if end < epoch), num_students)
        for epoch in range(1, num_epochs + 1)
    )
    assert student_epochs(num_students, num_epochs, factor) == expected


@given(st.dictionaries(st.integers(0, 9), st.floats(0, 1)), st.integers(0, 12))
def test_no_one_discarded_is_better_than_one_who_stays(scores, num_kept):
    ended = discarded(scores, num_kept)
    stay = set(scores) - set(ended)
    assert len(stay) == min(num_kept, len(scores))
    assert all(scores[one] <= scores[other] for one in ended for other in stay)


def test_a_discarded_student_has_the_weights_of_fewer_epochs():
    config = TrainingConfig(epochs=3, learning_rate=0.01)
    x, y = pictures(48)
    rows = validation(*pictures(32, seed=1))

    def trained(seeds, config, **arguments):
        students = [conv_net(3, seed) for seed in seeds]
        outcomes = train(
            students,
            ArrayBatches(x, y),
            rows,
            config,
            loss=losses.get("cross_entropy"),
            **arguments,
        )
        return students, outcomes

    seen = []

    def discard(epoch, qualities, num_students):
        seen.append((epoch, sorted(qualities)))
        assert num_students == 2
        return [1] if epoch == 1 else []

    students, outcomes = trained([1, 2], config, discard=discard)
    assert seen == [(1, [0, 1]), (2, [0]), (3, [0])]
    assert [len(outcome.history) for outcome in outcomes] == [3, 1]
    assert outcomes[1].failure is None
    [one], _ = trained([1], config)
    [other], _ = trained([2], TrainingConfig(epochs=1, learning_rate=0.01))
    for model, alone in ((students[0], one), (students[1], other)):
        for left, right in zip(model.get_weights(), alone.get_weights(), strict=True):
            np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-6)
