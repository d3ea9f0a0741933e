"""Recurrent layers: they make channels of their input's channels and of their own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from esnac_tf.architecture import Constant, LayerConfig
from esnac_tf.layers.calls import OutputLabels, TensorCall, as_tensor, pinned
from esnac_tf.layers.channels import ChannelTensor, ChannelTrace, Labels, place
from esnac_tf.layers.handler import (
    LayerHandler,
    channel_axis,
    compares_channels,
    consume,
    create,
    elements,
    keeps_zero,
)
from esnac_tf.layers.weights import Axis, WeightAxes
from esnac_tf.layers.wrappers import replace_wrapped, wrapped

# Of each class its number of gates, whose blocks lie one after the other along an axis of its
# weights, its number of states, and the name of the part that has the weights.
_CELLS = {
    "GRU": (3, 1, "gru_cell"),
    "LSTM": (4, 2, "lstm_cell"),
    "SimpleRNN": (1, 1, "simple_rnn_cell"),
}


class Recurrent(LayerHandler):
    """SimpleRNN, GRU and LSTM: each unit is a channel, in the output and in every state."""

    class_names: ClassVar[tuple[str, ...]] = tuple(_CELLS)
    kind = "dense"

    def weight_axes(self, layer: LayerConfig) -> Mapping[str, WeightAxes]:
        """A block with all units for each gate."""
        return _axes(layer, "out")

    def propagate(self, call: TensorCall, trace: ChannelTrace) -> OutputLabels:
        """Consumes the input's channels and creates `units` new ones."""
        consume(call.layer, call.inputs[0], 1, trace)
        units = _units(call.layer, trace, "out")
        _join_states(call, [units], trace)
        return _outputs(call.layer, [units], [units])

    def vanishes(self, call: TensorCall) -> bool:
        """Where the first states are zero, and the activation keeps it."""
        return _starts_with_zero(call) and keeps_zero(call.layer.config["activation"])

    def resize(self, call: TensorCall, widths: Mapping[str, int]) -> LayerConfig:
        """Sets `units`."""
        return call.layer.replace(units=widths["out"])

    def multiply_adds(self, call: TensorCall) -> int:
        """Gates * units * (input channels + units), for each time step."""
        return _multiply_adds(call, call.layer)


class Bidirectional(LayerHandler):
    """Two recurrent layers, one of which reads backwards.

    The units of each are a set of channels: "out" those that read forwards, and "backward". As
    Keras takes both for equally many, they are balanced.
    """

    class_names = ("Bidirectional",)
    kind = "dense"

    def weight_axes(self, layer: LayerConfig) -> Mapping[str, WeightAxes]:
        """The weights of both layers."""
        if not _is_known(layer):
            return {}
        axes: dict[str, WeightAxes] = {}
        for part, role in _parts(layer):
            path = f"{part.config['name']}/{_CELLS[part.class_name][2]}"
            for name, value in _axes(part, role).items():
                axes[f"{path}/{name}"] = value
        return axes

    def propagate(self, call: TensorCall, trace: ChannelTrace) -> OutputLabels:
        """The units of both, one after the other or tied, as `merge_mode` says."""
        if not _is_known(call.layer):
            return pinned(call, trace)
        consume(call.layer, call.inputs[0], 1, trace)
        forward, backward = units = [_units(part, trace, role) for part, role in _parts(call.layer)]
        _join_states(call, units, trace)
        if len(forward) == len(backward):
            trace.balance(np.stack(units))
        else:
            trace.pin(np.concatenate(units))
        merge_mode = call.layer.config["merge_mode"]
        if merge_mode is None:
            given = units
        elif merge_mode == "concat":
            given = [np.concatenate(units)]
        else:
            trace.tie(forward, backward)
            given = [forward]
        return _outputs(wrapped(call.layer), given, units)

    def vanishes(self, call: TensorCall) -> bool:
        """Where both do."""
        return (
            _starts_with_zero(call)
            and _is_known(call.layer)
            and all(keeps_zero(part.config["activation"]) for part, _ in _parts(call.layer))
        )

    def resize(self, call: TensorCall, widths: Mapping[str, int]) -> LayerConfig:
        """Sets the `units` of both."""
        layer = call.layer
        if _is_known(layer):
            for key, role in (("layer", "out"), ("backward_layer", "backward")):
                layer = replace_wrapped(layer, {"units": widths[role]}, key)
        return layer

    def multiply_adds(self, call: TensorCall) -> int:
        """Those of both layers."""
        if not _is_known(call.layer):
            return 0
        return sum(_multiply_adds(call, part) for part, _ in _parts(call.layer))


def _is_known(layer: LayerConfig) -> bool:
    """Whether what a Bidirectional holds are recurrent layers of Keras's own."""
    return all(
        wrapped(layer, key).class_name in _CELLS and wrapped(layer, key).is_keras_layer
        for key in ("layer", "backward_layer")
    )


def _parts(layer: LayerConfig) -> list[tuple[LayerConfig, str]]:
    """The two layers of a Bidirectional, each with the role of its units."""
    return [(wrapped(layer), "out"), (wrapped(layer, "backward_layer"), "backward")]


def _axes(layer: LayerConfig, role: str) -> dict[str, WeightAxes]:
    gates = Axis(role, blocks=_CELLS[layer.class_name][0])
    return {
        "kernel": ("in", gates),
        "recurrent_kernel": (role, gates),
        "bias": (..., gates),  # of a GRU with `reset_after` two, one below the other
    }


def _units(layer: LayerConfig, trace: ChannelTrace, role: str) -> Labels:
    """The channels that a recurrent layer creates."""
    units = create(layer, layer.config["units"], trace, role)
    if compares_channels(layer.config.get("recurrent_activation")):
        trace.pin(units)
    return units


def _join_states(call: TensorCall, units: Sequence[Labels], trace: ChannelTrace) -> None:
    """Ties given initial states to the units; what else a call takes, a mask, is kept.

    Of two layers, the first half of the states is the first one's.
    """
    given = call.argument(1, "initial_state")
    states = given if isinstance(given, (list, tuple)) else [given]
    states = [as_tensor(state) for state in states if isinstance(state, (ChannelTensor, Constant))]
    for number, state in enumerate(states):
        channels = state.along(0)
        if channels is None:
            trace.pin(state.labels)
            trace.pin(units[number * len(units) // len(states)])
        else:
            trace.tie(units[number * len(units) // len(states)], channels)
    for tensor in call.inputs[1:]:
        if not any(tensor is state for state in states):
            trace.pin(tensor.labels)


def _starts_with_zero(call: TensorCall) -> bool:
    """Whether a recurrent layer is given no states."""
    return len(call.inputs) == 1 and not call.constants


def _outputs(
    layer: LayerConfig, given: Sequence[Labels], units: Sequence[Labels]
) -> tuple[Labels, ...]:
    """What recurrent layers give: their last outputs or all of them, and their last states."""
    outputs = [
        place(labels, 2, 1) if layer.config["return_sequences"] else labels for labels in given
    ]
    if layer.config["return_state"]:
        for labels in units:
            outputs += [labels] * _CELLS[layer.class_name][1]
    return tuple(outputs)


def _multiply_adds(call: TensorCall, layer: LayerConfig) -> int:
    steps, channels = call.inputs[0].shape
    units = int(layer.config["units"])
    return (steps or 1) * _CELLS[layer.class_name][0] * units * ((channels or 1) + units)


class ConvolutionalLSTM(LayerHandler):
    """An LSTM whose products are convolutions; each filter is a channel, as a unit is."""

    class_names = ("ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D")
    kind = "convolution"

    def weight_axes(self, layer: LayerConfig) -> Mapping[str, WeightAxes]:
        """A block with all filters for each of the four gates."""
        gates = Axis("out", blocks=4)
        return {
            "kernel": (..., "in", gates),
            "recurrent_kernel": (..., "out", gates),
            "bias": (gates,),
        }

    def propagate(self, call: TensorCall, trace: ChannelTrace) -> OutputLabels:
        """Consumes the input's channels and creates `filters` new ones."""
        layer, rank = call.layer, len(call.inputs[0].shape)
        consume(layer, call.inputs[0], 1 + channel_axis(layer, rank - 1), trace)
        filters = create(layer, layer.config["filters"], trace)
        if compares_channels(layer.config["recurrent_activation"]):
            trace.pin(filters)
        if len(call.inputs) > 1 or call.constants:  # given states and masks
            trace.pin(filters)
            for tensor in call.inputs[1:]:
                trace.pin(tensor.labels)
        state = place(filters, rank - 1, channel_axis(layer, rank - 1))
        output = state[None] if layer.config["return_sequences"] else state
        return (output, state, state) if layer.config["return_state"] else output

    def resize(self, call: TensorCall, widths: Mapping[str, int]) -> LayerConfig:
        """Sets `filters`."""
        return call.layer.replace(filters=widths["out"])

    def multiply_adds(self, call: TensorCall) -> int:
        """4 * kernel size * (input channels + filters) for each element and step of the state."""
        config, shape = call.layer.config, call.inputs[0].shape
        channels = shape[1 + channel_axis(call.layer, len(shape) - 1)] or 1
        state = call.output_shapes.get(1, call.output_shape)
        steps = shape[0] or 1
        elements_of_state = elements(state[1:] if len(state) == len(shape) else state)
        window = math.prod(config["kernel_size"])
        return steps * elements_of_state * 4 * window * (channels + int(config["filters"]))

    def attributes(self, layer: LayerConfig) -> tuple[float, float, float, float]:
        """(kernel size, stride, padding, groups)."""
        config = layer.config
        window, stride = np.mean(config["kernel_size"]), np.mean(config["strides"])
        return (float(window), float(stride), float(config["padding"] != "valid"), 1.0)
