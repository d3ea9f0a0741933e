"""Run by test_joint_machines.py, as two processes with a TF_CONFIG each, or as one without."""

from __future__ import annotations

import pathlib
import sys

import numpy as np

from esnac_tf.distillation.machines import joined
from esnac_tf.errors import UserError


def main(folder, full_epochs):
    machines = joined()  # before TensorFlow does anything
    import toy

    from esnac_tf import joint_machines
    from esnac_tf.compression import search_students
    from esnac_tf.config import SearchConfig

    train = joint_machines.train

    def told_train(*arguments, **settings):
        (folder / "training").touch()
        return train(*arguments, **settings)

    joint_machines.train = told_train
    settings = {"full_epochs": full_epochs, "full_optimizer": "adam", "search_epochs": 1}
    config = SearchConfig(**{**toy.SHORT, **settings})
    data = toy.TRAIN, toy.VALIDATION
    if machines is not None and not machines.is_chief:
        joint_machines.assist(machines, toy.teacher(), *data, config)
        return
    result = search_students(toy.teacher(), *data, config=config, run_dir=folder / "run")
    weights = [weight for student in result.students for weight in student.model.get_weights()]
    np.savez(folder / "weights.npz", *weights)
    print("epochs", *(student.best_epoch for student in result.students))
    print("trials", len(result.trials))


if __name__ == "__main__":
    try:
        main(pathlib.Path(sys.argv[1]), int(sys.argv[2]))
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)
