"""The optimizers in one operation a variable, held against Keras's own."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from esnac_tf.distillation import TrainingConfig
from esnac_tf.distillation.optimizers import Adam, Momentum, build_optimizer

PAIRS = {
    "adam": (lambda: Adam(0.01), lambda: keras.optimizers.Adam(0.01)),
    "momentum": (
        lambda: Momentum(0.01, momentum=0.9),
        lambda: keras.optimizers.SGD(0.01, momentum=0.9),
    ),
    "no momentum": (lambda: Momentum(0.01, momentum=0.0), lambda: keras.optimizers.SGD(0.01)),
}


SINGLE = ("ResourceApplyAdam", "ResourceApplyKerasMomentum")


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_variables_become_what_they_become_with_keras(name, dtype):
    generator = np.random.default_rng(0)
    values = [generator.normal(size=shape).astype(dtype) for shape in ((3, 4), (5,), ())]
    results = []
    for make in PAIRS[name]:
        variables = [keras.Variable(value, dtype=dtype) for value in values]
        optimizer = make()
        optimizer.build(variables)
        apply = tf.function(functools.partial(_apply, optimizer, variables), autograph=False)
        gradients = np.random.default_rng(1)
        for step in range(20):
            optimizer.learning_rate = 0.01 / (1 + step // 10)  # without a new trace
            apply(*[tf.constant(gradients.normal(size=v.shape), dtype) for v in values])
        assert apply.experimental_get_tracing_count() == 1
        if not results:  # mine
            graph = apply.get_concrete_function(*[tf.TensorSpec(v.shape, dtype) for v in values])
            kinds = [operation.type for operation in graph.graph.get_operations()]
            assert sum(kind in SINGLE for kind in kinds) == len(variables)
        assert int(optimizer.iterations) == 20
        results.append([variable.numpy().astype("float64") for variable in variables])
    tolerance = 2e-2 if dtype == "float16" else 1e-5
    for mine, theirs, start in zip(*results, values, strict=True):
        assert not np.allclose(mine, start, atol=1e-2)
        np.testing.assert_allclose(mine, theirs, rtol=tolerance, atol=tolerance)


def _apply(optimizer, variables, *gradients):
    optimizer.apply(gradients, variables)


def test_a_loss_scale_skips_steps_that_overflow():
    variable = keras.Variable([1.0, -1.0])
    optimizer = keras.optimizers.LossScaleOptimizer(Adam(0.1))
    optimizer.build([variable])
    scale = optimizer.scale_loss(1.0)
    optimizer.apply([tf.constant([float("inf"), 1.0])], [variable])
    assert variable.numpy().tolist() == [1.0, -1.0]
    optimizer.apply([tf.constant([2.0, -3.0]) * scale / 2], [variable])
    np.testing.assert_allclose(variable.numpy(), [0.9, -0.9], rtol=1e-5)


def test_the_learning_rate_may_be_any_number():
    for config in (TrainingConfig.search(learning_rate=1), TrainingConfig.full(learning_rate=1)):
        assert float(build_optimizer(config).learning_rate) == 1.0


def test_variables_without_a_gradient_stay():
    trained, left = keras.Variable([1.0]), keras.Variable([1.0])
    optimizer = Momentum(0.5, momentum=0.9)
    optimizer.build([trained, left])
    optimizer.apply([tf.constant([1.0])], [trained])
    assert (trained.numpy().tolist(), left.numpy().tolist()) == ([0.5], [1.0])
