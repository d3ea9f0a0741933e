"""Layers removed and connections added; what every kind of surgery has in common."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import small_models
from small_models import MODELS, builder_of, examples_for, run

import esnac_tf
from esnac_tf import surgery
from esnac_tf.architecture import ActionSet
from esnac_tf.errors import InfeasibleStudentError, UserError
from esnac_tf.graph.teacher import analyse
from esnac_tf.student import StudentBuilder
from surgery.nets import NETS, assert_equal_outputs, fresh, net

layers = keras.layers

OPERATIONS = {
    "remove_layer": ("residual", lambda model: surgery.remove_layer(model, "bn1")),
    "remove_layers": ("flattened", lambda model: surgery.remove_layers(model, ["again", "norm"])),
    "set_width": ("depthwise", lambda model: surgery.set_width(model, "conv", 4)),
    "remove_channels": ("concatenated", lambda model: surgery.remove_channels(model, "first", [1])),
    "add_skip_connection": (
        "residual",
        lambda model: surgery.add_skip_connection(model, "stem", "bn1"),
    ),
    "apply": ("flattened", lambda model: surgery.apply(model, ActionSet.of(["norm"]))),
}


@pytest.mark.parametrize("name", OPERATIONS)
class TestEveryOperation:
    def test_leaves_the_given_model_as_it_is(self, name):
        net_name, operate = OPERATIONS[name]
        model = fresh(net_name)
        config, weights = model.get_config(), model.get_weights()
        examples = examples_for(model)
        outputs = run(model, examples)
        changed = operate(model)
        for weight in changed.weights:
            weight.assign(weight + 1)
        assert model.get_config() == config
        for before, after in zip(weights, model.get_weights(), strict=True):
            np.testing.assert_array_equal(after, before)
        np.testing.assert_array_equal(run(model, examples), outputs)

    def test_saves_and_reloads(self, name, tmp_path):
        net_name, operate = OPERATIONS[name]
        changed = operate(net(net_name))
        changed.save(tmp_path / "changed.keras")
        loaded = keras.saving.load_model(tmp_path / "changed.keras")
        examples = examples_for(changed)
        np.testing.assert_array_equal(run(loaded, examples), run(changed, examples))

    def test_keeps_names_inputs_and_outputs(self, name):
        net_name, operate = OPERATIONS[name]
        model = net(net_name)
        changed = operate(model)
        assert changed.name == model.name
        assert changed.input_shape == model.input_shape
        assert changed.output_shape == model.output_shape
        assert changed.output_names == keras.Model(model.inputs, model.outputs).output_names
        assert not changed.compiled

    def test_compiles_the_model_as_the_given_one_is(self, name):
        net_name, operate = OPERATIONS[name]
        model = fresh(net_name)
        model.compile(keras.optimizers.Adam(0.03), "mse", metrics=["mae"])
        changed = operate(model)
        x = examples_for(model, count=4)
        y = np.zeros((4, *model.output_shape[1:]), "float32")
        assert set(changed.evaluate(x, y, return_dict=True, verbose=0)) == {"loss", "mae"}
        assert float(changed.optimizer.learning_rate) == pytest.approx(0.03)
        changed.fit(x, y, verbose=0)
        assert changed.optimizer is not model.optimizer


def test_is_found_at_the_root():
    assert esnac_tf.surgery is surgery
    assert set(surgery.__all__) <= set(vars(surgery))


def test_what_can_not_be_compiled_anew_is_told_and_the_model_given():
    model = fresh("residual")
    model.compile("adam", "mse", metrics=[lambda labels, outputs: outputs - labels])
    with pytest.warns(UserWarning, match="can't be compiled as .* is: .*\n"):
        changed = surgery.remove_layer(model, "bn1")
    assert not changed.compiled
    assert_equal_outputs(changed, surgery.remove_layer(net("residual"), "bn1"))


def test_what_keras_can_not_build_is_told(monkeypatch):
    def refuse(builder, actions):
        raise InfeasibleStudentError("layer 'top': no")

    monkeypatch.setattr(StudentBuilder, "build", refuse)
    with pytest.raises(UserError, match="can't be built: layer 'top': no"):
        surgery.remove_layer(net("residual"), "bn1")


class TestRemoveLayer:
    def test_is_the_identity(self):
        model = net("residual")
        changed = surgery.remove_layer(model, "bn1")
        assert "bn1" not in [layer.name for layer in changed.layers]
        same = fresh("residual")
        norm = same.get_layer("bn1")
        norm.gamma.assign(np.sqrt(norm.moving_variance + norm.epsilon))
        norm.beta.assign(norm.moving_mean)
        assert_equal_outputs(same, changed, tolerance=1e-4)

    def test_takes_layers_as_objects(self):
        model = net("flattened")
        changed = surgery.remove_layer(model, model.get_layer("dropout"))
        assert_equal_outputs(model, changed)
        assert len(changed.layers) == len(model.layers)  # without one, with the input

    def test_a_branch_goes_with_its_sum(self):
        changed = surgery.remove_layers(net("residual"), ["conv1", "bn1"])
        assert "add1" not in [layer.name for layer in changed.layers]

    def test_no_layer_is_a_copy(self):
        assert_equal_outputs(net("residual"), surgery.remove_layers(net("residual"), []))

    @pytest.mark.parametrize("name", NETS)
    def test_what_is_listed_can_be_removed(self, name):
        model = net(name)
        listed = surgery.removable_layers(model)
        for layer in listed:
            changed = surgery.remove_layer(model, layer)
            assert layer not in [kept.name for kept in changed.layers]
        changed = surgery.remove_layers(model, listed)
        assert changed.output_shape == model.output_shape

    def test_lists_what_can_be_removed(self):
        assert surgery.removable_layers(net("residual")) == ["conv1", "bn1", "relu1", "relu2"]
        listed = surgery.removable_layers(net("flattened"))
        assert listed == ["norm", "dropout", "again"]

    @pytest.mark.parametrize(
        ("model", "layer", "reason"),
        [
            ("residual", "conv11", "has no layer 'conv11'. Did you mean 'conv1'"),
            ("residual", 3, "received int"),
            ("residual", "add1", "'add1' is a sum"),
            ("residual", "conv2", r"takes \[8, 8, 6\] and gives \[8, 8, 8\]"),
            ("residual", "top", "gives an output of the model"),
            ("shared_layer", "shared", "called 2 times"),
            ("squeeze_excite", "multiply", "takes 2 inputs"),
        ],
    )
    def test_errors_tell_why(self, model, layer, reason):
        model = MODELS[model]()
        if layer == "multiply":
            layer = next(kept.name for kept in model.layers if "multiply" in kept.name)
        with pytest.raises(UserError, match=reason) as caught:
            surgery.remove_layer(model, layer)
        assert str(caught.value).count("\n") == 1

    def test_errors_tell_of_inputs_preprocessing_shuffles_and_unknown_layers(self):
        inputs = keras.Input((4, 4, 4), name="image")
        hidden = layers.Rescaling(0.5, name="scale")(inputs)
        hidden = layers.Conv2D(4, 1, name="conv")(hidden)
        hidden = layers.Reshape((4, 4, 2, 2), name="split")(hidden)
        hidden = layers.Permute((1, 2, 4, 3), name="swap")(hidden)
        hidden = layers.Reshape((4, 4, 4), name="join")(hidden)
        hidden = layers.GaussianNoise(0.1, name="known?")(hidden)
        hidden = small_models.SubclassedPart(name="unknown")(hidden)
        model = keras.Model(inputs, layers.Conv2D(2, 1, name="top")(hidden))
        for layer, reason in {
            "image": "'image' is an input of the model",
            "scale": "'scale' prepares the model's input",
            "swap": "part of what 'split' begins; remove that",
            "unknown": r"it takes \[4, 4, 4\] and gives \[4, 4, 6\]",
        }.items():
            with pytest.raises(UserError, match=reason):
                surgery.remove_layer(model, layer)
        changed = surgery.remove_layer(model, "split")
        assert not {"split", "swap", "join"} & {layer.name for layer in changed.layers}

    def test_a_layer_of_another_model_is_refused(self):
        with pytest.raises(UserError, match="'bn1' is none of the model"):
            surgery.remove_layer(net("residual"), fresh("residual").get_layer("bn1"))

    def test_a_name_is_no_list(self):
        with pytest.raises(UserError, match="received the name 'bn1'"):
            surgery.remove_layers(net("residual"), "bn1")

    def test_layers_whose_widths_would_part_are_refused(self):
        inputs = keras.Input((6,))
        hidden = layers.Dense(6, name="first")(inputs)
        model = keras.Model(inputs, layers.Dense(2)(hidden))
        with pytest.raises(UserError, match="what it gives can get narrower"):
            surgery.remove_layer(model, "first")


class TestAddSkipConnection:
    def test_adds(self):
        model = net("residual")
        changed = surgery.add_skip_connection(
            model, model.get_layer("stem"), model.get_layer("bn1")
        )
        total = changed.get_layer("bn1_skip")
        assert [tensor.name for tensor in total.input] == [
            changed.get_layer(name).output.name for name in ("conv1", "stem")
        ]
        skipped = surgery.remove_layer(model, "conv1")  # the branch is stem, or conv1 + stem
        zero = fresh("residual")
        for weight in zero.get_layer("conv1").weights:
            weight.assign(0 * weight)
        added = surgery.add_skip_connection(zero, "stem", "bn1")
        assert_equal_outputs(skipped, added)

    @pytest.mark.parametrize("name", NETS)
    def test_what_is_listed_can_be_added(self, name):
        model = net(name)
        for source, target in surgery.skip_connections(model)[:6]:
            changed = surgery.add_skip_connection(model, source, target)
            assert len(changed.weights) == len(model.weights)

    @pytest.mark.parametrize(
        ("source", "target", "reason"),
        [
            ("relu1", "bn1", "'relu1' does not run before 'bn1'"),
            ("conv1", "bn1", "connected already"),
            ("stem", "relu2", r"gives \[8, 8, 6\] and 'relu2' takes \[8, 8, 8\]"),
            ("add1", "relu2", "'add1' is a sum"),
            ("stem", "nothing", "has no layer 'nothing'"),
        ],
    )
    def test_errors_tell_why(self, source, target, reason):
        with pytest.raises(UserError, match=reason) as caught:
            surgery.add_skip_connection(net("residual"), source, target)
        assert str(caught.value).count("\n") == 1

    def test_connected_already_is_not_listed(self):
        pairs = surgery.skip_connections(net("residual"))
        assert ("stem", "bn1") in pairs
        assert ("conv1", "bn1") not in pairs

    def test_in_a_channel_shuffle_the_ends_are_named(self):
        inputs = keras.Input((4, 4, 4))
        hidden = layers.Conv2D(4, 1, name="conv")(inputs)
        hidden = layers.Reshape((4, 4, 2, 2), name="split")(hidden)
        hidden = layers.Permute((1, 2, 4, 3), name="swap")(hidden)
        hidden = layers.Reshape((4, 4, 4), name="join")(hidden)
        hidden = layers.Conv2D(4, 1, name="next")(layers.ReLU(name="relu")(hidden))
        model = keras.Model(inputs, layers.Conv2D(2, 1, name="top")(hidden))
        assert surgery.add_skip_connection(model, "join", "next").get_layer("next_skip")
        with pytest.raises(UserError, match="'split' is one with 'join', after it; connect that"):
            surgery.add_skip_connection(model, "split", "next")
        with pytest.raises(UserError, match="'swap' is one with 'split', before it; connect that"):
            surgery.add_skip_connection(model, "conv", "swap")


class TestApply:
    def test_does_several_things_at_once(self):
        actions = ActionSet.of(["relu2"], {"stem": 3, "conv2": 4}, [("stem", "bn1")])
        changed = surgery.apply(net("residual"), actions)
        assert changed.get_layer("conv1").filters == 3
        assert changed.get_layer("project").filters == 4

    def test_takes_what_a_search_by_width_found(self):
        model = small_models.model("residual")
        actions = ActionSet.of(["bn1"], {"6": 2})
        changed = surgery.apply(model, actions, channel_groups="width")
        assert_equal_outputs(builder_of("residual", "width").build(actions), changed, 0)

    def test_what_a_search_protected_stays(self):
        inputs = keras.Input((4,))
        hidden = layers.Dense(8, name="second")(layers.Dense(8, name="first")(inputs))
        model = keras.Model(inputs, layers.Dense(2, name="top")(hidden))
        actions, settings = ActionSet.of(widths={"8": 3}), {"channel_groups": "width"}
        changed = surgery.apply(model, actions, **settings, protect="^first")
        assert [changed.get_layer(name).units for name in ("first", "second")] == [8, 3]
        graph = analyse(model, "width", "^first")
        assert_equal_outputs(StudentBuilder(model, graph).build(actions), changed, 0)

    @pytest.mark.parametrize(
        ("actions", "settings", "reason"),
        [
            (ActionSet(), {"protect": "("}, "protect must be a regular expression"),
            (ActionSet(), {"protect": "nothing"}, "protect='nothing' matches no layer"),
            (ActionSet.of(["stem"]), {}, "'stem' can't be removed"),
            (ActionSet.of(widths={"stem": 99}), {}, "can't have the width 99"),
            (ActionSet.of(widths={"6": 2, "nothing": 1}), {}, "'6' can't have the width 2"),
            (ActionSet(), {"channel_groups": "none"}, "channel_groups must be"),
            (ActionSet(), {"channel_importance": "none"}, "channel_importance must be"),
        ],
    )
    def test_errors(self, actions, settings, reason):
        with pytest.raises(UserError, match=reason):
            surgery.apply(net("residual"), actions, **settings)

    @pytest.mark.parametrize(
        ("group", "given", "needed"),
        [("6", "dependency", "width"), ("stem", "width", "dependency")],
    )
    def test_the_setting_of_the_search_is_asked_for(self, group, given, needed):
        actions = ActionSet.of(widths={group: 2})
        with pytest.raises(UserError) as caught:
            surgery.apply(net("residual"), actions, channel_groups=given)
        assert f"no channel group {group!r} with channel_groups={given!r}" in str(caught.value)
        assert f"With channel_groups={needed!r} it has" in str(caught.value).splitlines()[1]
        surgery.apply(net("residual"), actions, channel_groups=needed)

    def test_a_model_without_a_graph_is_refused(self):
        with pytest.raises(UserError, match="not functional"):
            surgery.apply(small_models.SubclassedPart(), ActionSet())

    @pytest.mark.parametrize("name", MODELS)
    def test_no_action_is_a_copy_of_any_model(self, name):
        model = small_models.model(name)
        assert_equal_outputs(model, surgery.apply(model, ActionSet()), 0)
