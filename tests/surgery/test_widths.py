"""Narrower layers: nothing that is kept changes."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import small_models
from small_models import MODELS

from esnac_tf import surgery
from esnac_tf.errors import UserError
from esnac_tf.graph.parsing import named_layers
from surgery.nets import assert_equal_outputs, fresh, net, set_zero

layers = keras.layers


class TestSetWidth:
    @pytest.mark.parametrize(
        ("name", "layer", "width", "expected"),
        [
            ("residual", "stem", 2, {"stem": 2, "conv1": 2, "bn1": 2, "add1": 2, "conv2": 8}),
            ("residual", "project", 3, {"conv2": 3, "project": 3, "relu2": 3, "stem": 6}),
            ("concatenated", "first", 4, {"first": 4, "second": 4, "joined": 8, "norm": 8}),
            ("concatenated", "second", 1, {"first": 6, "second": 1, "joined": 7}),
            ("concatenated", "third", 2, {"third": 2, "flat": 72}),
            ("depthwise", "conv", 5, {"conv": 5, "depthwise": 10, "disguised": 10, "norm": 10}),
            ("flattened", "conv", 1, {"conv": 1, "norm": 1, "flat": 16, "hidden": 12}),
            ("flattened", "hidden", 7, {"hidden": 7, "again": 12}),
            ("grouped", "conv", 4, {"conv": 4, "grouped": 4}),
            ("grouped", "grouped", 2, {"conv": 6, "grouped": 2}),
        ],
    )
    def test_what_depends_on_it_follows(self, name, layer, width, expected):
        changed = surgery.set_width(net(name), layer, width)
        widths = {kept: changed.get_layer(kept).output.shape[-1] for kept in expected}
        assert widths == expected
        assert changed.output_shape == net(name).output_shape

    @pytest.mark.parametrize(
        ("layer", "width", "num_heads", "key_dim"),
        [("attention0/heads", 1, 1, 4), ("attention0/key_size", 3, 2, 3), ("attention0", 5, 2, 4)],
    )
    def test_of_a_layer_with_channels_of_several_kinds(self, layer, width, num_heads, key_dim):
        model = small_models.model("vision_transformer")
        changed = surgery.set_width(model, layer, width).get_layer("attention0")
        assert (changed.num_heads, changed.key_dim) == (num_heads, key_dim)
        assert changed.output.shape[-1] == (5 if layer == "attention0" else 8)
        with pytest.raises(
            UserError, match=r"of the kind 'keys'.\nGive one of: 'attention0/heads'"
        ):
            surgery.set_width(model, "attention0/keys", 2)

    def test_the_full_width_changes_nothing(self):
        assert_equal_outputs(net("residual"), surgery.set_width(net("residual"), "stem", 6))

    def test_takes_layers_and_whole_numbers_of_any_kind(self):
        model = net("residual")
        changed = surgery.set_width(model, model.get_layer("stem"), np.int64(4))
        assert changed.get_layer("stem").filters == 4

    @pytest.mark.parametrize("name", ["residual", "concatenated", "depthwise", "flattened"])
    def test_the_first_channels_are_those_that_stay_when_the_others_are_removed(self, name):
        layer = {"residual": "stem", "concatenated": "first"}.get(name, "conv")
        narrow = surgery.set_width(net(name), layer, 4, channel_importance="first")
        assert_equal_outputs(narrow, surgery.remove_channels(net(name), layer, [4, 5]))

    @pytest.mark.parametrize(
        ("name", "layer", "width", "reason"),
        [
            ("residual", "stem", 7, "can't be 7.\nIt can be 1 to 6"),
            ("residual", "stem", 0, "can't be 0.\nIt can be 1 to 6"),
            ("residual", "stem", 1.5, "a whole number, received 1.5"),
            ("residual", "top", 2, "'top' can't be fewer: they are an output of the model"),
            ("residual", "bn1", 2, "passes others on.\nThey are made by 'conv1', 'stem'"),
            ("residual", "top", 2, "an output of the model"),
            ("residual", "none", 2, "has no layer 'none'"),
            ("grouped", "conv", 5, "can't be 5.\nIts channels go in bundles; it can be 2, 4, 6"),
        ],
    )
    def test_errors_tell_what_can_be_had(self, name, layer, width, reason):
        with pytest.raises(UserError, match=reason) as caught:
            surgery.set_width(net(name), layer, width)
        assert str(caught.value).count("\n") == 1

    def test_of_many_bundles_the_nearest_are_told(self):
        inputs = keras.Input((3, 3, 3))
        hidden = layers.Conv2D(40, 1, name="conv")(inputs)
        hidden = layers.Conv2D(8, 1, groups=2)(hidden)
        model = keras.Model(inputs, layers.Conv2D(2, 1)(hidden))
        with pytest.raises(UserError, match="20 widths from 2 to 40; the nearest are 6 and 8"):
            surgery.set_width(model, "conv", 7)

    def test_pinned_with_another_layer(self):
        inputs = keras.Input((4,))
        first = layers.Dense(3, name="first")(inputs)
        total = layers.Add()([first, layers.Dense(3, name="second")(first)])
        with pytest.raises(UserError, match=r"\(with those of 'first'\) can't be fewer"):
            surgery.set_width(keras.Model(inputs, total), "second", 2)

    def test_layers_without_channels_of_a_known_kind(self):
        inputs = keras.Input((4,))
        hidden = small_models.SubclassedPart(name="unknown")(inputs)
        model = keras.Model(inputs, layers.Dense(2)(hidden))
        with pytest.raises(UserError, match="makes no channels that can be told apart"):
            surgery.set_width(model, "unknown", 3)


class TestRemoveChannels:
    """A channel that nothing listens to can go without a trace."""

    @pytest.mark.parametrize("gone", [[0], [2, 5], [0, 1, 2, 3, 4]])
    def test_of_a_residual_block(self, gone):
        model = fresh("residual")
        for consumer in ("conv1", "conv2", "project"):
            set_zero(model, consumer, gone)
        changed = surgery.remove_channels(model, "stem", gone)
        assert changed.get_layer("conv1").filters == 6 - len(gone)
        assert_equal_outputs(model, changed)
        assert_equal_outputs(changed, surgery.remove_channels(model, "conv1", gone), 0)

    def test_of_a_concatenation(self):
        model = fresh("concatenated")
        set_zero(model, "second", [1, 3])
        set_zero(model, "third", [4 + 1, 4 + 3])
        changed = surgery.remove_channels(model, "first", [1, 3])
        assert changed.get_layer("norm").gamma.shape == (8,)
        assert_equal_outputs(model, changed)

    def test_before_flatten(self):
        model = fresh("flattened")
        gone = [0, 4]
        set_zero(model, "hidden", [6 * place + channel for place in range(16) for channel in gone])
        changed = surgery.remove_channels(model, "conv", gone)
        assert changed.get_layer("hidden").kernel.shape == (64, 12)
        assert_equal_outputs(model, changed)

    def test_before_depthwise_convolutions(self):
        model = fresh("depthwise")
        set_zero(model, "top", [2, 3, 10, 11])
        changed = surgery.remove_channels(model, "conv", [1, 5])
        assert changed.get_layer("disguised").groups == 8
        assert_equal_outputs(model, changed)

    @pytest.mark.parametrize("gone", [[0, 3], [1, 5], [0, 1, 3, 5]])
    def test_of_a_grouped_convolution_one_of_each_block(self, gone):
        model = fresh("grouped")
        kernel = np.asarray(model.get_layer("grouped").kernel).copy()
        for channel in gone:  # kernel [.., 3 of a block, 2 outputs of either block]
            kernel[:, :, channel % 3, channel // 3 * 2 : channel // 3 * 2 + 2] = 0
        model.get_layer("grouped").kernel.assign(kernel)
        changed = surgery.remove_channels(model, "conv", gone)
        assert changed.get_layer("conv").filters == 6 - len(gone)
        np.testing.assert_array_equal(
            changed.get_layer("conv").bias, np.delete(model.get_layer("conv").bias, gone)
        )
        assert_equal_outputs(model, changed)

    def test_behind_a_channel_shuffle_no_other_changes_its_block(self):
        inputs = keras.Input((3, 3, 3))
        hidden = layers.Conv2D(10, 1, name="conv")(inputs)
        hidden = layers.Conv2D(10, 1, groups=2, name="first")(hidden)
        hidden = layers.Reshape((3, 3, 2, 5))(hidden)
        hidden = layers.Reshape((3, 3, 10))(layers.Permute((1, 2, 4, 3))(hidden))
        hidden = layers.Conv2D(4, 1, groups=2, name="second")(hidden)
        model = small_models.randomize(keras.Model(inputs, layers.Conv2D(2, 1)(hidden)))
        # The blocks of the second take [0, 5, 1, 6, 2] and [7, 3, 8, 4, 9].
        kernel = np.asarray(model.get_layer("second").kernel).copy()
        kernel[:, :, 0, :2] = 0  # channel 0
        kernel[:, :, 2, 2:] = 0  # channel 8
        model.get_layer("second").kernel.assign(kernel)
        changed = surgery.remove_channels(model, "first", [0, 8])
        assert changed.get_layer("first").filters == 8
        assert_equal_outputs(model, changed)
        with pytest.raises(UserError, match="others would reach another block of 'second'"):
            surgery.remove_channels(model, "first", [0, 1, 7, 8])

    def test_of_two_layers_that_are_balanced_together(self):
        inputs = keras.Input((3, 3, 3))
        both = [layers.Conv2D(4, 1, name=name)(inputs) for name in ("first", "second")]
        hidden = layers.Conv2D(4, 1, groups=2, name="grouped")(layers.Concatenate()(both))
        model = small_models.randomize(keras.Model(inputs, layers.Conv2D(2, 1)(hidden)))
        changed = surgery.remove_channels(model, "second", [1, 2])
        assert changed.get_layer("first").filters == 2
        second = np.asarray(model.get_layer("second").bias)
        np.testing.assert_array_equal(changed.get_layer("second").bias, second[[0, 3]])

    def test_none_is_a_copy_and_each_counts_once(self):
        model = net("residual")
        assert_equal_outputs(model, surgery.remove_channels(model, "stem", []), 0)
        once = surgery.remove_channels(model, "stem", np.array([2, 2]))
        assert once.get_layer("stem").filters == 5

    @pytest.mark.parametrize(
        ("name", "layer", "indices", "reason"),
        [
            ("residual", "stem", [6], "has no channel 6.\nIts channels are 0 to 5"),
            ("residual", "stem", [-1], "has no channel -1"),
            ("residual", "stem", [0.5], "must be given by their numbers"),
            ("residual", "stem", [True] * 6, r"np.flatnonzero\(mask\)"),
            ("residual", "stem", 3, "received 3"),
            ("residual", "stem", range(6), "channels 0, 1, 2, 3, 4, 5 of 'stem' one must stay"),
            ("residual", "top", [0], "they are an output of the model"),
            ("residual", "relu1", [0], "passes others on"),
            ("grouped", "conv", [0], r"can't go without others of it.\nGive .* such as \[0, 3\]"),
            ("grouped", "conv", [0, 1, 3], r"such as \[0, 1, 3, 4\]"),
            ("grouped", "grouped", [0, 1, 2, 3], "one must stay"),
        ],
    )
    def test_errors_tell_why(self, name, layer, indices, reason):
        with pytest.raises(UserError, match=reason) as caught:
            surgery.remove_channels(net(name), layer, indices)
        assert str(caught.value).count("\n") == 1

    def test_channels_that_can_never_go(self):
        """Of 3 and 2 channels in the halves of a grouped convolution's input, one is stuck."""
        inputs = keras.Input((3, 3, 3))
        hidden = layers.Concatenate()(
            [layers.Conv2D(5, 1, name="five")(inputs), layers.Conv2D(1, 1, name="one")(inputs)]
        )
        hidden = layers.Conv2D(4, 1, groups=2)(hidden)
        model = keras.Model(inputs, layers.Conv2D(2, 1)(hidden))
        groups = {group.name: group for group in surgery.channel_groups(model)}
        assert groups["five"].made_by == ("five", "one")
        with pytest.raises(UserError):
            surgery.remove_channels(model, "one", [0])

    @pytest.mark.parametrize("name", MODELS)
    def test_of_any_model(self, name):
        """Of every layer that can be narrower, the channels that go are the chosen ones."""
        model = small_models.model(name)
        for group in surgery.channel_groups(model):
            if not group.can_shrink or "/" in group.name:
                continue
            layer = group.made_by[0]
            kept = None
            for index in range(group.width):
                try:
                    kept = surgery.remove_channels(model, layer, [index])
                except UserError:
                    continue  # it goes in a bundle
                break
            weight = np.asarray(named_layers(model)[layer].weights[-1])
            if kept is not None and weight.shape[-1] == group.width:  # not so with gates
                np.testing.assert_array_equal(
                    kept.get_layer(layer).weights[-1], np.delete(weight, index, axis=-1)
                )
