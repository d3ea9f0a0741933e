"""A training as the display shows it."""

import io

from esnac_tf.display import Display
from esnac_tf.distillation import EpochRecord
from esnac_tf.training_progress import training_progress


class Clock:
    """Each look at it takes a minute."""

    def __init__(self):
        self.secs = 0.0

    def __call__(self):
        self.secs += 60.0
        return self.secs


class Batches:
    batch_size = 4

    def __init__(self, num_batches):
        if num_batches != "not told":
            self.num_batches = num_batches


def lines_of(batches):
    file = io.StringIO()
    display = Display(file=file, clock=Clock())
    with training_progress(display, "Step 1", 2, batches) as (on_epoch, on_batch):
        on_batch(1, 1)
        records = {0: EpochRecord(1, 0.5, 0.25, 0.25, 1.0), 3: EpochRecord(1, 0.5, 0.75, 0.75, 1.0)}
        on_epoch(1, records)
        on_batch(2, 1)
        on_batch(2, 2)
    return file.getvalue().splitlines()


def test_batches_epochs_and_the_best_accuracy_are_told():
    first, *others = lines_of(Batches(5))
    assert first == "Step 1 1 of 10"  # the first batch takes long to compile and tells nothing
    for number, line in enumerate(others, 2):
        head = f"Step 1 {number} of 10, epoch 1 of 2, best accuracy 75.00 %, about "
        assert line.startswith(head)
        assert line.endswith(" left")


def test_an_unknown_number_of_batches_is_left_out():
    for unknown in (None, "not told"):
        assert lines_of(Batches(unknown)) == [
            "Step 1 1",
            "Step 1 2, epoch 1 of 2, best accuracy 75.00 %",
            "Step 1 3, epoch 1 of 2, best accuracy 75.00 %",
        ]
