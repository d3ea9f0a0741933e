"""Run by test_two_devices.py: needs two logical CPUs, which must be set before any operation."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import signal
import tempfile
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

from esnac_tf.datasets.structures import (  # noqa: E402
    StructuredBatches,
    structured_evaluation_batches,
)
from esnac_tf.distillation import (  # noqa: E402
    TrainingConfig,
    evaluate,
    get_strategy,
    losses,
    train,
)
from esnac_tf.distillation.devices import one_device_strategies, share_out  # noqa: E402
from esnac_tf.distillation.output_losses import LabelLoss  # noqa: E402
from esnac_tf.distillation.student_groups import (  # noqa: E402
    StudentGroup,
    group_of,
    train_in_groups,
)
from esnac_tf.distillation.task import Task, search_metric  # noqa: E402
from esnac_tf.distillation.teacher_targets import TeacherTargets  # noqa: E402
from esnac_tf.errors import UserError  # noqa: E402

from .tiny import (  # noqa: E402
    ArrayBatches,
    NanAtStep,
    conv_net,
    dense_net,
    pictures,
    validation,
)

ONE, TWO = get_strategy("none"), get_strategy("mirrored")
CONFIG = TrainingConfig(epochs=2, learning_rate=0.01)


def run(strategy, make, config=CONFIG, batch_size=16, targets=None):
    with strategy.scope():
        teacher, students = conv_net(6, seed=50), make()
    batches = ArrayBatches(*pictures(48), batch_size)
    if targets is not None:
        batches = TeacherTargets(batches, teacher, Task(), strategy, targets)
    outcomes = train(
        students,
        batches,
        validation(*pictures(32, seed=1)),
        config,
        loss=losses.get("logit_mse"),
        teacher=teacher,
        strategy=strategy,
    )
    return students, outcomes


def close(left, right, rtol=1e-4, atol=1e-5):
    for a, b in zip(left.get_weights(), right.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


def replicas_are_equal(model):
    for variable in model.variables:
        first, second = TWO.experimental_local_results(variable.value)
        np.testing.assert_array_equal(first.numpy(), second.numpy())


def strategies():
    assert ONE.num_replicas_in_sync == 1
    assert TWO.num_replicas_in_sync == 2
    assert get_strategy("auto") is ONE  # There is no GPU.


def batches_are_divided():
    dataset = tf.data.Dataset.from_tensor_slices(tf.range(8)).batch(4)
    parts = [TWO.experimental_local_results(batch) for batch in share_out(dataset, TWO)]
    assert [[part.numpy().tolist() for part in pair] for pair in parts] == [
        [[0, 1], [2, 3]],
        [[4, 5], [6, 7]],
    ]


def two_devices_equal_one():
    def make():
        return [conv_net(3, 1), conv_net(4, 2), dense_net(3)]

    for config in (CONFIG, TrainingConfig(epochs=2, optimizer="sgd", learning_rate=0.05)):
        one, expected = run(ONE, make, config)
        two, outcomes = run(TWO, make, config)
        for a, b, left, right in zip(one, two, expected, outcomes, strict=True):
            close(a, b)
            replicas_are_equal(b)
            assert not getattr(b.layers[1], "synchronized", False)  # As it was given.
            assert left.best_epoch == right.best_epoch
            for x, y in zip(left.history, right.history, strict=True):
                np.testing.assert_allclose(x.loss, y.loss, rtol=1e-4)
                assert x.validation_metric == y.validation_metric
        rows = validation(*pictures(32, seed=1))
        assert evaluate(two, rows, TWO) == evaluate(one, rows)


def grouped_students_equal_those_of_one_device():
    """Five students on two devices, one of which fails, with kept scores and without."""
    groups = one_device_strategies()
    assert len(groups) == 2

    def make(where):
        ends = [(), (), [NanAtStep(4)], (), ()]
        students = []
        for index, end in enumerate(ends):
            with group_of(index, where).strategy.scope():
                students.append(conv_net(3, index) if not end else dense_net(index, end))
        return students

    def trained(strategies, folder=None, **arguments):
        where = []
        for strategy in strategies:
            with strategy.scope():
                where.append(StudentGroup(strategy, conv_net(6, seed=50)))
        batches = ArrayBatches(*pictures(48), 16)
        if folder is not None:
            batches = TeacherTargets(batches, where[0].teacher, Task(), strategies[0], folder)
        students, seen = make(where), {}
        outcomes = train_in_groups(
            where,
            students,
            batches,
            validation(*pictures(32, seed=1)),
            CONFIG,
            loss=losses.get("logit_mse"),
            on_outcomes=seen.update,
            **arguments,
        )
        assert seen == dict(enumerate(outcomes))
        return students, outcomes

    with tempfile.TemporaryDirectory() as folder:
        expected, alone = trained([ONE])
        for targets in (None, pathlib.Path(folder)):
            students, outcomes = trained(groups, targets)
            devices = [student.variables[0].value.device for student in students]
            assert len(set(devices)) == 2, devices
            assert devices[0] == devices[2] == devices[4] != devices[1] == devices[3]
            for one, other, left, right in zip(expected, students, alone, outcomes, strict=True):
                close(one, other)
                assert left.failure == right.failure
                assert left.best_epoch == right.best_epoch
        assert outcomes[2].failure is not None
    steps = []
    _, stopped = trained(
        groups,
        on_batch=lambda epoch, step: steps.append((epoch, step)),
        should_stop=lambda: (2, 1) in steps,
    )
    assert steps == [(1, 1), (1, 2), (1, 3), (2, 1)]
    assert max(len(outcome.history) for outcome in stopped[0::2]) == 1
    seen = []

    def discard(epoch, qualities, num_students):
        seen.append(sorted(qualities))
        assert num_students == (3 if 4 in qualities else 2)
        return [min(qualities)]

    _, halved = trained(groups, discard=discard)
    assert sorted(seen) == [[0, 2, 4], [1, 3], [3], [4]]  # 2 fails in the second epoch
    assert [len(outcome.history) for outcome in halved] == [1, 1, 1, 2, 2]

    # An error or Ctrl+C in one group ends all, and nothing counts as finished.
    for error in (KeyError, KeyboardInterrupt):
        epochs, finished = [], []

        def fail(epoch, records, error=error, epochs=epochs):
            epochs.append(epoch)
            if 1 in records:  # of the second group
                if error is KeyError:
                    raise KeyError("in the second group")
                os.kill(os.getpid(), signal.SIGINT)  # as a terminal does

        where = [StudentGroup(strategy) for strategy in groups]
        with pytest.raises(error):
            train_in_groups(
                where,
                make(where),
                ArrayBatches(*pictures(48), 16),
                validation(*pictures(32, seed=1)),
                dataclasses.replace(CONFIG, epochs=10_000),
                loss=losses.get("cross_entropy"),
                on_epoch=fail,
                on_outcomes=finished.append,
            )
        assert finished == []
        assert max(epochs) < 1000


def kept_scores_of_the_teacher_serve_on_both():
    """Those that one device computed are read by two, and the other way round."""
    for first, second in ((ONE, TWO), (TWO, ONE)):
        with tempfile.TemporaryDirectory() as folder:
            targets = pathlib.Path(folder)
            [one], _ = run(first, lambda: [conv_net(3, 1)], targets=targets)
            written = {path: path.stat().st_mtime_ns for path in targets.iterdir()}
            [two], _ = run(second, lambda: [conv_net(3, 1)], targets=targets)
            assert written == {path: path.stat().st_mtime_ns for path in targets.iterdir()}
        [expected], _ = run(ONE, lambda: [conv_net(3, 1)])
        close(expected, one)
        close(expected, two)


def any_metric_and_weights_of_examples():
    """A regression of two outputs with one metric, on a last batch that is filled up."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(48, 5)).astype("float32")
    y = {"sum": x.sum(axis=1, keepdims=True), "first": x[:, :1]}
    weight = rng.uniform(0, 2, 48).astype("float32")
    task = Task(
        False, metric=search_metric({"sum": "mean_absolute_error"}), output_names=("sum", "first")
    )

    def trained(strategy):
        with strategy.scope():
            inputs = keras.Input((5,))
            kernels = [keras.initializers.GlorotUniform(seed=seed) for seed in (0, 1)]
            outputs = {
                name: keras.layers.Dense(1, kernel_initializer=kernel, name=name)(inputs)
                for name, kernel in zip(y, kernels, strict=True)
            }
            model = keras.Model(inputs, outputs)
        rows = structured_evaluation_batches(x[:43], {k: v[:43] for k, v in y.items()}, 16)
        [outcome] = train(
            [model],
            StructuredBatches(x, y, 16, weight=weight),
            rows,
            CONFIG,
            loss=LabelLoss("mean_squared_error"),
            strategy=strategy,
            task=task,
        )
        assert evaluate([model], rows, strategy, task) == [outcome.validation_metric]
        return model, outcome

    (one, expected), (two, outcome) = trained(ONE), trained(TWO)
    close(one, two)
    replicas_are_equal(two)
    np.testing.assert_allclose(outcome.validation_metric, expected.validation_metric, rtol=1e-5)
    error = np.abs(one(x[:43])["sum"] - y["sum"][:43]).mean()
    np.testing.assert_allclose(outcome.validation_metric, error, rtol=1e-5)


def masks_count_over_all_of_the_batch():
    """Sentences of one word on one device, of six on the other."""
    words = np.random.default_rng(0).integers(1, 9, (16, 6))
    words[np.arange(16) % 8 < 4, 1:] = 0
    tags = words % 3
    loss = LabelLoss(keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    task = Task(False, metric=search_metric("sparse_categorical_accuracy"))

    class InOrder:
        batch_size = 8

        def epoch(self, epoch):
            return tf.data.Dataset.from_tensor_slices((words, tags)).batch(8, drop_remainder=True)

    def trained(strategy):
        keras.utils.set_random_seed(0)
        with strategy.scope():
            inputs = keras.Input((6,), dtype="int32")
            hidden = keras.layers.Embedding(9, 5, mask_zero=True)(inputs)
            model = keras.Model(inputs, keras.layers.Dense(3)(hidden))
        rows = structured_evaluation_batches(words, tags, 8)
        train([model], InOrder(), rows, CONFIG, loss=loss, strategy=strategy, task=task)
        return model

    one, two = trained(ONE), trained(TWO)
    close(one, two)


def xla_is_left_out():
    config = dataclasses.replace(CONFIG, jit_compile=True)
    with pytest.warns(UserWarning, match="On 2 devices models are trained without XLA"):
        [two], [outcome] = run(TWO, lambda: [conv_net(3, 1)], config)
    assert outcome.failure is None, outcome
    [one], _ = run(ONE, lambda: [conv_net(3, 1)])
    close(one, two)


def statistics_of_other_layers_are_averaged():
    class BatchMean(keras.layers.Layer):
        """Keeps the mean of its last inputs, and normalises by it later."""

        def build(self, shape):
            self.mean = self.add_weight(shape=(shape[-1],), initializer="zeros", trainable=False)

        def call(self, x, training=False):
            if training:
                self.mean.assign(keras.ops.mean(x, axis=0))
            return x - self.mean

    config = dataclasses.replace(CONFIG, epochs=1)
    [student], [outcome] = run(TWO, lambda: [dense_net(1, [BatchMean()])], config)
    replicas_are_equal(student)
    [alone], _ = run(ONE, lambda: [dense_net(1, [BatchMean()])], config)
    np.testing.assert_allclose(student.layers[-2].mean, alone.layers[-2].mean, rtol=1e-4)
    rows = validation(*pictures(32, seed=1))
    assert evaluate([student], rows, TWO) == [outcome.validation_metric]


def failures_stay_alone():
    class CannotBeTraced(keras.layers.Layer):
        def call(self, x, training=False):
            if training:
                raise ValueError("no training mode")
            return x

    def make():
        end = [[NanAtStep(4)], [CannotBeTraced()]]
        return [dense_net(1, end[0]), dense_net(2, end[1]), conv_net(3, 3)]

    students, outcomes = run(TWO, make)
    [alone], _ = run(TWO, lambda: [conv_net(3, 3)])
    assert outcomes[0].failure == "loss became NaN in epoch 2, step 1", outcomes[0]
    assert "no training mode" in outcomes[1].failure, outcomes[1]
    assert outcomes[2].failure is None, outcomes[2]
    close(students[2], alone)
    for student in students:
        replicas_are_equal(student)


def mixed_precision_survives_an_overflow():
    """The overflow is in the second replica's half of the batch only."""

    class Overflows(keras.layers.Layer):
        """The identity; its gradient overflows float16 unless the loss scale is small."""

        def call(self, x):
            if tf.distribute.in_cross_replica_context():
                return x
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group

            @tf.custom_gradient
            def identity(x):
                factor = 1e4 * tf.cast(replica, x.dtype) + 1.0
                return tf.identity(x), lambda upstream: upstream * factor / factor

            return identity(x)

    def make():
        return [dense_net(1, [keras.layers.Dense(4), Overflows()])]

    config = TrainingConfig(epochs=3, learning_rate=0.001, mixed_precision=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        [student], [outcome] = run(TWO, make, config)
    assert outcome.failure is None, outcome
    assert len(outcome.history) == 3
    assert all(np.all(np.isfinite(w)) for w in student.get_weights())
    replicas_are_equal(student)


def mistakes_are_told():
    with pytest.raises(UserError, match="divide among the 2 replicas"):
        run(TWO, lambda: [dense_net()], batch_size=3)
    outside = dense_net()
    with pytest.raises(UserError, match="outside of the strategy's scope"):
        run(TWO, lambda: [outside])


if __name__ == "__main__":
    for check in (
        strategies,
        batches_are_divided,
        two_devices_equal_one,
        grouped_students_equal_those_of_one_device,
        kept_scores_of_the_teacher_serve_on_both,
        any_metric_and_weights_of_examples,
        masks_count_over_all_of_the_batch,
        xla_is_left_out,
        statistics_of_other_layers_are_averaged,
        failures_stay_alone,
        mixed_precision_survives_an_overflow,
        mistakes_are_told,
    ):
        check()
        print("passed", check.__name__)
