import os
import pathlib
import pickle
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from esnac_tf import datasets
from esnac_tf.datasets.pipelines import PADDING, TrainingBatches, crop_flip, evaluation_batches


def pictures(count, shape=(8, 8, 3)):
    x = np.random.default_rng(0).integers(0, 256, [count, *shape], dtype=np.uint8)
    return x, np.arange(count)


def contents(dataset):
    return [tuple(part.numpy() for part in element) for element in dataset]


def assert_same(one, two):
    assert len(one) == len(two)
    for parts, other_parts in zip(one, two, strict=True):
        for part, other in zip(parts, other_parts, strict=True):
            np.testing.assert_array_equal(part, other)


@settings(max_examples=15, deadline=None)
@given(count=st.integers(1, 40), batch_size=st.integers(1, 50), epoch=st.integers(0, 10**9))
def test_an_epoch_holds_every_picture_at_most_once(count, batch_size, epoch):
    x, y = pictures(count, (2, 2, 1))
    batches = TrainingBatches(x, y, batch_size)
    dataset = batches.epoch(epoch)
    assert batches.batch_size == min(count, batch_size)
    assert batches.num_batches == len(dataset) == count // batches.batch_size
    assert dataset.element_spec[0].shape == (batches.batch_size, 2, 2, 1)
    elements = contents(dataset)
    assert len(elements) == batches.num_batches
    seen = np.concatenate([labels for _, labels in elements])
    assert len(set(seen.tolist())) == len(seen) == batches.num_batches * batches.batch_size
    for images, labels in elements:
        assert images.dtype == np.float32
        assert labels.dtype == np.int32
        np.testing.assert_array_equal(images, x[labels])


@pytest.mark.parametrize("augmentation", [None, "crop_flip"])
def test_an_epoch_depends_on_nothing_but_seed_and_number(augmentation):
    x, y = pictures(50)
    first = TrainingBatches(x, y, 8, augmentation=augmentation, seed=3)
    epochs = [contents(first.epoch(epoch)) for epoch in range(3)]
    # Iterated again, asked for again, in another order, by another object: the same.
    dataset = first.epoch(1)
    assert_same(contents(dataset), epochs[1])
    assert_same(contents(dataset), epochs[1])
    other = TrainingBatches(x, y, 8, augmentation=augmentation, seed=3)
    assert_same(contents(other.epoch(2)), epochs[2])
    assert_same(contents(other.epoch(0)), epochs[0])
    # Another epoch and another seed: another order.
    reseeded = contents(TrainingBatches(x, y, 8, augmentation=augmentation, seed=4).epoch(0))
    for different in (epochs[1], epochs[2], reseeded):
        assert not np.array_equal(different[0][1], epochs[0][0][1])


@pytest.mark.parametrize("augmentation", [None, "crop_flip"])
def test_batches_go_to_another_process(augmentation):
    x = np.random.default_rng(0).integers(0, 255, (10, 8, 8, 3)).astype(np.uint8)
    batches = TrainingBatches(x, np.arange(10), 4, augmentation=augmentation, seed=3)
    copy = pickle.loads(pickle.dumps(batches))
    assert (copy.batch_size, copy.num_batches) == (4, 2)
    for epoch in range(2):
        for (x, y), (x_copy, y_copy) in zip(batches.epoch(epoch), copy.epoch(epoch), strict=True):
            np.testing.assert_array_equal(x, x_copy)
            np.testing.assert_array_equal(y, y_copy)


def test_crops_differ_between_epochs_and_batches():
    x = np.tile(pictures(1)[0], [6, 1, 1, 1])  # One picture six times: only the crop can differ.
    batches = TrainingBatches(x, np.zeros(6, int), 2, augmentation="crop_flip")
    seen = [images.tobytes() for epoch in range(5) for images, _ in contents(batches.epoch(epoch))]
    assert len(set(seen)) == len(seen) == 15


def reference_crops(picture, fill):
    """All 2 * 81 results of padding, cropping and flipping, the slow way."""
    height, width, _ = picture.shape
    padded = np.tile(np.float32(fill), [height + 2 * PADDING, width + 2 * PADDING, 1])
    padded[PADDING : PADDING + height, PADDING : PADDING + width] = picture
    crops = {}
    for top in range(2 * PADDING + 1):
        for left in range(2 * PADDING + 1):
            crop = padded[top : top + height, left : left + width]
            crops[crop.tobytes()] = (top, left, False)
            crops[crop[:, ::-1].tobytes()] = (top, left, True)
    return crops


@pytest.mark.parametrize("shape", [(8, 8, 3), (5, 7, 1), (3, 2, 2)])
def test_crop_flip_is_one_of_the_reference_crops(shape):
    x = pictures(30, shape)[0].astype(np.float32)
    fill = np.arange(shape[-1]) + 0.25
    result = crop_flip(tf.constant(x), tf.constant(fill, tf.float32), tf.constant([1, 2])).numpy()
    for before, after in zip(x, result, strict=True):
        assert after.tobytes() in reference_crops(before, fill)


def test_all_crops_are_equally_likely():
    picture = pictures(1)[0].astype(np.float32)
    x = tf.constant(np.tile(picture, [8100, 1, 1, 1]))
    result = crop_flip(x, tf.constant(-1.0), tf.constant([5, 6])).numpy()
    crops = reference_crops(picture[0], [-1.0] * 3)
    found = [crops[image.tobytes()] for image in result]
    counts = np.zeros([9, 9, 2])
    for top, left, flipped in found:
        counts[top, left, int(flipped)] += 1
    # 50 of each expected; chi-square with 161 degrees of freedom, mean 161, deviation 18.
    assert np.sum((counts - 50) ** 2 / 50) < 161 + 4 * 18
    assert counts.min() > 0


def test_the_padding_is_the_mean_unless_told_otherwise():
    x = np.full([4, 8, 8, 2], 10, np.uint8)
    x[..., 1] = 200
    for fill, expected in ((None, [[10.0], [200.0]]), ((1.5, 2.5), [[1.5, 10.0], [2.5, 200.0]])):
        batches = TrainingBatches(x, np.zeros(4, int), 4, augmentation="crop_flip", fill=fill)
        images, _ = contents(batches.epoch(0))[0]
        for channel in range(2):
            assert np.unique(images[..., channel]).tolist() == expected[channel]


def test_the_padding_is_zero_after_normalisation():
    """What the paper does: normalise, pad with zeros; here: pad with the mean, normalise."""
    x, y = pictures(6)
    splits = datasets.Splits(
        "toy", x[:4], y[:4], x[4:5], y[4:5], x[5:], y[5:], 6, tuple("abcdef"), "crop_flip",
        datasets.Normalization((120.0, 110.0, 100.0), (60.0, 50.0, 40.0)),
    )  # fmt: skip
    mean, deviation = (np.float32(numbers) for numbers in splits.normalization)
    raw = TrainingBatches(x, y, 6, augmentation=splits.augmentation, fill=splits.normalization.mean)
    normalised = TrainingBatches((x - mean) / deviation, y, 6, augmentation="crop_flip", fill=0.0)
    for (one, _), (two, _) in zip(raw.epoch(0), normalised.epoch(0), strict=True):
        np.testing.assert_allclose((one - mean) / deviation, two, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 3, 4, 10, 11, 64])
def test_evaluation_is_in_order_and_padded(batch_size):
    x, y = pictures(10)
    dataset = evaluation_batches(x, y, batch_size)
    assert len(dataset) == -(-10 // batch_size)
    for _ in range(2):
        elements = contents(dataset)
        for images, labels, weight in elements:
            assert images.shape == (batch_size, 8, 8, 3)
            assert labels.shape == weight.shape == (batch_size,)
            assert (images.dtype, labels.dtype, weight.dtype) == (np.float32, np.int32, np.float32)
        images, labels, weight = (np.concatenate(part) for part in zip(*elements, strict=True))
        np.testing.assert_array_equal(weight, np.arange(len(weight)) < 10)
        np.testing.assert_array_equal(images[:10], x)
        np.testing.assert_array_equal(labels[:10], y)
        assert not images[10:].any()
        assert not labels[10:].any()


def test_examples_that_are_no_pictures():
    x = np.random.default_rng(0).normal(size=[7, 5])
    batches = TrainingBatches(x, np.arange(7), 3)
    for images, labels in batches.epoch(0):
        np.testing.assert_array_equal(images, x.astype(np.float32)[labels])
    (images, _, _), *_ = contents(evaluation_batches(x, np.arange(7), 7))
    np.testing.assert_array_equal(images, x.astype(np.float32))


def test_later_changes_of_the_arrays_do_not_matter():
    x, y = pictures(4)
    batches, evaluation = TrainingBatches(x, y, 4), evaluation_batches(x, y, 4)
    before = contents(batches.epoch(0)), contents(evaluation)
    x[:] = 0
    y[:] = 0
    assert_same(contents(batches.epoch(0)), before[0])
    assert_same(contents(evaluation), before[1])


def test_a_training_step_is_traced_once():
    traces = []

    @tf.function
    def step(images, labels):
        traces.append(images.shape)
        return tf.reduce_sum(images) + tf.cast(tf.reduce_sum(labels), tf.float32)

    x, y = pictures(10)
    batches = TrainingBatches(x, y, 4, augmentation="crop_flip")
    for epoch in range(3):
        for images, labels in batches.epoch(epoch):
            step(images, labels)
    assert len(traces) == 1


def test_wrong_arguments(user_error):
    x, y = pictures(4)
    for make in (TrainingBatches, evaluation_batches):
        assert "--batch_size" in user_error(make, x, y, 0)
        assert "(4, 8, 8, 3) and (3,)" in user_error(make, x, y[:3], 2)
        user_error(make, x[:0], y[:0], 2)
        user_error(make, x, y[:, np.newaxis], 2)
    assert "'mixup'" in user_error(TrainingBatches, x, y, 2, augmentation="mixup")
    flat = x.reshape(4, -1)
    assert "crop_flip" in user_error(TrainingBatches, flat, y, 2, augmentation="crop_flip")
    text = user_error(TrainingBatches, x, y, 2, augmentation="crop_flip", fill=(1.0, 2.0))
    assert "3 channels" in text
    with pytest.raises(ValueError, match="at least 0"):
        TrainingBatches(x, y, 2).epoch(-1)


DISTRIBUTED = """
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from esnac_tf.datasets.pipelines import TrainingBatches, evaluation_batches

strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
x = np.random.default_rng(0).integers(0, 256, [50, 8, 8, 3], dtype=np.uint8)
batches = TrainingBatches(x, np.arange(50), 16, augmentation="crop_flip", seed=1)
evaluation = evaluation_batches(x, np.arange(50), 16)
for dataset in (batches.epoch(0), batches.epoch(1), evaluation, evaluation):
    pairs = zip(strategy.experimental_distribute_dataset(dataset), dataset, strict=True)
    for shared, whole in pairs:
        for part, expected in zip(shared, whole, strict=True):
            locals_ = strategy.experimental_local_results(part)
            assert [len(value) for value in locals_] == [8, 8]
            np.testing.assert_array_equal(np.concatenate(locals_), expected)
"""


def test_two_replicas_share_each_batch():
    root = pathlib.Path(datasets.__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "TF_CPP_MIN_LOG_LEVEL": "2"}
    run = subprocess.run(
        [sys.executable, "-c", DISTRIBUTED], env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
