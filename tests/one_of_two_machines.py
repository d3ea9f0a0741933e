"""Run by test_joint_machines.py, as two processes with a TF_CONFIG each, or as one without.

Arguments: a folder, "teacher" or "search", and changes of the settings as JSON: under "all", and
under "other" those of the machine that is not the chief.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import sys
import time

import keras
import numpy as np
import tensorflow as tf

from esnac_tf.config import SearchConfig
from esnac_tf.distillation.machines import joined
from esnac_tf.errors import UserError


def train_teacher(folder, machines, train_examples=128, learning_rate=0.01):
    """Trains a named teacher by the digits, or joins in."""
    from esnac_tf import datasets, joint_machines
    from esnac_tf.display import Display
    from esnac_tf.distillation import TrainingConfig
    from esnac_tf.teacher_training import assist_training, trained_teacher

    splits = datasets.load("digits", train_examples=train_examples, validation_examples=64)
    training = TrainingConfig.teacher(epochs=2, learning_rate=learning_rate)
    given = "resnet18(width=4)", splits, training
    settings = {"batch_size": 32, "seed": 0, "display": Display(), "machines": machines}
    if machines is not None and not machines.is_chief:

        def join_in(order):
            assist_training(order, *given, **settings)

        joint_machines.assist(machines, None, None, SearchConfig(), train_teacher=join_in)
        return
    with contextlib.nullcontext() if machines is None else machines.lasting():
        model = trained_teacher(*given, distribute="none", cache_dir=folder / "cache", **settings)
        np.savez(folder / "weights.npz", *model.get_weights())


def search(folder, machines, data="arrays", teacher="classifier", asked=None, **changes):
    """Searches students of the toy, or joins in."""
    import toy

    from esnac_tf import joint_machines
    from esnac_tf.compression import search_students

    train = joint_machines.train

    def told_train(*arguments, **settings):
        (folder / "training").touch()
        return train(*arguments, **settings)

    joint_machines.train = told_train
    settings = {"full_epochs": 8, "full_optimizer": "adam", "search_epochs": 1, **changes}
    config = SearchConfig(**{**toy.SHORT, **settings})
    if teacher == "regression":
        model, given = regression(toy)
    else:
        model, given = toy.teacher(), [toy.TRAIN, toy.VALIDATION]
    given = changed(data, *given)
    asked = asked or {}
    if machines is not None and not machines.is_chief:
        joint_machines.assist(machines, *given, config, **asked)
        return
    result = search_students(model, *given, config=config, run_dir=folder / "run", **asked)
    weights = [weight for student in result.students for weight in student.model.get_weights()]
    np.savez(folder / "weights.npz", *weights)
    print("epochs", *(student.best_epoch for student in result.students))
    print("trials", len(result.trials))


def regression(toy):
    """A compiled teacher that is no classifier, and its data."""
    x, _ = toy.TRAIN
    y = x[:, :1] + 2 * x[:, 1:2]
    keras.utils.set_random_seed(0)
    inputs = keras.Input((toy.FEATURES,))
    hidden = keras.layers.Dense(12, activation="relu")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1)(hidden))
    model.compile("adam", "mean_squared_error")
    model.fit(x, y, epochs=8, batch_size=16, verbose=0)
    return model, [(x[:64], y[:64]), (x[64:], y[64:])]


def changed(data, train, validation):
    """The data, as it is or as it should not be."""
    if data == "other labels":
        x, y = train
        return (x, np.concatenate([y[:70], 0 * y[70:]])), validation
    if data == "shuffled":
        return train, tf.data.Dataset.from_tensor_slices(validation).shuffle(40).batch(8)
    assert data == "arrays"
    return train, validation


def main(folder, work, changes):
    machines = joined()  # before TensorFlow does anything
    settings = dict(changes.get("all", {}))
    if machines is not None and not machines.is_chief:
        settings.update(changes.get("other", {}))
    {"teacher": train_teacher, "search": search}[work](folder, machines, **settings)


if __name__ == "__main__":
    try:
        main(pathlib.Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]))
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        (pathlib.Path(sys.argv[1]) / "failed").open("a").write("x")
        # As a notebook does: the process goes on, until the other one has ended, too.
        deadline = time.monotonic() + 30
        while (pathlib.Path(sys.argv[1]) / "failed").stat().st_size < 2:
            if time.monotonic() > deadline:
                sys.exit(3)
            time.sleep(0.1)
        sys.exit(2)
