"""Activations: each element is mapped alone, so channels pass through."""

from __future__ import annotations

from collections.abc import Sequence

from esnac_tf.architecture import LayerConfig
from esnac_tf.layers.channels import ChannelTensor, ChannelTrace, Labels
from esnac_tf.layers.core import PassThrough
from esnac_tf.layers.handler import compares_channels


class Activation(PassThrough):
    """An activation without weights.

    Softmax and its kin compare channels with one another, so they pin them; functions that
    are not Keras's own may, so they do too.
    """

    class_names = ("Activation", "ReLU", "LeakyReLU", "ELU", "Softmax")
    operation_names = (
        "Celu",
        "Elu",
        "Gelu",
        "HardSigmoid",
        "HardSilu",
        "HardTanh",
        "LeakyRelu",
        "Relu",
        "Relu6",
        "Selu",
        "Sigmoid",
        "Silu",
        "Softplus",
        "Softsign",
        "Tanh",
    )
    kind = "activation"

    def propagate(
        self,
        layer: LayerConfig,
        inputs: Sequence[ChannelTensor],
        output_shape: tuple[int | None, ...],
        trace: ChannelTrace,
    ) -> Labels:
        """The input's labels; pinned where the function compares channels."""
        if layer.class_name == "Softmax" or compares_channels(layer.config.get("activation")):
            trace.pin(inputs[0].labels)
        return inputs[0].labels
