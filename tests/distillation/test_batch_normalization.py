import keras
import numpy as np
import tensorflow as tf

from esnac_tf.distillation import TrainingConfig, losses, train
from esnac_tf.distillation.batch_normalization import batch_norm_for_training


class _Batches:
    batch_size = 8

    def epoch(self, epoch):
        x = np.random.default_rng(epoch).normal(5.0, 1.0, (400, 3)).astype("float32")
        y = np.zeros(400, "int32")
        return tf.data.Dataset.from_tensor_slices((x, y)).batch(8, drop_remainder=True)


def _trained(momentum_cap):
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.BatchNormalization(), keras.layers.Dense(2)]
    )
    validation = tf.data.Dataset.from_tensors(
        (np.zeros((4, 3), "float32"), np.zeros(4, "int32"), np.ones(4, "float32"))
    )
    train(
        [model],
        _Batches(),
        validation,
        TrainingConfig(epochs=1, batch_norm_momentum=momentum_cap),
        loss=losses.get("cross_entropy"),
    )
    return model


def test_statistics_follow_a_training_of_fifty_steps():
    fast, slow = _trained(0.9), _trained(1.0)
    np.testing.assert_allclose(fast.layers[0].moving_mean, 5.0, atol=0.5)
    assert np.all(np.asarray(slow.layers[0].moving_mean) < 3.0)
    assert fast.layers[0].momentum == slow.layers[0].momentum == 0.99


def test_layers_come_back_as_they_were():
    layers = [
        keras.layers.BatchNormalization(momentum=0.5, synchronized=True),
        keras.layers.BatchNormalization(),
    ]
    model = keras.Sequential([keras.Input((3,)), keras.Sequential(layers)])
    with batch_norm_for_training([model], 0.9, num_replicas=2):
        assert [layer.momentum for layer in layers] == [0.5, 0.9]
        assert [layer.synchronized for layer in layers] == [True, True]
    assert [layer.momentum for layer in layers] == [0.5, 0.99]
    assert [layer.synchronized for layer in layers] == [True, False]


def test_one_device_has_nothing_to_synchronise():
    layer = keras.layers.BatchNormalization()
    model = keras.Sequential([keras.Input((3,)), layer])
    with batch_norm_for_training([model], 0.9, num_replicas=1):
        assert not layer.synchronized
