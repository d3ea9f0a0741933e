"""What the command line's flags say together, checked before TensorFlow is imported."""

from __future__ import annotations

import math
import os
import pathlib
from typing import Any

from esnac_tf import datasets, teachers
from esnac_tf.command_flags import FLAGS
from esnac_tf.config import SearchConfig
from esnac_tf.distillation import losses
from esnac_tf.errors import UserError
from esnac_tf.trial_log import read_trials

# The --teacher_weights that Keras downloads.
IMAGENET = "imagenet"


def checked_config(writes: bool = True) -> SearchConfig:
    """The settings of the search among the flags; --dataset is filled in if it may be left out.

    Args:
        writes: Whether this is the machine that has the teacher and the run folder.

    Raises:
        UserError: Flags are missing, out of range, or don't go together.
    """
    if not FLAGS.teacher:
        raise UserError(
            "--teacher is missing.\nGive for instance --teacher=model.keras or --teacher=resnet18."
        )
    if not FLAGS.dataset:
        if is_path(FLAGS.teacher):
            raise UserError(
                "--dataset is missing.\nGive the data that the teacher was trained on, such as "
                "--dataset=data.npz or --dataset=cifar10."
            )
        FLAGS["dataset"].value = "digits"
    for name in ("input_scale", "teacher_learning_rate"):
        if not 0 < FLAGS[name].value < math.inf:
            raise UserError(f"--{name} must be above 0, received {FLAGS[name].value}.")
    if not 0 <= FLAGS.max_drop < math.inf:
        raise UserError(f"--max_drop must be 0 or more, received {FLAGS.max_drop}.")
    if FLAGS["max_drop"].present and not FLAGS.in_place:
        raise UserError(
            f"--max_drop={FLAGS.max_drop:g} is for --in_place, which is not given.\n"
            "Give --in_place, too, or leave --max_drop out."
        )
    config = _config()
    _check_teacher(is_path(FLAGS.teacher), writes)
    if (
        writes
        and config.num_steps == 0
        and not FLAGS.dry_run
        and not (FLAGS.run_dir and read_trials(FLAGS.run_dir))
    ):
        raise UserError(
            "--num_steps=0 searches no students, and there are none yet in the run folder.\n"
            "Raise --num_steps, or give the --run_dir of a search that has trials."
        )
    return config


def is_path(teacher: str) -> bool:
    """Whether a --teacher is a file, not a name."""
    if teacher in teachers.names():
        return False
    suffix = pathlib.Path(teacher).suffix
    return suffix in (".keras", ".h5", ".hdf5") or os.sep in teacher or os.path.exists(teacher)


def origin() -> dict[str, Any]:
    """Where teacher and data come from: part of what a resumed run must share.

    Of paths the file name: they can be spelled in many ways, and what the files hold is held
    against digests.
    """
    names = ["teacher", "teacher_weights", "dataset", "train_examples", "validation_examples",
             "input_scale"]  # fmt: skip
    if FLAGS.teacher_weights in (None, "", IMAGENET) and not is_path(FLAGS.teacher):
        names += ["teacher_epochs", "teacher_learning_rate"]
    values = {name: FLAGS[name].value for name in names}
    paths = {
        "teacher": is_path(FLAGS.teacher),
        "teacher_weights": FLAGS.teacher_weights not in (None, "", IMAGENET),
        "dataset": FLAGS.dataset not in datasets.names(),
    }
    return {name: _file_name(value) if paths.get(name) else value for name, value in values.items()}


def _file_name(path: str) -> str:
    return os.path.basename(os.path.abspath(os.path.expanduser(path)))


def _check_teacher(from_file: bool, must_exist: bool) -> None:
    """Holds the flags about the teacher against one another."""
    if not from_file:
        teachers.parse_name(FLAGS.teacher)
        if FLAGS.input_scale != 1:
            raise UserError(
                "--input_scale is for teachers from files; one given by name takes raw pixels.\n"
                "Leave --input_scale out."
            )
        if FLAGS.teacher_weights == IMAGENET and not teachers.is_application(FLAGS.teacher):
            raise UserError(
                "--teacher_weights=imagenet is for teachers of keras.applications.\n"
                "Give a file of weights, or leave --teacher_weights out."
            )
    elif FLAGS.teacher_weights:
        raise UserError(
            "--teacher_weights is for teachers given by name, and --teacher is a file.\n"
            "Leave --teacher_weights out."
        )
    elif must_exist and not os.path.exists(FLAGS.teacher):
        raise UserError(
            f"--teacher={FLAGS.teacher} does not exist.\nGive the path of a .keras or .h5 file, "
            f"one of {', '.join(teachers.names())}, or keras.applications.NAME."
        )
    if FLAGS.in_place and not from_file:
        raise UserError(
            "--in_place replaces a file, and --teacher is a name.\n"
            "Give --teacher=model.keras, or leave --in_place out."
        )


def _config() -> SearchConfig:
    """The settings of the search among the flags, for classifiers; errors name flags."""
    names = [name for name in SearchConfig.__dataclass_fields__ if name in FLAGS]
    try:
        losses.FAMILY.check(FLAGS["distillation_loss"].value)
        return SearchConfig(**{name: FLAGS[name].value for name in names})
    except UserError as error:
        text = str(error)
        if text.split(" ", 1)[0] in names:
            text = "--" + text
        raise UserError(text) from None
