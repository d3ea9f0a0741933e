"""Architectures and action sets as values."""

from __future__ import annotations

import json

import hypothesis
import hypothesis.strategies as st

from esnac_tf.architecture import (
    ActionSet,
    Architecture,
    LayerCall,
    LayerConfig,
    TensorReference,
    map_references,
    references,
)

names = st.text(min_size=1, max_size=8)
action_sets = st.builds(
    ActionSet.of,
    removed=st.lists(names, max_size=4),
    widths=st.dictionaries(names, st.integers(1, 512), max_size=4),
    skips=st.lists(st.tuples(names, names), max_size=4),
)
FEW = hypothesis.settings(max_examples=50, deadline=None, derandomize=True)


@FEW
@hypothesis.given(action_sets)
def test_action_sets_survive_json(actions):
    assert ActionSet.from_json(json.loads(json.dumps(actions.to_json()))) == actions


@FEW
@hypothesis.given(action_sets, st.randoms(use_true_random=False))
def test_order_and_repetition_do_not_matter(actions, random):
    def shuffled(values):
        values = list(values) + list(values)[:1]
        random.shuffle(values)
        return values

    widths = list(actions.widths)
    random.shuffle(widths)
    same = ActionSet.of(shuffled(actions.removed), dict(widths), shuffled(actions.skips))
    assert same == actions
    assert hash(same) == hash(actions)
    assert same.to_json() == actions.to_json()


def test_different_actions_differ():
    different = [
        ActionSet(),
        ActionSet.of(removed=["a"]),
        ActionSet.of(removed=["b"]),
        ActionSet.of(widths={"a": 1}),
        ActionSet.of(widths={"a": 2}),
        ActionSet.of(skips=[("a", "b")]),
        ActionSet.of(skips=[("b", "a")]),
    ]
    assert len(set(different)) == len(different)
    assert [actions.is_empty for actions in different] == [True] + [False] * 6


def test_numbers_of_numpy_become_plain():
    import numpy as np

    actions = ActionSet.of(widths={"64": np.int64(3)})
    assert json.dumps(actions.to_json()["widths"]) == '{"64": 3}'


def test_references_are_found_and_replaced_in_nested_arguments():
    a, b = TensorReference("a"), TensorReference("b", 1, 2)
    call = LayerCall("c", 0, ([a, {"x": b}], 3.0), {"mask": a, "flag": None})
    assert call.inputs == (a, b, a)
    replaced = call.map_references(lambda reference: b if reference == a else reference)
    assert replaced.inputs == (b, b, b)
    assert replaced.kwargs["flag"] is None
    assert replaced.args[1] == 3.0
    assert list(references(map_references(lambda reference: reference, (a, [b])))) == [a, b]


def test_outputs_of_a_call_are_those_that_are_used_in_order():
    call = LayerCall("lstm", 1, (), {})
    used = {TensorReference("lstm", 1, 2): (None, 3), TensorReference("lstm", 1, 1): (None, 4)}
    other = {TensorReference("lstm", 0, 0): (None, 5)}
    architecture = Architecture("m", {}, (call,), None, None, {**used, **other})
    assert [reference.output for reference in architecture.outputs_of(call)] == [1, 2]


def test_a_layer_config_is_changed_into_a_new_one():
    layer = LayerConfig("c", "Conv2D", "keras.layers", {"filters": 3, "groups": 1})
    assert layer.replace(filters=2).config == {"filters": 2, "groups": 1}
    assert layer.config["filters"] == 3
    assert layer.is_keras_layer
    assert not LayerConfig("c", "Conv2D", "mine", {}).is_keras_layer
