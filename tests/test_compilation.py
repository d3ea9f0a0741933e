"""A student is compiled as its teacher is."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from esnac_tf.compilation import compile_like
from esnac_tf.errors import UserError


def build():
    inputs = keras.Input((3,))
    return keras.Model(inputs, keras.layers.Dense(2, activation="softmax", name="top")(inputs))


def distance(labels, outputs):
    return keras.ops.mean((outputs - labels) ** 2, axis=-1)


class Distance(keras.losses.Loss):
    def call(self, labels, outputs):
        return distance(labels, outputs)


class Gap(keras.metrics.MeanAbsoluteError):
    pass


class Slow(keras.optimizers.SGD):
    pass


def make_loss():
    def local(labels, outputs):
        return distance(labels, outputs)

    return local


SETTINGS = {
    "names": lambda: {"loss": "mse", "metrics": ["mae"], "steps_per_execution": 2},
    "objects": lambda: {"loss": keras.losses.CategoricalCrossentropy(label_smoothing=0.1)},
    "by_output": lambda: {"loss": {"top": "mse"}, "metrics": {"top": ["acc"]}},
    "functions": lambda: {"loss": distance, "metrics": [distance, Gap()]},
    "classes": lambda: {"loss": Distance(), "optimizer": Slow(), "weighted_metrics": [Gap()]},
    "local": lambda: {"loss": [make_loss()], "loss_weights": [0.5], "run_eagerly": True},
    "scaled": lambda: {"loss": "mse", "optimizer": keras.optimizers.LossScaleOptimizer(Slow())},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_measures_and_trains_as_the_teacher_does(name):
    teacher, student = build(), build()
    settings = SETTINGS[name]()
    student.set_weights(teacher.get_weights())
    teacher.compile(**{"optimizer": "adam", **settings})
    compile_like(student, teacher)
    x, y = np.ones((4, 3), "float32"), np.eye(4, 2, dtype="float32")
    for _ in range(2):
        expected = teacher.evaluate(x, y, return_dict=True, verbose=0)
        assert student.evaluate(x, y, return_dict=True, verbose=0) == pytest.approx(expected)
        teacher.fit(x, y, verbose=0)
        student.fit(x, y, verbose=0)
    assert student.optimizer is not teacher.optimizer
    assert student.optimizer.get_config() == teacher.optimizer.get_config()
    assert student.run_eagerly == teacher.run_eagerly


def test_the_learning_rate_is_the_one_of_now():
    teacher, student = build(), build()
    teacher.compile(keras.optimizers.SGD(0.5), "mse")
    teacher.optimizer.learning_rate = 0.25
    compile_like(student, teacher)
    assert float(student.optimizer.learning_rate) == 0.25


def test_a_schedule_begins_anew():
    teacher, student = build(), build()
    schedule = keras.optimizers.schedules.ExponentialDecay(0.5, 1, 0.5)
    teacher.compile(keras.optimizers.SGD(schedule), "mse")
    teacher.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0)
    compile_like(student, teacher)
    assert float(student.optimizer.learning_rate) == 0.5


def test_a_teacher_without_an_optimizer_can_evaluate():
    teacher, student = build(), build()
    teacher.compile(None, "mse")
    compile_like(student, teacher)
    assert student.optimizer is None
    student.evaluate(np.ones((4, 3)), np.ones((4, 2)), verbose=0)


def test_a_teacher_that_is_not_compiled():
    student = build()
    compile_like(student, build())
    assert not student.compiled


def test_what_keras_can_not_make_anew_is_told():
    teacher, student = build(), build()
    teacher.compile("adam", lambda labels, outputs: outputs - labels)
    with pytest.raises(UserError, match=r"can't be compiled as .* is: .*lambda.*\nCompile") as e:
        compile_like(student, teacher)
    assert str(e.value).count("\n") == 1
    assert not student.compiled
