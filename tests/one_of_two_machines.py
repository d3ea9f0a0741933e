"""Run by test_joint_machines.py, as two processes with a TF_CONFIG each, or as one without."""

from __future__ import annotations

import pathlib
import sys

import numpy as np

from esnac_tf.distillation.machines import joined
from esnac_tf.errors import UserError


def train_teacher(folder, machines):
    """Trains a named teacher by the digits, or joins in."""
    from esnac_tf import datasets
    from esnac_tf.display import Display
    from esnac_tf.distillation import TrainingConfig
    from esnac_tf.teacher_training import assist_training, trained_teacher

    splits = datasets.load("digits", train_examples=128, validation_examples=64)
    training = TrainingConfig.teacher(epochs=2, learning_rate=0.01)
    given = "resnet18(width=4)", splits, training
    settings = {"batch_size": 32, "seed": 0, "display": Display(), "machines": machines}
    if machines is not None and not machines.is_chief:
        assist_training(*given, **settings)
        return
    model = trained_teacher(*given, distribute="none", cache_dir=folder / "cache", **settings)
    np.savez(folder / "weights.npz", *model.get_weights())


def search(folder, full_epochs, metric, machines):
    """Searches students of the toy, or joins in."""
    import toy

    from esnac_tf import joint_machines
    from esnac_tf.compression import search_students
    from esnac_tf.config import SearchConfig

    train = joint_machines.train

    def told_train(*arguments, **settings):
        (folder / "training").touch()
        return train(*arguments, **settings)

    joint_machines.train = told_train
    settings = {
        "metric": metric,
        "full_epochs": full_epochs,
        "full_optimizer": "adam",
        "search_epochs": 1,
    }
    config = SearchConfig(**{**toy.SHORT, **settings})
    data = toy.TRAIN, toy.VALIDATION
    if machines is not None and not machines.is_chief:
        joint_machines.assist(machines, *data, config)
        return
    result = search_students(toy.teacher(), *data, config=config, run_dir=folder / "run")
    weights = [weight for student in result.students for weight in student.model.get_weights()]
    np.savez(folder / "weights.npz", *weights)
    print("epochs", *(student.best_epoch for student in result.students))
    print("trials", len(result.trials))


def main(folder, full_epochs, metric):
    machines = joined()  # before TensorFlow does anything
    if full_epochs:
        search(folder, full_epochs, metric, machines)
    else:
        train_teacher(folder, machines)


if __name__ == "__main__":
    try:
        main(pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)
