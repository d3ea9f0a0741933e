import keras
import numpy as np
import pytest
import tensorflow as tf

from esnac_tf.datasets.structures import StructuredBatches
from esnac_tf.distillation import TrainingConfig, evaluate, joint_step, losses, train, training
from esnac_tf.distillation.step_error import StepError
from esnac_tf.distillation.student_update import StudentUpdate
from esnac_tf.distillation.task import Task
from esnac_tf.errors import UserError

from .tiny import (
    ArrayBatches,
    NanAtStep,
    NanWeightAfterStep,
    conv_net,
    dense_net,
    pictures,
    validation,
)

MSE = losses.get("logit_mse")
LABELS = losses.get("cross_entropy")


@pytest.fixture(scope="module")
def teacher():
    return conv_net(8, seed=90)


def run(students, teacher=None, loss=None, config=None, **arguments):
    x, y = pictures(48)
    return train(
        students,
        arguments.pop("batches", ArrayBatches(x, y)),
        arguments.pop("validation_rows", validation(*pictures(32, seed=1))),
        config or TrainingConfig(epochs=2, learning_rate=0.01),
        loss=loss or (LABELS if teacher is None else MSE),
        teacher=teacher,
        **arguments,
    )


def assert_same_weights(left, right, **tolerance):
    for a, b in zip(left.get_weights(), right.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, **(tolerance or {"rtol": 1e-4, "atol": 1e-6}))


class CountTraces(keras.layers.Layer):
    def __init__(self):
        super().__init__()
        self.traces = []

    def call(self, x, training=False):
        self.traces.append(training)
        return x


class RightAfter(keras.layers.Layer):
    """Lets a classifier see its input only when so many training steps have passed."""

    def __init__(self, steps):
        super().__init__()
        self.right_at = steps

    def build(self, shape):
        self.step = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, x, training=False):
        if training:
            self.step.assign(self.step + 1.0)
            return x
        sees = keras.ops.cast(keras.ops.equal(self.step, self.right_at), x.dtype)
        return x * (2.0 * sees - 1.0)


class RunsOutOfMemory(keras.layers.Layer):
    """Fails like an allocation at every training step for which `fails()` is true."""

    def __init__(self, fails):
        super().__init__()
        self.fails = fails

    def call(self, x, training=False):
        if not training:
            return x

        def allocate(value):
            if self.fails():
                raise MemoryError("no room for this student")
            return value

        y = tf.numpy_function(allocate, [x], x.dtype)
        return x + 0.0 * tf.stop_gradient(tf.ensure_shape(y, x.shape))


class CannotBeTraced(keras.layers.Layer):
    def call(self, x, training=False):
        if training:
            raise ValueError("this layer\nhas no training mode")
        return x


class TestTogether:
    def test_students_come_out_as_if_trained_alone(self, teacher):
        makers = [
            lambda: conv_net(2, seed=1),
            lambda: conv_net(5, seed=2, end=[keras.layers.Dropout(0.3, seed=5)]),
            lambda: dense_net(seed=3),
        ]
        together = [make() for make in makers]
        outcomes = run(together, teacher)
        for student, make, outcome in zip(together, makers, outcomes, strict=True):
            alone = make()
            [expected] = run([alone], teacher)
            assert_same_weights(student, alone)
            assert outcome.best_epoch == expected.best_epoch
            assert [record.loss for record in outcome.history] == pytest.approx(
                [record.loss for record in expected.history], rel=1e-4
            )

    def test_students_learn_what_the_teacher_knows(self, teacher):
        pupil = conv_net(8, seed=91)
        [lesson] = run([pupil], loss=LABELS, config=TrainingConfig(epochs=8, learning_rate=0.03))
        assert lesson.validation_metric > 0.9
        students = [conv_net(3, seed=1), conv_net(4, seed=2)]
        config = TrainingConfig(epochs=8, learning_rate=0.03)
        for outcome in run(students, pupil, config=config):
            assert outcome.validation_metric > 0.9
            assert outcome.history[-1].loss < outcome.history[0].loss

    def test_the_teacher_does_not_change(self, teacher):
        before = teacher.get_weights()
        run([dense_net()], teacher)
        for a, b in zip(before, teacher.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)

    def test_every_trainable_variable_has_a_gradient(self, teacher):
        students = [conv_net(2, seed=1), conv_net(3, seed=2)]
        before = [[v.numpy() for v in s.trainable_variables] for s in students]
        run(students, teacher, config=TrainingConfig(epochs=1, weight_decay=0.0))
        for student, old in zip(students, before, strict=True):
            for variable, value in zip(student.trainable_variables, old, strict=True):
                assert np.any(variable.numpy() != value), variable.path

    def test_is_traced_once_for_all_epochs(self, teacher):
        counters = [CountTraces(), CountTraces()]
        students = [dense_net(seed, end=[counter]) for seed, counter in enumerate(counters)]
        for counter in counters:
            counter.traces.clear()
        config = TrainingConfig(epochs=4, learning_rate_drop_epochs=1)
        run(students, teacher, config=config)
        for counter in counters:
            assert sorted(counter.traces) == [False, True]

    def test_same_seed_same_weights(self):
        def student(seed):
            model = dense_net(end=[keras.layers.Dropout(0.5)])
            run([model], seed=seed)
            return model

        first, again, other = student(1), student(1), student(2)
        assert_same_weights(first, again, rtol=0)
        assert np.any(first.get_weights()[0] != other.get_weights()[0])

    def test_no_students(self, teacher):
        assert run([], teacher) == []


class TestArithmetic:
    @pytest.mark.parametrize("regularised", [False, True])
    def test_sgd_equals_numpy(self, regularised):
        """Loss per global batch, L2 in the gradient, momentum, learning rate drop."""
        config = TrainingConfig(
            epochs=3,
            optimizer="sgd",
            learning_rate=0.1,
            momentum=0.9,
            weight_decay=0.01,
            learning_rate_drop_epochs=2,
        )
        x, y = pictures(16)
        student = dense_net(regularizer=keras.regularizers.L2(0.05) if regularised else None)
        w, b = (value.astype("float64") for value in student.get_weights())
        flat, velocity = x.reshape(16, -1), [0.0, 0.0]
        expected_losses, weights = [], []
        for epoch in range(3):
            logits = flat @ w + b
            p = np.exp(logits - logits.max(-1, keepdims=True))
            p /= p.sum(-1, keepdims=True)
            own = 0.05 * regularised
            expected_losses.append(-np.log(p[range(16), y]).mean() + own * (w**2).sum())
            error = (p - np.eye(3)[y]) / 16
            gradients = flat.T @ error + 0.01 * w + 2 * own * w, error.sum(0) + 0.01 * b
            rate = 0.1 if epoch < 2 else 0.01
            velocity = [0.9 * v - rate * g for v, g in zip(velocity, gradients, strict=True)]
            w, b = w + velocity[0], b + velocity[1]
            weights.append([w, b])
        [outcome] = run([student], config=config, batches=ArrayBatches(x, y))
        assert [r.loss for r in outcome.history] == pytest.approx(expected_losses, rel=1e-4)
        for value, expected in zip(
            student.get_weights(), weights[outcome.best_epoch - 1], strict=True
        ):
            np.testing.assert_allclose(value, expected, rtol=1e-3, atol=1e-6)

    def test_weights_of_examples_weigh_as_in_keras(self):
        x, y = pictures(16)
        weight = np.linspace(0, 2, 16).astype("float32")
        config = TrainingConfig(epochs=1, optimizer="sgd", learning_rate=0.5, momentum=0.0,
                                weight_decay=0.0)  # fmt: skip
        ours, theirs, even = dense_net(), dense_net(), dense_net()
        [outcome] = run([ours], config=config, batches=StructuredBatches(x, y, 16, weight=weight))
        run([even], config=config, batches=StructuredBatches(x, y, 16))
        theirs.compile(
            keras.optimizers.SGD(0.5), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        )
        loss = theirs.train_on_batch(x, y, sample_weight=weight)
        assert_same_weights(ours, theirs)
        assert outcome.history[0].loss == pytest.approx(float(loss), rel=1e-4)
        assert not np.allclose(ours.get_weights()[0], even.get_weights()[0], rtol=1e-2)

    def test_probabilities_are_read_as_logits(self):
        """Cross entropy on log(p) is cross entropy on the logits before the softmax."""
        logits, probabilities = dense_net(), dense_net(activation="softmax")
        [expected] = run([logits])
        [outcome] = run([probabilities], task=Task(from_logits=False))
        assert outcome.history[0].loss == pytest.approx(expected.history[0].loss, rel=1e-3)
        assert_same_weights(logits, probabilities, rtol=1e-2, atol=1e-4)

    def test_xla_gives_the_same(self, teacher):
        plain, compiled = dense_net(), dense_net()
        run([plain], teacher)
        config = TrainingConfig(epochs=2, learning_rate=0.01, jit_compile=True)
        [outcome] = run([compiled], teacher, config=config)
        assert outcome.failure is None
        assert_same_weights(plain, compiled, rtol=1e-3, atol=1e-5)

    def test_mixed_precision_leaves_a_float32_model(self, teacher):
        student, plain = conv_net(4, seed=1), conv_net(4, seed=1)
        computed = []

        class Spy(keras.layers.Layer):
            def call(self, x):
                computed.append(keras.backend.standardize_dtype(x.dtype))
                return x

        spied = dense_net(end=[Spy()])
        computed.clear()
        config = TrainingConfig(epochs=2, learning_rate=0.01, mixed_precision=True)
        with pytest.warns(UserWarning, match="mixed_precision on CPUs"):
            outcome, _ = run([student, spied], teacher, config=config)
        [expected] = run([plain], teacher)
        assert set(computed) == {"float16"}
        assert {layer.compute_dtype for layer in student.layers} == {"float32"}
        assert outcome.failure is None
        assert outcome.history[-1].loss == pytest.approx(expected.history[-1].loss, rel=0.05)


class TestBestEpoch:
    def test_its_weights_are_restored(self):
        steps = 3  # 48 rows in batches of 16.
        makers = [lambda: dense_net(1, end=[RightAfter(2 * steps)])]
        makers += [lambda: dense_net(2, end=[RightAfter(1 * steps)])]
        students = [make() for make in makers]
        config = TrainingConfig(epochs=4, learning_rate=0.03)
        outcomes = run(students, config=config)
        for student, outcome, best in zip(students, outcomes, (2, 1), strict=True):
            assert outcome.best_epoch == best
            assert float(student.layers[-2].step.numpy()) == best * steps
            assert len(outcome.history) == 4
            rows = validation(*pictures(32, seed=1))
            assert evaluate([student], rows) == [outcome.validation_metric]
            assert outcome.validation_metric == max(
                record.validation_metric for record in outcome.history
            )


class TestFailures:
    def test_infinite_weights_fail_alone(self, teacher):
        sound, alone, broken = conv_net(3, seed=1), conv_net(3, seed=1), conv_net(3, seed=2)
        broken.set_weights([np.full_like(w, np.inf) for w in broken.get_weights()])
        failed, fine = run([broken, sound], teacher)
        run([alone], teacher)
        assert failed.failure == "loss became NaN in epoch 1, step 1"
        assert (failed.best_epoch, failed.history) == (0, ())
        assert fine.failure is None
        assert_same_weights(sound, alone)
        assert np.all(np.isinf(broken.get_weights()[0]))  # As it was given.

    def test_a_later_nan_keeps_the_best_epoch_before_it(self, teacher):
        late = dense_net(end=[NanAtStep(5)])
        sound, alone = dense_net(seed=1), dense_net(seed=1)
        seen = []
        config = TrainingConfig(epochs=3, learning_rate=0.01)
        outcomes = run(
            [late, sound],
            teacher,
            config=config,
            on_epoch=lambda epoch, records: seen.append((epoch, sorted(records))),
        )
        run([alone], teacher, config=config)
        assert outcomes[0].failure == "loss became NaN in epoch 2, step 2"
        assert outcomes[0].best_epoch == 1
        assert float(late.layers[-2].step.numpy()) == 3
        assert np.all(np.isfinite(np.concatenate([w.ravel() for w in late.get_weights()])))
        assert outcomes[1].failure is None
        assert_same_weights(sound, alone)
        assert seen == [(1, [0, 1]), (2, [1]), (3, [1])]

    def test_weights_that_the_last_step_made_nan_are_no_result(self, teacher):
        students = [dense_net(end=[NanWeightAfterStep(3)]), dense_net(seed=1)]
        first = students[0].get_weights()
        seen = []
        config = TrainingConfig(epochs=1)
        broken, sound = run(
            students, teacher, config=config, on_epoch=lambda _, records: seen.append([*records])
        )
        assert broken.failure == "gives NaN or infinite outputs after epoch 1"
        assert (broken.best_epoch, broken.history) == (0, ())
        for weight, expected in zip(students[0].get_weights(), first, strict=True):
            np.testing.assert_array_equal(weight, expected)
        assert sound.failure is None
        assert seen == [[1]]

    def test_nan_weights_later_keep_the_best_epoch_before(self):
        student, seen = dense_net(end=[NanWeightAfterStep(6)]), []
        config = TrainingConfig(epochs=3)
        [outcome] = run([student], config=config, on_epoch=lambda *_: seen.append(1))
        assert outcome.failure == "gives NaN or infinite outputs after epoch 2"
        assert outcome.best_epoch == len(outcome.history) == len(seen) == 1
        assert np.all(np.isfinite(np.concatenate([w.ravel() for w in student.get_weights()])))

    def test_a_failed_student_takes_no_further_part(self):
        steps = []

        class Probe(keras.layers.Layer):
            def call(self, x, training=False):
                if training:
                    tf.py_function(lambda: steps.append(1), [], [])
                return x

        probed = dense_net(end=[Probe(), NanAtStep(2)])
        steps.clear()
        outcomes = run([probed, dense_net()], config=TrainingConfig(epochs=3))
        assert outcomes[0].failure
        assert len(steps) == 2

    def test_all_failed_ends_the_training(self):
        batches = []
        [outcome] = run(
            [dense_net(end=[NanAtStep(1)])],
            config=TrainingConfig(epochs=5),
            on_batch=lambda epoch, step: batches.append(epoch),
        )
        assert outcome.failure == "loss became NaN in epoch 1, step 1"
        assert set(batches) == {1}

    def test_an_error_in_a_trace_fails_alone(self, teacher):
        sound, alone = dense_net(seed=1), dense_net(seed=1)
        wrong_classes = keras.Sequential(
            [keras.Input((4, 4, 3)), keras.layers.Flatten(), keras.layers.Dense(1)]
        )
        i = keras.Input((4, 4, 3))
        weightless = keras.Model(i, keras.layers.GlobalAveragePooling2D()(i))
        flat = keras.layers.Flatten()(i)
        two_outputs = keras.Model(i, [keras.layers.Dense(3)(flat), keras.layers.Dense(3)(flat)])
        untraceable = dense_net(end=[CannotBeTraced()])
        students = [untraceable, sound, wrong_classes, weightless, two_outputs]
        outcomes = run(students, teacher)
        run([alone], teacher)
        assert "ValueError" in outcomes[0].failure
        assert "this layer has no training mode" in outcomes[0].failure
        assert outcomes[1].failure is None
        assert_same_weights(sound, alone)
        assert "(16, 1), the teacher's (16, 3)" in outcomes[2].failure
        assert "no trainable variables" in outcomes[3].failure
        assert "one output" in outcomes[4].failure
        assert all("\n" not in outcome.failure for outcome in outcomes if outcome.failure)

    def test_without_memory_alone(self, teacher):
        sound, alone = dense_net(seed=1), dense_net(seed=1)
        hungry = dense_net(seed=2, end=[RunsOutOfMemory(lambda: True)])
        before = hungry.get_weights()
        outcomes = run([dense_net(), hungry, sound], teacher)
        run([alone], teacher)
        assert [outcome.failure is None for outcome in outcomes] == [True, False, True]
        assert "ResourceExhaustedError" in outcomes[1].failure
        assert_same_weights(sound, alone)
        for a, b in zip(before, hungry.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)

    def test_without_memory_only_together(self, teacher):
        """Two students that fit alone are trained one after the other."""
        done = []

        students = [
            dense_net(seed=0, end=[RunsOutOfMemory(lambda: not done)]),
            dense_net(seed=1),
        ]
        alone = [dense_net(seed=seed) for seed in range(2)]

        original = students[1].set_weights

        def set_weights(weights):
            done.append(1)  # Called when the group is split.
            original(weights)

        students[1].set_weights = set_weights
        outcomes = run(students, teacher)
        for student, expected, outcome in zip(students, alone, outcomes, strict=True):
            run([expected], teacher)
            assert outcome.failure is None
            assert_same_weights(student, expected)

    def test_no_more_are_trained_at_once_than_had_room(self, teacher):
        """Five students of which two have room at once; later trainings begin with two."""
        together, told = [], []
        step_of = joint_step.JointStep

        def run_five(at_once):
            students = [dense_net(seed=seed) for seed in range(5)]
            outcomes = run(students, teacher, at_once=at_once)
            assert all(outcome.failure is None for outcome in outcomes)
            return students

        class Step(step_of):
            def __init__(self, students, settings):
                together.append(len(students))
                if len(students) > 2:
                    raise StepError("no room") from MemoryError()
                super().__init__(students, settings)

        at_once = training.AtOnce(told.append)
        expected = run_five(None)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(training, "JointStep", Step)
            first = run_five(at_once)
            assert together == [5, 2, 2, 1]
            together.clear()
            second = run_five(at_once)
        assert together == [2, 2, 1]
        assert at_once.limit == 2
        assert told[0].startswith("Memory ran out with 5 students at once: 2 at a time")
        for student, one, other in zip(expected, first, second, strict=True):
            assert_same_weights(student, one)
            assert_same_weights(student, other)

    def test_what_has_room_may_become_less(self):
        """Eight had room once: they say nothing of later."""
        at_once = training.AtOnce()
        at_once.had_room(8)
        at_once.memory_ran_out(8)
        assert at_once.limit == 4
        at_once.had_room(3)
        at_once.memory_ran_out(4)
        assert at_once.limit == 3

    @pytest.mark.parametrize(
        "error",
        [MemoryError("no room"), tf.errors.ResourceExhaustedError(None, None, "no room")],
        ids=lambda error: type(error).__name__,
    )
    @pytest.mark.parametrize("where", ["built", "traced"])
    def test_memory_that_runs_out_early_is_nobodys_failure(self, monkeypatch, where, error):
        """The last student finds no room beside the first, and enough alone."""
        built, traced = [], []

        class NeedsRoom(keras.layers.Layer):
            def call(self, x, training=False):
                if training:
                    traced.append(1)
                    if where == "traced" and len(traced) == 2:
                        raise error
                return x

        def build_update(*arguments):
            built.append(1)
            if where == "built" and len(built) == 2:
                raise error
            return StudentUpdate(*arguments)

        students = [dense_net(seed, end=[NeedsRoom()]) for seed in range(2)]
        traced.clear()
        monkeypatch.setattr(joint_step, "StudentUpdate", build_update)
        outcomes = run(students)
        assert [outcome.failure for outcome in outcomes] == [None, None]
        assert len(built) == 4

    def test_without_memory_to_trace_even_alone(self):
        class NoRoom(keras.layers.Layer):
            def call(self, x, training=False):
                if training:
                    raise MemoryError("no room")
                return x

        outcomes = run([dense_net(), dense_net(end=[NoRoom()])])
        assert outcomes[0].failure is None
        assert outcomes[1].failure.startswith("MemoryError: ")
        assert "no room" in outcomes[1].failure

    def test_a_lost_machine_is_nobodys_failure(self):
        class Unplugged(keras.layers.Layer):
            def call(self, x, training=False):
                if training:
                    raise tf.errors.UnavailableError(None, None, "unplugged")
                return x

        with pytest.raises(tf.errors.UnavailableError, match="unplugged"):
            run([dense_net(end=[Unplugged()]), dense_net()])

    def test_an_error_in_the_data_is_nobodys_failure(self):
        class Broken(ArrayBatches):
            def epoch(self, epoch):
                def fail(x, y):
                    with tf.control_dependencies([tf.debugging.assert_less(x, -1e9)]):
                        return tf.identity(x), y

                return super().epoch(epoch).map(fail)

        broken = Broken(*pictures(16))
        with pytest.raises(tf.errors.InvalidArgumentError):
            run([dense_net()], batches=broken)
        rows = broken.epoch(0).map(lambda x, y: (x, y, tf.ones(16)))
        with pytest.raises(tf.errors.InvalidArgumentError):
            run([dense_net()], validation_rows=rows)


class TestCallbacks:
    def test_their_calls(self):
        epochs, batches = [], []
        outcomes = run(
            [dense_net(0), dense_net(1)],
            on_epoch=lambda epoch, records: epochs.append((epoch, records)),
            on_batch=lambda epoch, step: batches.append((epoch, step)),
        )
        assert batches == [(epoch, step) for epoch in (1, 2) for step in (1, 2, 3)]
        assert [epoch for epoch, _ in epochs] == [1, 2]
        for index, outcome in enumerate(outcomes):
            assert outcome.history == tuple(records[index] for _, records in epochs)
            assert all(record.secs > 0 for record in outcome.history)

    def test_should_stop_drops_the_epoch_under_way(self):
        batches = []
        student = dense_net()
        [outcome] = run(
            [student],
            config=TrainingConfig(epochs=50),
            on_batch=lambda *at: batches.append(at),
            should_stop=lambda: len(batches) == 5,
        )
        assert batches[-1] == (2, 2)
        assert [record.epoch for record in outcome.history] == [1]
        rows = validation(*pictures(32, seed=1))
        assert evaluate([student], rows) == [outcome.validation_metric]

    def test_stopped_before_an_epoch_ended(self):
        student = dense_net()
        before = student.get_weights()
        [outcome] = run([student], should_stop=lambda: True)
        assert (outcome.best_epoch, outcome.validation_metric) == (0, None)
        assert outcome.failure is None
        for a, b in zip(before, student.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)


class TestWhatIsRefused:
    def test_batches_of_another_size(self):
        class Partial(ArrayBatches):
            def epoch(self, epoch):
                return super().epoch(epoch).unbatch().batch(16)

        with pytest.raises(UserError, match="must have 16 rows"):
            run([dense_net()], batches=Partial(*pictures(40)))

    def test_no_rows_to_validate(self):
        rows = validation(*pictures(16)).take(0)
        with pytest.raises(UserError, match="no rows"):
            run([dense_net()], validation_rows=rows)

    def test_a_loss_without_its_teacher(self):
        with pytest.raises(UserError, match="needs a teacher"):
            run([dense_net()], loss=MSE)

    def test_a_student_twice(self, teacher):
        student = dense_net()
        with pytest.raises(UserError, match="given twice"):
            run([student, student], teacher)
        with pytest.raises(UserError, match="given twice"):
            run([teacher], teacher)

    def test_a_model_that_is_not_built(self):
        with pytest.raises(UserError, match="not built"):
            run([keras.Sequential([keras.layers.Dense(3)])])

    def test_a_teacher_with_two_outputs(self):
        i = keras.Input((4, 4, 3))
        flat = keras.layers.Flatten()(i)
        teacher = keras.Model(i, [keras.layers.Dense(3)(flat), keras.layers.Dense(3)(flat)])
        with pytest.raises(UserError, match="one output"):
            run([dense_net()], teacher)


def test_frozen_layers_train_and_are_frozen_again():
    student = conv_net()
    student.layers[0].trainable = student.layers[1].trainable = False
    before = [layer.get_weights()[0] for layer in student.layers[:2]]
    [outcome] = run([student])
    assert outcome.failure is None
    assert not student.layers[0].trainable
    assert not student.layers[1].trainable
    assert student.layers[-1].trainable
    for layer, weight in zip(student.layers[:2], before, strict=True):
        assert not np.array_equal(layer.get_weights()[0], weight)


def test_a_frozen_model_trains():
    student = dense_net()
    student.trainable = False
    [outcome] = run([student])
    assert outcome.failure is None
    assert not student.trainable_variables
