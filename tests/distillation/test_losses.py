import dataclasses
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from esnac_tf.distillation import losses
from esnac_tf.errors import UnknownNameError, UserError

B, C = 6, 4


def batch(scale=3.0, seed=0):
    rng = np.random.default_rng(seed)
    teacher, student = scale * rng.normal(size=(2, B, C)).astype("float32")
    return rng.integers(0, C, B), teacher, student


def softmax(logits):
    e = np.exp(logits.astype("float64") - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def reference_cross_entropy(labels, student):
    return -np.log(softmax(student)[np.arange(len(labels)), labels])


def reference_soft_targets(teacher, student, temperature):
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    return temperature**2 * (p * np.log(p / q)).sum(-1)


class TestEachLoss:
    """The contract of every loss in the folder."""

    @pytest.fixture(params=losses.names())
    def loss(self, request):
        return losses.get(request.param)

    def test_one_finite_value_per_example(self, loss):
        labels, teacher, student = batch()
        values = loss(labels, teacher if loss.needs_teacher else None, student)
        assert values.shape == (B,)
        assert values.dtype == tf.float32
        assert np.all(np.isfinite(values))
        assert np.all(values.numpy() >= 0)

    def test_examples_do_not_touch_one_another(self, loss):
        labels, teacher, student = batch()
        alone = [loss(labels[i : i + 1], teacher[i : i + 1], student[i : i + 1]) for i in range(B)]
        together = loss(labels, teacher, student)
        np.testing.assert_allclose(together, np.concatenate(alone), rtol=1e-5, atol=1e-6)

    def test_a_student_equal_to_a_sure_and_right_teacher_has_no_loss(self, loss):
        labels = np.arange(C)
        sure = 1000.0 * np.eye(C, dtype="float32")
        np.testing.assert_allclose(loss(labels, sure, sure), np.zeros(C), atol=1e-6)

    def test_a_wrong_student_loses_more_than_a_right_one(self, loss):
        labels = np.arange(C)
        right = 5.0 * np.eye(C, dtype="float32")
        assert np.all(loss(labels, right, -right).numpy() > loss(labels, right, right).numpy())

    @pytest.mark.parametrize("scale", [1.0, 1e4])
    def test_gradient_is_finite_and_not_zero(self, loss, scale):
        labels, teacher, student = batch(scale)
        student = tf.Variable(student)
        with tf.GradientTape() as tape:
            value = tf.reduce_sum(loss(labels, teacher, student))
        gradient = tape.gradient(value, student)
        assert gradient is not None
        assert np.all(np.isfinite(gradient))
        assert np.any(gradient.numpy() != 0)

    def test_is_a_frozen_value(self, loss):
        assert loss == type(loss)()
        with pytest.raises(dataclasses.FrozenInstanceError):
            loss.needs_teacher = None

    def test_an_unknown_option_is_named(self, loss):
        name = next(name for name in losses.names() if losses.get(name) == loss)
        with pytest.raises(UserError, match="no option sharpness"):
            losses.get(name, sharpness=1.0)


class TestAgainstReferences:
    def test_logit_mse(self):
        labels, teacher, student = batch()
        values = losses.get("logit_mse")(labels, teacher, student)
        np.testing.assert_allclose(values, ((teacher - student) ** 2).mean(-1), rtol=1e-5)

    def test_cross_entropy(self):
        labels, _, student = batch()
        values = losses.get("cross_entropy")(labels, None, student)
        np.testing.assert_allclose(values, reference_cross_entropy(labels, student), rtol=1e-4)

    @pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
    def test_soft_targets(self, temperature):
        labels, teacher, student = batch()
        values = losses.get("soft_targets", temperature=temperature)(labels, teacher, student)
        expected = reference_soft_targets(teacher, student, temperature)
        np.testing.assert_allclose(values, expected, rtol=1e-4)

    def test_soft_targets_and_labels(self):
        labels, teacher, student = batch()
        loss = losses.get("soft_targets_and_labels", temperature=2.0, label_weight=0.3)
        expected = 0.7 * reference_soft_targets(teacher, student, 2.0)
        expected += 0.3 * reference_cross_entropy(labels, student)
        np.testing.assert_allclose(loss(labels, teacher, student), expected, rtol=1e-4)

    def test_hot_soft_targets_tend_to_the_squared_error_of_centred_logits(self):
        labels, teacher, student = batch()
        teacher -= teacher.mean(-1, keepdims=True)
        student -= student.mean(-1, keepdims=True)
        soft = losses.get("soft_targets", temperature=100.0)(labels, teacher, student)
        # The mean over C, and one half from the expansion of the divergence.
        mse = losses.get("logit_mse")(labels, teacher, student) / 2
        np.testing.assert_allclose(soft, mse, rtol=0.05)


class TestAgainstKerasDistillation:
    def test_logit_mse(self):
        labels, teacher, student = batch()
        theirs = keras.distillation.LogitsDistillation(temperature=1.0, loss="mse")
        ours = np.mean(losses.get("logit_mse")(labels, teacher, student))
        np.testing.assert_allclose(ours, theirs.compute_loss(teacher, student), rtol=1e-6)

    def test_soft_targets(self):
        labels, teacher, student = batch()
        theirs = keras.distillation.LogitsDistillation(
            temperature=3.0, loss=keras.losses.KLDivergence()
        )
        ours = np.mean(losses.get("soft_targets", temperature=3.0)(labels, teacher, student))
        np.testing.assert_allclose(ours, theirs.compute_loss(teacher, student), rtol=1e-4)


class TestNames:
    def test_unknown_name(self):
        with pytest.raises(UnknownNameError, match="Did you mean 'logit_mse'"):
            losses.get("logits_mse")

    @pytest.mark.parametrize(
        ("name", "options"),
        [
            ("soft_targets", {"temperature": 0.0}),
            ("soft_targets", {"temperature": float("nan")}),
            ("soft_targets_and_labels", {"temperature": -1.0}),
            ("soft_targets_and_labels", {"label_weight": 1.5}),
        ],
    )
    def test_options_out_of_range(self, name, options):
        with pytest.raises(UserError, match=next(iter(options))):
            losses.get(name, **options)

    def test_listing_names_imports_no_tensorflow(self):
        code = (
            "import sys; from esnac_tf import distillation as d; d.losses.names();"
            "d.TrainingConfig.search(); d.TrainingOutcome(None, 0.0, 0); d.DISTRIBUTE;"
            "assert not {'tensorflow', 'keras'} & set(sys.modules)"
        )
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
