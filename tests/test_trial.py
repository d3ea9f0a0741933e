"""Trials as values that read and write JSON."""

from __future__ import annotations

import json

import hypothesis
import hypothesis.strategies as st

from esnac_tf.architecture import ActionSet
from esnac_tf.trial import COMPLETE, FAILED, Trial

numbers = st.floats(0, 1, allow_nan=False)
trials = st.builds(
    Trial,
    number=st.integers(0, 500),
    state=st.sampled_from([COMPLETE, FAILED]),
    actions=st.builds(
        ActionSet.of, st.lists(st.text()), st.dictionaries(st.text(), st.integers(1, 9))
    ),
    num_params=st.none() | st.integers(1, 10**9),
    flops=st.none() | st.integers(0, 10**12),
    validation_metric=st.none() | numbers,
    objective=st.none() | numbers,
    duration_secs=st.floats(0, 1e6),
    step=st.integers(0, 20),
    best_epoch=st.none() | st.integers(1, 10),
    num_epochs=st.none() | st.integers(1, 10),
    failure=st.none() | st.text(),
)


@hypothesis.settings(max_examples=50, deadline=None, derandomize=True)
@hypothesis.given(trials)
def test_trials_survive_json(trial):
    assert Trial.from_json(json.loads(json.dumps(trial.to_json()))) == trial


def test_fields_of_a_later_version_are_ignored():
    trial = Trial(0, COMPLETE, ActionSet(), 100, 2000, 0.5, 0.4, 1.0)
    assert Trial.from_json({**trial.to_json(), "mood": "good"}) == trial


def test_fields_that_an_earlier_version_did_not_write_have_defaults():
    values = Trial(0, FAILED, ActionSet(), None, None, None, None, 1.0).to_json()
    for field in ("step", "best_epoch", "failure"):
        del values[field]
    trial = Trial.from_json(values)
    assert (trial.step, trial.best_epoch, trial.failure) == (0, None, None)
    assert not trial.is_complete
