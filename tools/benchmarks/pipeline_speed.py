"""The input pipeline against the training that it feeds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks.timing import Finding, alternate, ratio
from benchmarks.training_speed import examples, new_joint_step, teacher_and_students
from esnac_tf.datasets.pipelines import TrainingBatches
from esnac_tf.distillation import TrainingConfig

_BATCH_SIZE = 128


def images(size: str) -> Iterator[Finding]:
    """Pictures a second that the pipeline delivers / those that training together consumes.

    The pipeline crops and flips pictures of CIFAR-10's shape, and nothing is done with them.
    Training takes one batch again and again, which is in memory. The same pipeline is compared
    with itself without crops and flips, too.
    """
    num_students, num_batches, rounds = (8, 390, 9) if size == "full" else (4, 50, 5)
    generator = np.random.default_rng(0)
    number = num_batches * _BATCH_SIZE
    pictures = generator.integers(256, size=(number, 32, 32, 3), dtype=np.uint8)
    labels = generator.integers(10, size=number)
    varied = TrainingBatches(pictures, labels, _BATCH_SIZE, augmentation="crop_flip")
    plain = TrainingBatches(pictures, labels, _BATCH_SIZE)
    model, students = teacher_and_students(num_students, 1)
    step = new_joint_step(model, students, TrainingConfig.search(), _BATCH_SIZE)
    x, y = examples(_BATCH_SIZE)

    def deliver(batches: TrainingBatches) -> None:
        for _ in batches.epoch(0):
            pass

    def train() -> None:
        step(x, y)
        step.mean_losses()

    secs = alternate(
        {"varied": lambda: deliver(varied), "plain": lambda: deliver(plain), "train": train}, rounds
    )
    # Of one batch: less time is more pictures a second.
    with_crops, without = (np.array(secs[key]) / num_batches for key in ("varied", "plain"))
    rates = [_BATCH_SIZE / np.median(each) for each in (with_crops, secs["train"], without)]
    detail = "a batch, {:,.0f} pictures/s to {:,.0f}".format(*rates)
    yield ratio(
        f"pictures/s of the pipeline / of training {num_students} students",
        secs["train"],
        with_crops,
        10.0,
        at_least=True,
        detail=detail,
    )
    detail = f"a batch, {rates[2]:,.0f} pictures/s without"
    yield ratio("pictures/s with crops and flips / without", without, with_crops, detail=detail)
