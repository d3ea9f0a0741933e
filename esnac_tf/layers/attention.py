"""Attention: every position asks all others.

Heads, and the sizes of keys and values, are sets of channels that lie along weights only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy.typing as npt

from esnac_tf.architecture import LayerConfig
from esnac_tf.layers.calls import OutputLabels, TensorCall, as_tensor, pinned
from esnac_tf.layers.channels import ChannelTensor, ChannelTrace, place, unlabelled
from esnac_tf.layers.handler import LayerHandler, consume, create, elements
from esnac_tf.layers.weights import Axis, WeightAxes


class MultiHeadAttention(LayerHandler):
    """Multi-head attention.

    Roles: "query", "key" and "value" for the channels of the inputs; "heads"; "key_size" and
    "value_size" for the entries of each head's keys and values; "out".

    The layer divides a query's product with a key by the root of the key's size. A student's
    keys are shorter, so its queries are multiplied by the root of the ratio of both sizes: a
    key entry that was always zero is not missed.
    """

    class_names: ClassVar[tuple[str, ...]] = ("MultiHeadAttention",)

    def weight_axes(self, layer: LayerConfig) -> Mapping[str, WeightAxes]:
        """Kernels have heads and sizes on axes of their own."""
        several = len(layer.config["output_shape"] or ()) > 1
        out: WeightAxes = (None,) * len(layer.config["output_shape"]) if several else ("out",)
        axes: dict[str, WeightAxes] = {
            "attention_output/kernel": ("heads", "value_size", *out),
            "attention_output/bias": out,
        }
        for name, taken, size in (
            ("query", "query", "key_size"),
            ("key", "key", "key_size"),
            ("value", "value", "value_size"),
            ("gate", "query", "value_size"),
        ):
            axes[f"{name}/kernel"] = (taken, "heads", size)
            axes[f"{name}/bias"] = ("heads", size)
        return axes

    def propagate(self, call: TensorCall, trace: ChannelTrace) -> OutputLabels:
        """Consumes the channels of all inputs and creates heads, sizes and output channels."""
        layer, config = call.layer, call.layer.config
        _take_inputs(call, trace)
        trace.source(layer.name, config["num_heads"], "heads")
        trace.source(layer.name, config["key_dim"], "key_size")
        trace.source(layer.name, config["value_dim"], "value_size")
        scores = unlabelled(call.output_shapes.get(1, ()))
        if len(config["output_shape"] or ()) > 1:
            return unlabelled(call.output_shapes.get(0, ())), scores
        query = _inputs(call)[0]
        rank = len(query.shape)
        count = config["output_shape"][0] if config["output_shape"] else query.shape[-1]
        return place(create(layer, count or 1, trace), rank, rank - 1), scores

    def vanishes(self, call: TensorCall) -> bool:
        """Always: the output has weights for each of its channels."""
        return True

    def resize(self, call: TensorCall, widths: Mapping[str, int]) -> LayerConfig:
        """Sets the numbers of heads and of channels, and the sizes of keys and values."""
        changes: dict[str, Any] = {
            "num_heads": widths["heads"],
            "key_dim": widths["key_size"],
            "value_dim": widths["value_size"],
        }
        told = call.layer.config["output_shape"]  # else it is as the query is
        if "out" in widths and (told or widths["out"] != _inputs(call)[0].shape[-1]):
            changes["output_shape"] = [widths["out"]]
        return call.layer.replace(**changes)

    def adapt(
        self, name: str, weight: npt.NDArray[Any], teacher: LayerConfig, student: LayerConfig
    ) -> npt.NDArray[Any]:
        """Multiplies the query by sqrt(student's key size / teacher's key size)."""
        return _scaled(name, weight, teacher.config["key_dim"], student.config["key_dim"])

    def multiply_adds(self, call: TensorCall) -> int:
        """Projections, products of queries with keys, and weighted sums of values."""
        config = call.layer.config
        return _multiply_adds(
            call,
            (config["num_heads"], config["num_heads"]),
            (config["key_dim"], config["value_dim"]),
            config["use_gate"],
            config["attention_axes"],
        )


class GroupedQueryAttention(LayerHandler):
    """Multi-head attention in which several heads of the query share one of the keys.

    Roles: "query", "key" and "value" for the channels of the inputs; "heads" of the keys and
    values, with which their heads of the query go; "head_size". The output's channels are
    those of the query, and Keras wants as many of the value. See `MultiHeadAttention` for the
    scale of the query.
    """

    class_names = ("GroupQueryAttention",)

    def weight_axes(self, layer: LayerConfig) -> Mapping[str, WeightAxes]:
        """Kernels have heads and sizes on axes of their own."""
        config = layer.config
        shared = Axis("heads", repeat=config["num_query_heads"] // config["num_key_value_heads"])
        axes: dict[str, WeightAxes] = {
            "attention_output/kernel": (shared, "head_size", "query"),
            "attention_output/bias": ("query",),
        }
        for name, taken, heads in (
            ("query", "query", shared),
            ("gate", "query", shared),
            ("key", "key", "heads"),
            ("value", "value", "heads"),
        ):
            axes[f"{name}/kernel"] = (taken, heads, "head_size")
            axes[f"{name}/bias"] = (heads, "head_size")
        return axes

    def propagate(self, call: TensorCall, trace: ChannelTrace) -> OutputLabels:
        """Consumes the channels of all inputs and creates heads."""
        _take_inputs(call, trace)
        config = call.layer.config
        trace.source(call.layer.name, config["num_key_value_heads"], "heads")
        trace.source(call.layer.name, config["head_dim"], "head_size")
        query, value, _ = _inputs(call)
        if query.labels.shape == value.labels.shape:
            trace.tie(query.labels, value.labels)
        else:
            trace.pin(query.labels)
            trace.pin(value.labels)
        return query.labels, unlabelled(call.output_shapes.get(1, ()))

    def resize(self, call: TensorCall, widths: Mapping[str, int]) -> LayerConfig:
        """Sets the numbers of heads and their size."""
        config = call.layer.config
        shared = config["num_query_heads"] // config["num_key_value_heads"]
        return call.layer.replace(
            num_query_heads=shared * widths["heads"],
            num_key_value_heads=widths["heads"],
            head_dim=widths["head_size"],
        )

    def adapt(
        self, name: str, weight: npt.NDArray[Any], teacher: LayerConfig, student: LayerConfig
    ) -> npt.NDArray[Any]:
        """Multiplies the query by sqrt(student's head size / teacher's head size)."""
        return _scaled(name, weight, teacher.config["head_dim"], student.config["head_dim"])

    def multiply_adds(self, call: TensorCall) -> int:
        """Projections, products of queries with keys, and weighted sums of values."""
        config = call.layer.config
        return _multiply_adds(
            call,
            (config["num_query_heads"], config["num_key_value_heads"]),
            (config["head_dim"], config["head_dim"]),
            config["use_gate"],
        )


class Attention(LayerHandler):
    """Attention without heads: queries and keys meet channel by channel, and are summed over them.

        scores = sum(query * key, axis=-1)                   # "dot"
        scores = sum(tanh(query + key), axis=-1)             # "concat", with scales for all alike
        scores = sum(scale * tanh(query + key), axis=-1)     # AdditiveAttention

    A channel may go from a product if it is zero in one of both, from a sum behind tanh if it is
    in both. Additive attention with a scale has a weight for each channel: there any may go.
    """

    class_names = ("AdditiveAttention", "Attention")

    def weight_axes(self, layer: LayerConfig) -> Mapping[str, WeightAxes]:
        """Additive attention scales each channel, the other kind has one scale for all."""
        return {"scale": (..., "in")} if layer.class_name == "AdditiveAttention" else {}

    def propagate(self, call: TensorCall, trace: ChannelTrace) -> OutputLabels:
        """Ties the channels of queries and keys; gives those of the values."""
        tensors = [as_tensor(value) for value in call.argument(0, "inputs")]
        query, value = tensors[:2]
        key = tensors[2] if len(tensors) > 2 else value
        last = len(query.shape) - 1
        channels = consume(call.layer, query, last, trace)
        if channels is None or key.along(last) is None or value.along(last) is None:
            return pinned(call, trace)
        trace.tie(channels, key.labels)
        if not _adds_nothing(call.layer, query, key):
            trace.pin(channels)
        _pin_others(call, tensors, trace)
        return value.labels, unlabelled(call.output_shapes.get(1, ()))

    def vanishes(self, call: TensorCall) -> bool:
        """Where the value does: it is weighted by scores that all of its channels share."""
        return as_tensor(call.argument(0, "inputs")[1]).vanishes

    def multiply_adds(self, call: TensorCall) -> int:
        """Products of queries with keys, and weighted sums of values."""
        query, value = (as_tensor(value) for value in call.argument(0, "inputs")[:2])
        positions = elements(query.shape[:-1]) * elements(value.shape[:-1])
        return positions * ((query.shape[-1] or 1) + (value.shape[-1] or 1))


def _adds_nothing(layer: LayerConfig, query: ChannelTensor, key: ChannelTensor) -> bool:
    """Whether a channel whose weights are zero is nothing in the scores of `Attention`."""
    if layer.class_name == "AdditiveAttention" and layer.config["use_scale"]:
        return True
    is_product = layer.config.get("score_mode") == "dot"  # additive attention has no mode
    return (any if is_product else all)(tensor.vanishes for tensor in (query, key))


def _inputs(call: TensorCall) -> tuple[ChannelTensor, ChannelTensor, ChannelTensor]:
    """Query, value and key; without a key the value is the key."""
    query, value = as_tensor(call.argument(0, "query")), as_tensor(call.argument(1, "value"))
    key = call.argument(2, "key")
    return query, value, value if key is None else as_tensor(key)


def _take_inputs(call: TensorCall, trace: ChannelTrace) -> None:
    """Consumes the channels of query, value and key; masks are kept."""
    taken = _inputs(call)
    for role, tensor in zip(("query", "value", "key"), taken, strict=True):
        consume(call.layer, tensor, len(tensor.shape) - 1, trace, role)
    _pin_others(call, taken, trace)


def _pin_others(call: TensorCall, taken: Sequence[ChannelTensor], trace: ChannelTrace) -> None:
    """Pins the channels of what is neither query nor key nor value: of masks."""
    for other in call.inputs:
        if not any(other is tensor for tensor in taken):
            trace.pin(other.labels)


def _scaled(name: str, weight: npt.NDArray[Any], teacher: int, student: int) -> npt.NDArray[Any]:
    if teacher == student or not name.startswith("query/"):
        return weight
    return (weight * math.sqrt(student / teacher)).astype(weight.dtype)


def _multiply_adds(
    call: TensorCall,
    heads: tuple[int, int],
    sizes: tuple[int, int],
    has_gate: bool,
    axes: Sequence[int] | None = None,
) -> int:
    """Multiply-adds of attention over all positions.

    Args:
        call: The call.
        heads: Of the query, and of keys and values.
        sizes: Of a key and of a value.
        has_gate: Whether a gate is made of the query.
        axes: The axes over which a query looks, batch axis counted; by default all.
    """
    query, value, key = _inputs(call)
    asking, asked = elements(query.shape[:-1]), elements(value.shape[:-1])
    key_size, value_size = sizes
    out = call.output_shapes[0][-1] or 1 if 0 in call.output_shapes else query.shape[-1] or 1
    projections = asking * (query.shape[-1] or 1) * heads[0] * key_size
    projections += asked * (key.shape[-1] or 1) * heads[1] * key_size
    projections += asked * (value.shape[-1] or 1) * heads[1] * value_size
    if has_gate:
        projections += asking * (query.shape[-1] or 1) * heads[0] * value_size
    seen = asked if axes is None else elements([value.shape[axis - 1] for axis in axes])
    products = asking * seen * heads[0] * (key_size + value_size)
    return projections + products + asking * heads[0] * value_size * out
