"""Dense layers whose product is told by an equation."""

from __future__ import annotations

from collections.abc import Mapping

from esnac_tf.architecture import LayerConfig
from esnac_tf.layers.calls import OutputLabels, TensorCall, pinned
from esnac_tf.layers.channels import ChannelTrace, place
from esnac_tf.layers.handler import LayerHandler, consume, create, elements, keeps_zero
from esnac_tf.layers.weights import WeightAxes


class EinsumDense(LayerHandler):
    """A dense layer on one axis, such as "abc,cd->abd" or "...x,xy->...y".

    Of an equation that sums over several axes, or makes several, all channels are kept.
    """

    class_names = ("EinsumDense",)
    kind = "dense"

    def weight_axes(self, layer: LayerConfig) -> Mapping[str, WeightAxes]:
        """The letter that is summed over is "in", the new one "out"."""
        letters = _letters(layer)
        if letters is None:
            return {}
        _, kernel, output = _terms(layer)
        roles = {letters[0]: "in", letters[1]: "out"}
        axes: dict[str, WeightAxes] = {"kernel": tuple(roles.get(letter) for letter in kernel)}
        biased = layer.config["bias_axes"]
        if biased:
            first = min(output.index(letter) for letter in biased)
            axes["bias"] = tuple(
                "out" if letter == letters[1] and letter in biased else None
                for letter in output[first:]
            )
        return axes

    def propagate(self, call: TensorCall, trace: ChannelTrace) -> OutputLabels:
        """Consumes the channels of the axis that is summed over, creates those of the new one."""
        letters = _letters(call.layer)
        if letters is None:
            return pinned(call, trace)
        inputs, _, output = _terms(call.layer)
        rank, shape = len(call.output_shape), call.output_shape
        consume(call.layer, call.inputs[0], _axis(inputs, letters[0], rank), trace)
        axis = _axis(output, letters[1], rank)
        return place(create(call.layer, shape[axis] or 1, trace), rank, axis)

    def vanishes(self, call: TensorCall) -> bool:
        """Where the activation keeps zero and each channel has a bias of its own, or none."""
        letters, biased = _letters(call.layer), call.layer.config["bias_axes"]
        own = letters is not None and (not biased or letters[1] in biased)
        return own and keeps_zero(call.layer.config["activation"])

    def resize(self, call: TensorCall, widths: Mapping[str, int]) -> LayerConfig:
        """Sets the length of the new axis in `output_shape`."""
        letters, given = _letters(call.layer), call.layer.config["output_shape"]
        if letters is None:
            return call.layer
        if isinstance(given, int):
            return call.layer.replace(output_shape=widths["out"])
        lengths = list(given)
        output = _terms(call.layer)[2]
        lengths[_axis(output.replace("...", ""), letters[1], len(lengths))] = widths["out"]
        return call.layer.replace(output_shape=lengths)

    def multiply_adds(self, call: TensorCall) -> int:
        """What is summed over, for each element of the output."""
        inputs, kernel, output = _terms(call.layer)
        tensor = call.inputs[0]
        summed = [
            tensor.shape[_axis(inputs, letter, len(tensor.shape))]
            for letter in kernel
            if letter in inputs and letter not in output
        ]
        return elements(call.output_shape) * elements(summed)


def _terms(layer: LayerConfig) -> tuple[str, str, str]:
    """The parts of the equation: input, kernel, output.

    Example:
        >>> config = {"equation": "...x,xy->...y"}
        >>> _terms(LayerConfig("x", "EinsumDense", "keras.layers", config))
        ('...x', 'xy', '...y')
    """
    given, _, output = layer.config["equation"].replace(" ", "").partition("->")
    inputs, _, kernel = given.partition(",")
    return inputs, kernel, output


def _letters(layer: LayerConfig) -> tuple[str, str] | None:
    """The letter that is summed over and the new one; None where there are others."""
    inputs, kernel, output = _terms(layer)
    summed = [letter for letter in kernel if letter in inputs and letter not in output]
    new = [letter for letter in kernel if letter in output and letter not in inputs]
    batch = (inputs[0], output[0])
    if len(summed) != 1 or len(new) != 1 or {summed[0], new[0]} & set(batch):
        return None
    if "..." in (inputs[-3:], output[-3:]):  # which axis is which depends on the rank
        return None
    return summed[0], new[0]


def _axis(term: str, letter: str, rank: int) -> int:
    """The axis of a letter, the batch left out; the term has all axes, or `...` for the first."""
    return rank - len(term) + term.index(letter)
