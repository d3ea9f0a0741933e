"""Nodes of keras.ops: where channels are behind them, and whether what is built agrees."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from small_models import randomize

from esnac_tf.graph.parsing import parse
from esnac_tf.graph.teacher import analyse
from layers.test_removed_channels import assert_not_missed

layers, ops = keras.layers, keras.ops

# One node of this class between two dense layers, on channels [B, 4, 6].
PASSING = {
    "Absolute": ops.absolute,
    "Add": lambda x: x + np.arange(6, dtype="float32"),
    "Amax": lambda x: ops.amax(x, axis=1),
    "Cast": lambda x: ops.cast(x, "float32"),
    "Celu": ops.celu,
    "Clip": lambda x: ops.clip(x, -1, 1),
    "Concatenate": lambda x: ops.concatenate([x, x], axis=-1),
    "Cumsum": lambda x: ops.cumsum(x, axis=1),
    "Divide": lambda x: ops.divide(x, 2.0),
    "Elu": ops.elu,
    "Erf": ops.erf,
    "Exp": ops.exp,
    "ExpandDims": lambda x: ops.expand_dims(x, 1),
    "Flip": lambda x: ops.flip(x, axis=1),
    "Gelu": ops.gelu,
    "GetItem": lambda x: x[:, 0],
    "HardSigmoid": ops.hard_sigmoid,
    "HardSilu": ops.hard_silu,
    "HardTanh": ops.hard_tanh,
    "LeakyRelu": ops.leaky_relu,
    "LogSoftmax": lambda x: ops.log_softmax(x, axis=1),
    "Logsumexp": lambda x: ops.logsumexp(x, axis=1),
    "Max": lambda x: ops.max(x, axis=1),
    "Maximum": lambda x: ops.maximum(x, 0.0),
    "Mean": lambda x: ops.mean(x, axis=1),
    "Min": lambda x: ops.min(x, axis=(1,), keepdims=True),
    "Minimum": lambda x: ops.minimum(x, 0.0),
    "Moveaxis": lambda x: ops.moveaxis(ops.expand_dims(x, 1), 1, 2),
    "Multiply": lambda x: x * 2.0,
    "Negative": lambda x: -x,
    "Pad": lambda x: ops.pad(x, [[0, 0], [1, 2], [0, 0]]),
    "Power": lambda x: x**2,
    "Relu": ops.relu,
    "Relu6": ops.relu6,
    "Repeat": lambda x: ops.repeat(x, 2, axis=1),
    "Reshape": lambda x: ops.reshape(x, (-1, 2, 12)),
    "Selu": ops.selu,
    "Sigmoid": ops.sigmoid,
    "Silu": ops.silu,
    "Softmax": lambda x: ops.softmax(x, axis=1),
    "Softplus": ops.softplus,
    "Softsign": ops.softsign,
    "Split": lambda x: ops.split(x, 2, axis=1)[0],
    "Square": ops.square,
    "Squeeze": lambda x: ops.squeeze(ops.expand_dims(x, 1), 1),
    "Stack": lambda x: ops.stack([x, ops.relu(x)], axis=2),
    "Std": lambda x: ops.std(x, axis=1),
    "Subtract": lambda x: 1.0 - x,
    "Sum": lambda x: ops.sum(x, axis=1),
    "Swapaxes": lambda x: ops.swapaxes(ops.swapaxes(x, 1, 2), 1, 2),
    "Tanh": ops.tanh,
    "Tile": lambda x: ops.tile(x, (1, 2, 1)),
    "Transpose": lambda x: ops.transpose(ops.transpose(x, (0, 2, 1)), (0, 2, 1)),
    "TrueDivide": lambda x: x / 2.0,
    "Unstack": lambda x: ops.unstack(x, axis=1)[2],
    "Var": lambda x: ops.var(x, axis=1),
    "Where": lambda x: ops.where(x > 0.0, x, 0.0),
}

# Of these, zero is no zero, or is not known to be.
NOT_ZERO = {
    "Add",
    "Clip",
    "Exp",
    "HardSigmoid",
    "LogSoftmax",
    "Logsumexp",
    "Maximum",
    "Minimum",
    "Pad",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Subtract",
    "Where",
}

# Here the channels are kept: they are compared, sliced by numbers, or mixed with positions.
KEEPING = {
    "Any": lambda x: ops.cast(ops.any(x > 0.0, axis=-1), "float32"),
    "Einsum": lambda x: ops.einsum("bij,bkj->bik", x, x),
    "Flip": lambda x: ops.flip(x, axis=-1),
    "GetItem": lambda x: x[..., ::2],
    "Matmul": lambda x: ops.matmul(ops.transpose(x, (0, 2, 1)), x),
    "Mean": lambda x: ops.mean(x, axis=-1),
    "Pad": lambda x: ops.pad(x, [[0, 0], [0, 0], [1, 1]]),
    "Repeat": lambda x: ops.repeat(x, 2, axis=-1),
    "Reshape": lambda x: ops.reshape(x, (-1, 6)),
    "Softmax": lambda x: ops.softmax(x, axis=-1),
    "Sum": lambda x: ops.sum(x) + x,
    "Take": lambda x: ops.take(x, 1, axis=1),
    "Unstack": lambda x: ops.unstack(x, axis=2)[0],
}


def model(function):
    inputs = keras.Input((4, 3))
    hidden = function(layers.Dense(6, name="before")(inputs))
    return randomize(keras.Model(inputs, layers.Dense(2, name="after")(hidden)))


def class_names(teacher):
    return {layer.class_name for layer in parse(teacher).layers.values()}


@pytest.mark.parametrize("name", PASSING)
def test_channels_pass(name):
    teacher = model(PASSING[name])
    assert name in class_names(teacher)
    graph = analyse(teacher, "dependency")
    assert [group.width for group in graph.width_groups] == [6]
    for width in (1, 4):
        assert_not_missed(teacher, graph, {"before": width})


@pytest.mark.parametrize("name", PASSING)
def test_channels_go_from_a_sum_only_where_they_are_zero(name):
    teacher = model(lambda x: ops.sum(PASSING[name](x), axis=-1, keepdims=True))
    graph = analyse(teacher, "dependency")
    assert bool(graph.width_groups) == (name not in NOT_ZERO)
    if graph.width_groups:
        assert_not_missed(teacher, graph, {"before": 4}, "all")


@pytest.mark.parametrize("name", KEEPING)
def test_channels_are_kept(name):
    teacher = model(KEEPING[name])
    assert name in class_names(teacher)
    assert not analyse(teacher).width_groups


def test_parts_of_unequal_size_are_cut_where_the_student_has_them():
    teacher = model(lambda x: ops.concatenate(ops.split(x, [1, 4], axis=-1)[::-1], axis=-1))
    graph = analyse(teacher, "dependency")
    student = assert_not_missed(teacher, graph, {"before": 3})
    (split,) = (node for node in student.operations if type(node).__name__ == "Split")
    assert split.get_config()["indices_or_sections"] == [1, 3]


def test_a_part_that_is_not_used_keeps_the_channels():
    teacher = model(lambda x: ops.split(x, [1, 4], axis=-1)[1])
    assert not analyse(teacher).width_groups


def test_ops_that_give_truth_values_are_never_removed():
    inputs = keras.Input((4,))
    hidden = layers.Dense(4)(inputs)
    total = hidden * ops.cast(ops.isfinite(hidden) & (hidden > 0.0), "float32")
    graph = analyse(keras.Model(inputs, layers.Dense(2)(total)))
    removable = {graph.nodes[index].name for index in graph.removals}
    assert not {name for name in removable if name.startswith(("isfinite", "greater", "cast"))}
