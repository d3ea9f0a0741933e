"""What the command line understands: its flags, their help, and what is said to a wrong one."""

from __future__ import annotations

import difflib
import os
import pathlib
import re
import textwrap
from collections.abc import Sequence

from absl import flags

from esnac_tf import acquisitions, datasets, executors, exporters, objectives, strategies, teachers
from esnac_tf.config import FULL_OPTIMIZERS, SearchConfig
from esnac_tf.distillation import TEACHER_TARGETS, losses
from esnac_tf.errors import UserError

# Flags of this command alone: those of an importing program are left alone.
FLAGS = flags.FlagValues()
_DEFAULTS = SearchConfig()
_BUILT_IN = ("flagfile", "undefok")
_PATHS = ("teacher", "teacher_weights", "dataset", "data_dir", "run_dir", "cache_dir")


def _string(name: str, default: str | None, text: str) -> None:
    flags.DEFINE_string(name, default, text, flag_values=FLAGS)


def _integer(name: str, default: int | None, text: str, least: int = 0) -> None:
    flags.DEFINE_integer(name, default, text, lower_bound=least, flag_values=FLAGS)


def _number(name: str, default: float | None, text: str) -> None:
    flags.DEFINE_float(name, default, text, flag_values=FLAGS)


def _boolean(name: str, default: bool | None, text: str) -> None:
    flags.DEFINE_boolean(name, default, text, flag_values=FLAGS)


class _Numbers(flags.ListParser):
    """Numbers with commas between."""

    def parse(self, argument: str | list[float]) -> list[float]:
        return [float(part) for part in super().parse(argument)]

    def flag_type(self) -> str:
        return "numbers"


_string(
    "teacher",
    None,
    f"The model to compress: {', '.join(teachers.names())}, one of these with arguments, such as "
    "'resnet18(width=16)', a model of Keras such as keras.applications.MobileNetV2 or "
    "'keras.applications.MobileNetV2(alpha=0.35)', or the path of a .keras or .h5 file.",
)
_string(
    "teacher_weights",
    None,
    "Weights of a teacher given by name: a .weights.h5 or .keras file, or imagenet for those that "
    "Keras downloads for keras.applications, whose top is trained anew for other than their 1000 "
    "classes. Without weights it is trained first, once.",
)
flags.DEFINE_list(
    "custom_objects",
    [],
    "Python modules with commas between, imported before the teacher is loaded: they register its "
    "own layers, losses and functions (keras.saving.register_keras_serializable).",
    flag_values=FLAGS,
)
_boolean(
    "trust_teacher",
    False,
    "Load layers that run what the file brings, such as Lambda: for files of your own only.",
)
_boolean(
    "in_place",
    False,
    "Put the best student that is smaller and loses at most --max_drop into the place of "
    "--teacher=NAME.keras; the teacher is kept beside it as NAME.teacher.keras. If there is no "
    "such student the file stays as it is, and the exit code is 3.",
)
_number(
    "max_drop",
    1.0,
    "With --in_place, what a student may lose on the held-out data: points of accuracy in percent "
    "(1: from 95 % to 94 %); of another metric percent of the teacher's quality.",
)
_integer("teacher_epochs", 400, "Epochs of the training of a teacher given by name.", 1)
_number("teacher_learning_rate", 0.1, "Learning rate of that training (SGD).")
_string(
    "dataset",
    None,
    f"The data: {', '.join(datasets.names())}, an .npz file with x_train, y_train, x_test and "
    "y_test, or a folder of class folders of pictures. Default for a teacher given by name: "
    "digits, which needs no download.",
)
_string(
    "data_dir",
    None,
    "Folder with the files of a named data set, such as one with cifar-10-batches-bin in it. "
    "Without it they are downloaded.",
)
_integer("train_examples", None, "Examples to train on at most. Default: all.", 1)
_integer(
    "validation_examples",
    None,
    "Held-out examples, the last of the training set. Default: 5,000 of 50,000 and more, else "
    "10 %.",
    1,
)
_number(
    "input_scale",
    1.0,
    "Raw pixels are divided by this before they reach the teacher; 255 for a model that was "
    "trained on pixels from 0 to 1.",
)
_string(
    "run_dir",
    None,
    "The run folder; a search that was interrupted goes on in it. Default: a new folder in runs/.",
)
_string(
    "cache_dir",
    None,
    "Where trained teachers are kept. Default: $ESNAC_TF_CACHE or ~/.cache/esnac_tf.",
)
_integer("num_steps", _DEFAULTS.num_steps, "Search steps.")
_integer(
    "num_kernels", _DEFAULTS.num_kernels, "Kernels of the surrogate, and students of a step.", 1
)
_integer(
    "num_candidates", _DEFAULTS.num_candidates, "Random students that each kernel compares.", 1
)
_integer("kernel_steps", _DEFAULTS.kernel_steps, "Gradient steps of a kernel at most.", 1)
_integer(
    "kernel_warm_steps",
    _DEFAULTS.kernel_warm_steps,
    "Gradient steps at most of a kernel that goes on from the last search step; 0: every search "
    "step trains new kernels, as in the paper.",
)
_integer("search_epochs", _DEFAULTS.search_epochs, "Epochs of each student in the search.", 1)
_number("search_learning_rate", _DEFAULTS.search_learning_rate, "Learning rate there (Adam).")
_integer(
    "halving_factor",
    _DEFAULTS.halving_factor,
    "Successive halving: after a part of the epochs only one in so many students of a step, those "
    "with the best objectives so far, is trained on. With 2, 8 students and 10 epochs, 4 go on "
    "after the first epoch, 2 after the second and 1 after the fifth. 1: all are trained to the "
    "end, as in the paper. More than there are students or epochs has no effect.",
    1,
)
_integer("num_best", _DEFAULTS.num_best, "Best students that are trained fully.", 1)
_integer("full_epochs", _DEFAULTS.full_epochs, "Epochs of the full training; 0: none.")
_string(
    "full_optimizer",
    _DEFAULTS.full_optimizer,
    f"Optimizer there, one of {', '.join(FULL_OPTIMIZERS)}: sgd for classifiers, adam for any "
    "other model (auto).",
)
_number(
    "full_learning_rate",
    _DEFAULTS.full_learning_rate,
    "Learning rate there. Default: 0.01 for sgd, 0.001 for adam.",
)
_integer("batch_size", _DEFAULTS.batch_size, "Examples in a batch, over all devices.", 1)
_number("weight_decay", _DEFAULTS.weight_decay, "L2 penalty of all trainings.")
_string(
    "strategy",
    _DEFAULTS.strategy,
    f"Who proposes students: {', '.join(strategies.names())}.",
)
_string(
    "acquisition",
    _DEFAULTS.acquisition,
    f"How candidates are ranked: {', '.join(acquisitions.names())}.",
)
_string(
    "objective",
    _DEFAULTS.objective,
    f"What is maximised, one of {', '.join(objectives.names())}: C (2 - C) A / A(teacher) with C "
    "the share of parameters (params) or of multiply-adds (flops) that is saved.",
)
_string(
    "channel_groups",
    _DEFAULTS.channel_groups,
    "Which channels share a width: all of equal width but for those inside a residual block, "
    "which shrink as it does, as in the paper (width), or those that depend on one another "
    "(dependency).",
)
_number(
    "max_shrinkage",
    _DEFAULTS.max_shrinkage,
    "The largest ratio by which the width of a width group shrinks, above 0 and at most 1; "
    "rounding down can take a little more, also from what follows the group. The paper's is 0.9 "
    "for ShuffleNet.",
)
_integer(
    "max_params",
    _DEFAULTS.max_params,
    "The most parameters that a student may have. What is drawn beyond it is narrowed until it "
    "fits. Default: any number.",
    1,
)
flags.DEFINE(
    _Numbers(),
    "removal_probabilities",
    list(_DEFAULTS.removal_probabilities),
    "With what probabilities layers are removed from students that are drawn, with commas between: "
    "for each student one of these. The default is the paper's; lower ones give students that "
    "recover within fewer epochs.",
    flag_values=FLAGS,
    serializer=flags.CsvListSerializer(","),
)
_integer(
    "round_channels_to",
    _DEFAULTS.round_channels_to,
    "Each layer that makes as many channels as this keeps a multiple of it, or all that it has: 8 "
    "for devices that are fast with such widths. 1: any number. Widths that would leave any other "
    "number are not tried; what has no round width keeps its own.",
    1,
)
_string(
    "protect",
    _DEFAULTS.protect,
    "Regular expression: layers stay as they are if it finds their name, or that of a nested model "
    "that they are in, anywhere (re.search). They "
    "are not removed, no skip connection begins or ends at them, and all channels that they take "
    "and make stay, so those of layers that share these channels stay, too. Empty: none.",
)
_string(
    "channel_importance",
    _DEFAULTS.channel_importance,
    "Which channels are kept: those of large weights (l2, l1), of large scales of "
    "BatchNormalization (batch_norm; as l2 among channels that not all have such a scale), or the "
    "first, as in the paper (first).",
)
_string(
    "metric",
    _DEFAULTS.metric,
    "What students are judged by on held-out data: accuracy, loss, or the name of a Keras metric. "
    "auto: the accuracy of a classifier, the loss of any other model.",
)
_string(
    "metric_direction",
    _DEFAULTS.metric_direction,
    "Whether more of the metric is better (max), less (min), or as its name tells (auto).",
)
_string(
    "loss",
    _DEFAULTS.loss,
    "Keras loss with the labels, for a model that is no classifier; auto: the one that it is "
    "compiled with. A classifier's is the cross entropy.",
)
_string(
    "distillation_loss",
    _DEFAULTS.distillation_loss,
    f"Loss of the search: {', '.join(losses.names())}.",
)
_string(
    "teacher_targets",
    _DEFAULTS.teacher_targets,
    f"Where the teacher's outputs come from in the search, one of {', '.join(TEACHER_TARGETS)}: "
    "computed once for every epoch and kept in the run folder, as every search step has the same "
    "batches (kept), with every batch anew (computed), or kept where there are several steps and "
    "it takes no more than 1 GiB (auto).",
)
_string("full_loss", _DEFAULTS.full_loss, "Loss of the full training, one of the same.")
_string(
    "distribute",
    _DEFAULTS.distribute,
    "Devices: one (none), all with each batch divided among them (mirrored), all with each student "
    "of the search on one of them (grouped), or all GPUs (auto), in a long search in the way that "
    "is faster.",
)
_string(
    "executor",
    _DEFAULTS.executor,
    f"Where the students of the search are trained: {', '.join(executors.names())}. ray: in "
    "processes that Ray places on the devices of one machine or of a cluster (the extra ray).",
)
_string(
    "ray_address",
    _DEFAULTS.ray_address,
    "With --executor=ray, the address of a cluster to join, HOST:PORT, or auto for one that runs "
    "on this machine. Empty: that in RAY_ADDRESS, or else one is started here, and stopped in the "
    "end.",
)
_integer(
    "cpus_per_candidate",
    _DEFAULTS.cpus_per_candidate,
    "With --executor=ray, CPUs of a student. Default: as many as still let the most students be "
    "trained at once.",
    1,
)
_number(
    "gpus_per_candidate",
    _DEFAULTS.gpus_per_candidate,
    "With --executor=ray, GPUs of a student: a whole number, or less than 1 for students that "
    "share a GPU and are trained together on it. Default: 1 if there are GPUs, else 0.",
)
_boolean(
    "asynchronous",
    _DEFAULTS.asynchronous,
    "Propose the next student as soon as one is finished, not after all of a step are: for "
    "--executor=ray, where a slow student would hold up the others. What is proposed then depends "
    "on who is finished first.",
)
_boolean(
    "mixed_precision",
    _DEFAULTS.mixed_precision,
    "Compute in float16. Default: on GPUs, where a search of 20,000 steps of single students or "
    "more finds it faster before it begins; --nomixed_precision: no.",
)
_boolean(
    "jit_compile",
    _DEFAULTS.jit_compile,
    "Compile training steps with XLA. Default: where such a search finds it faster; "
    "--nojit_compile: no.",
)
flags.DEFINE_list(
    "export",
    list(_DEFAULTS.export),
    f"Formats of the best students, with commas between: {', '.join(exporters.names())}.",
    flag_values=FLAGS,
)
_string(
    "resume",
    _DEFAULTS.resume,
    "Whether a run that --run_dir holds goes on: if there is one (auto), never, or required.",
)
_integer("seed", _DEFAULTS.seed, "Seed of all that is random.")
_boolean("dry_run", False, "Print teacher, search space and estimated cost, and stop.")
_boolean("help", False, "Print this and stop.")


def parse(arguments: Sequence[str]) -> None:
    """Sets the flags from a command line; a "~" that begins a path becomes the home folder.

    Args:
        arguments: The program's name, then its flags.

    Raises:
        UserError: A flag is not known or has a wrong value, or there is more than flags.
    """
    FLAGS.unparse_flags()
    try:
        rest = FLAGS(list(arguments))
    except flags.CantOpenFlagFileError as error:
        raise UserError(_told_of_flagfile(error)) from None
    except flags.Error as error:
        raise UserError(_told(error)) from None
    except RecursionError:  # absl looks for a flag like it
        raise UserError("A flag's name is of thousands of characters.\nSee --help.") from None
    for name in FLAGS:
        if "\0" in str(FLAGS[name].value):
            raise UserError(f"--{name} holds a null character.\nLeave it out.")
    if len(rest) > 1 and not FLAGS["help"].value:
        raise UserError(
            f"Expected flags only, received {rest[1]!r}.\nWrite --name=value; see --help."
        )
    for name in _PATHS:
        if FLAGS[name].value:
            FLAGS[name].value = os.path.expanduser(FLAGS[name].value)


def help_text() -> str:
    """All flags with their defaults."""
    lines = [
        "Makes a trained Keras model small by searching for a smaller architecture.",
        "",
        "  python -m esnac_tf.search --teacher=resnet18 --dataset=cifar10",
        "  python -m esnac_tf.search --flagfile=flags/quickstart.flags",
        "",
        "Flags (a --flagfile holds flags, one a line):",
    ]
    for name in FLAGS:
        if name in _BUILT_IN:
            continue
        default = FLAGS[name].default
        shown = ",".join(map(str, default)) if isinstance(default, list) else default
        head = f"  --{name}" if shown is None else f"  --{name}={str(shown).lower()}"
        if shown is not None and not isinstance(default, bool):
            head = f"  --{name}={shown}"
        lines.append(head)
        lines.extend(textwrap.wrap(FLAGS[name].help, 88, initial_indent=" " * 6,
                                   subsequent_indent=" " * 6))  # fmt: skip
    return "\n".join(lines)


def _told_of_flagfile(error: flags.CantOpenFlagFileError) -> str:
    """Which file of flags can't be opened, and which recipes there are near it."""
    cause = error.__context__
    if not isinstance(cause, OSError) or cause.filename is None:
        return _told(error)
    path = pathlib.Path(cause.filename)
    for folder in (path.parent, pathlib.Path("flags")):
        recipes = sorted(map(str, folder.glob("*.flags")))
        if recipes:
            break
    nearest = difflib.get_close_matches(path.name, [os.path.basename(r) for r in recipes], n=1)
    hint = f" Did you mean {folder / nearest[0]}?" if nearest else ""
    there = f"There are {', '.join(recipes)}." if recipes else "Give a file with flags, one a line."
    return f"--flagfile={path} can't be opened: {cause.strerror}.{hint}\n{there}"


def _told(error: flags.Error) -> str:
    """What absl says of a wrong flag, in our words where it speaks of Python."""
    text = str(error).removeprefix("ERROR:: ").strip()
    found = re.match(r"flag --(\w+)=(.*?): ", text)
    if found is None or found[1] not in FLAGS:
        return text
    flag = FLAGS[found[1]]
    kinds = {"int": "a whole number", "float": "a number", "bool": "true or false",
             "numbers": "numbers with commas between"}  # fmt: skip
    expected = kinds.get(flag.flag_type(), "another value")
    least = getattr(flag.parser, "lower_bound", None)
    bound = "" if least is None else f" of at least {least}"
    return f"--{found[1]} must be {expected}{bound}, received {found[2]!r}."
