"""The command line: flags -> one frozen config -> `search_students`. Nothing else reads flags.

python -m esnac_tf.search --teacher=resnet18 --dataset=cifar10
"""

from __future__ import annotations

import contextlib
import datetime
import math
import os
import pathlib
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

from esnac_tf import acquisitions, datasets, exporters, objectives, strategies, teachers
from esnac_tf.config import SearchConfig
from esnac_tf.display import Display
from esnac_tf.distillation import TrainingConfig, losses
from esnac_tf.errors import UserError
from esnac_tf.record import RunFolder

if TYPE_CHECKING:
    import keras

    from esnac_tf.datasets import Splits

# Flags of this command alone: those of an importing program are left alone.
FLAGS = flags.FlagValues()
_DEFAULTS = SearchConfig()
_BUILT_IN = ("flagfile", "undefok")


def _string(name: str, default: str | None, text: str) -> None:
    flags.DEFINE_string(name, default, text, flag_values=FLAGS)


def _integer(name: str, default: int | None, text: str, least: int = 0) -> None:
    flags.DEFINE_integer(name, default, text, lower_bound=least, flag_values=FLAGS)


def _number(name: str, default: float, text: str) -> None:
    flags.DEFINE_float(name, default, text, flag_values=FLAGS)


def _boolean(name: str, default: bool, text: str) -> None:
    flags.DEFINE_boolean(name, default, text, flag_values=FLAGS)


_string(
    "teacher",
    None,
    f"The model to compress: {', '.join(teachers.names())}, one of these with arguments, such as "
    "'resnet18(width=16)', or the path of a .keras or .h5 file.",
)
_string(
    "teacher_weights",
    None,
    "Weights of a teacher given by name: a .weights.h5 or .keras file. Without them it is trained "
    "first, once.",
)
_integer("teacher_epochs", 400, "Epochs of the training of a teacher given by name.", 1)
_number("teacher_learning_rate", 0.1, "Learning rate of that training (SGD).")
_string(
    "dataset",
    None,
    f"The data: {', '.join(datasets.names())}, an .npz file with x_train, y_train, x_test and "
    "y_test, or a folder of class folders of pictures.",
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
_integer("search_epochs", _DEFAULTS.search_epochs, "Epochs of each student in the search.", 1)
_number("search_learning_rate", _DEFAULTS.search_learning_rate, "Learning rate there (Adam).")
_integer("num_best", _DEFAULTS.num_best, "Best students that are trained fully.", 1)
_integer("full_epochs", _DEFAULTS.full_epochs, "Epochs of the full training; 0: none.")
_number("full_learning_rate", _DEFAULTS.full_learning_rate, "Learning rate there (SGD).")
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
    "Which channels share a width: all of equal width, as in the paper (width), or those that "
    "depend on one another (dependency).",
)
_string(
    "channel_importance",
    _DEFAULTS.channel_importance,
    "Which channels are kept: those of large weights (l2, l1), or the first, as in the paper "
    "(first).",
)
_string(
    "distillation_loss",
    _DEFAULTS.distillation_loss,
    f"Loss of the search: {', '.join(losses.names())}.",
)
_string("full_loss", _DEFAULTS.full_loss, "Loss of the full training, one of the same.")
_string(
    "distribute",
    _DEFAULTS.distribute,
    "Devices: all GPUs (auto), one device (none), or MirroredStrategy (mirrored).",
)
_boolean("mixed_precision", _DEFAULTS.mixed_precision, "Compute in float16, for GPUs.")
_boolean("jit_compile", _DEFAULTS.jit_compile, "Compile training steps with XLA.")
flags.DEFINE_list(
    "export",
    list(_DEFAULTS.export),
    f"Formats of the best students, with commas between: {', '.join(exporters.names())}.",
    flag_values=FLAGS,
)
_integer("seed", _DEFAULTS.seed, "Seed of all that is random.")
_boolean("dry_run", False, "Print teacher, search space and estimated cost, and stop.")
_boolean("help", False, "Print this and stop.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: The command line, the program's name first; the process's own by default.

    Returns:
        The exit code: 0, 2 after an error of the user, 130 after an interruption, 141 if nobody
        reads the output any more.
    """
    FLAGS.unparse_flags()
    try:
        rest = FLAGS(list(sys.argv if arguments is None else arguments))
        if FLAGS["help"].value:
            print(_help())
            return 0
        if len(rest) > 1:
            raise UserError(
                f"Expected flags only, received {rest[1]!r}.\nWrite --name=value; see --help."
            )
        _run()
    except (UserError, flags.Error) as error:
        text = _told(error) if isinstance(error, flags.Error) else str(error)
        print(f"Error: {text}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        run_dir = FLAGS["run_dir"].value
        advice = f" The same command with --run_dir={run_dir} goes on." if run_dir else ""
        print(f"Interrupted.{advice}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Python would complain again when it flushes the output at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return 0


def _told(error: flags.Error) -> str:
    """What absl says of a wrong flag, in our words where it speaks of Python."""
    text = str(error).removeprefix("ERROR:: ").strip()
    found = re.match(r"flag --(\w+)=(.*?): ", text)
    if found is None or found[1] not in FLAGS:
        return text
    flag = FLAGS[found[1]]
    kinds = {"int": "a whole number", "float": "a number", "bool": "true or false"}
    expected = kinds.get(flag.flag_type(), "another value")
    least = getattr(flag.parser, "lower_bound", None)
    bound = "" if least is None else f" of at least {least}"
    return f"--{found[1]} must be {expected}{bound}, received {found[2]!r}."


def _run() -> None:
    for name, example in (("teacher", "resnet18"), ("dataset", "cifar10")):
        if not FLAGS[name].value:
            raise UserError(f"--{name} is missing.\nGive for instance --{name}={example}.")
    for name in ("input_scale", "teacher_learning_rate"):
        if not 0 < FLAGS[name].value < math.inf:
            raise UserError(f"--{name} must be above 0, received {FLAGS[name].value}.")
    config = _config()
    from_file = _is_path(FLAGS.teacher)
    if not from_file:
        teachers.parse_name(FLAGS.teacher)
        if FLAGS.input_scale != 1:
            raise UserError(
                "--input_scale is for teachers from files; one given by name takes raw pixels.\n"
                "Leave --input_scale out."
            )
    elif FLAGS.teacher_weights:
        raise UserError(
            "--teacher_weights is for teachers given by name, and --teacher is a file.\n"
            "Leave --teacher_weights out."
        )
    elif not os.path.exists(FLAGS.teacher):
        raise UserError(
            f"--teacher={FLAGS.teacher} does not exist.\nGive the path of a .keras or .h5 file, "
            f"or one of {', '.join(teachers.names())}."
        )
    display = Display()
    if FLAGS.run_dir and os.path.exists(FLAGS.run_dir) and not FLAGS.dry_run:
        with RunFolder(FLAGS.run_dir) as run:  # told before a teacher is trained for hours
            run.check_or_write_config({**config.fixed(), **_origin()})
            summary = run.summary()
        if summary is not None and summary.get("settings") == config.free():
            display.message(f"The search in {FLAGS.run_dir} is finished.")
            display.summary_table(summary, FLAGS.run_dir)
            return
    if "tensorflow" not in sys.modules:
        with _silence():
            _start_tensorflow()
    model = _load(FLAGS.teacher) if from_file else None
    splits = datasets.load(
        FLAGS.dataset,
        data_dir=FLAGS.data_dir or None,
        train_examples=FLAGS.train_examples,
        validation_examples=FLAGS.validation_examples,
        seed=config.seed,
    )
    display.message(
        f"Data set {splits.name}: {len(splits.x_train):,} examples to train on, "
        f"{len(splits.x_validation):,} held out, {len(splits.x_test):,} to test, "
        f"{splits.num_classes} classes."
    )
    if model is not None:
        _check_classes(model, splits)
    _search(config, model, splits, display)


def _load(path: str) -> keras.Model:
    from esnac_tf.teachers.loading import load

    return load(path)


def _check_classes(model: keras.Model, splits: Splits) -> None:
    from esnac_tf.graph.checks import check_classifier

    num_classes = check_classifier(model)
    if num_classes != splits.num_classes:
        raise UserError(
            f"The teacher {FLAGS.teacher} has {num_classes} classes, the data set {splits.name} "
            f"has {splits.num_classes}.\nGive the data set that the teacher was trained on."
        )


def _search(
    config: SearchConfig, model: keras.Model | None, splits: Splits, display: Display
) -> None:
    """Searches, or describes the search.

    Args:
        config: The settings.
        model: The teacher if it came from a file.
        splits: The data.
        display: Where to tell about it.
    """
    from esnac_tf.compression import search_students
    from esnac_tf.datasets.pipelines import TrainingBatches, evaluation_batches

    scale = FLAGS.input_scale

    def scaled(x: Any) -> Any:
        return x if scale == 1 else (x / scale).astype("float32")

    batches = TrainingBatches(
        scaled(splits.x_train),
        splits.y_train,
        config.batch_size,
        augmentation=splits.augmentation,
        fill=[mean / scale for mean in splits.normalization.mean],
        seed=config.seed,
    )
    if FLAGS.dry_run:
        from esnac_tf.estimate import describe_search

        epochs = 0 if model is not None or FLAGS.teacher_weights else FLAGS.teacher_epochs
        model = model or _untrained_teacher(splits)
        for line in describe_search(model, config, batches, epochs):
            display.message(line)
        return
    run_dir = FLAGS["run_dir"].value = FLAGS.run_dir or _new_run_dir()
    display.message(f"The run folder is {run_dir}.")
    result = search_students(
        model or _named_teacher(config, splits, display),
        batches,
        evaluation_batches(scaled(splits.x_validation), splits.y_validation, config.batch_size),
        test=evaluation_batches(scaled(splits.x_test), splits.y_test, config.batch_size),
        run_dir=run_dir,
        config=config,
        run_config=_origin(),
        display=display,
    )
    display.summary_table(result.summary, run_dir)
    display.message(f"All of it is in {run_dir}.")


def _config() -> SearchConfig:
    """The settings of the search among the flags; errors name flags."""
    names = [name for name in SearchConfig.__dataclass_fields__ if name in FLAGS]
    try:
        return SearchConfig(**{name: FLAGS[name].value for name in names})
    except UserError as error:
        text = str(error)
        if text.split(" ", 1)[0] in names:
            text = "--" + text
        raise UserError(text) from None


def _origin() -> dict[str, Any]:
    """Where teacher and data come from: part of what a resumed run must share."""
    names = ("teacher", "teacher_weights", "teacher_epochs", "teacher_learning_rate", "dataset",
             "train_examples", "validation_examples", "input_scale")  # fmt: skip
    return {name: FLAGS[name].value for name in names}


def _is_path(teacher: str) -> bool:
    if teacher in teachers.names():
        return False
    suffix = pathlib.Path(teacher).suffix
    return suffix in (".keras", ".h5", ".hdf5") or os.sep in teacher or os.path.exists(teacher)


def _named_teacher(config: SearchConfig, splits: Splits, display: Display) -> keras.Model:
    """The teacher built by name: with the weights given, or trained."""
    from esnac_tf.teacher_training import default_cache_dir, trained_teacher
    from esnac_tf.teachers.loading import load_weights

    if FLAGS.teacher_weights:
        model = _untrained_teacher(splits)
        load_weights(model, FLAGS.teacher_weights)
        return model
    epochs = FLAGS.teacher_epochs
    return trained_teacher(
        FLAGS.teacher,
        splits,
        TrainingConfig.teacher(
            epochs=epochs,
            learning_rate=FLAGS.teacher_learning_rate,
            learning_rate_drop_epochs=-(-epochs // 4),
            weight_decay=config.weight_decay,
            mixed_precision=config.mixed_precision,
            jit_compile=config.jit_compile,
        ),
        batch_size=config.batch_size,
        distribute=config.distribute,
        seed=config.seed,
        cache_dir=FLAGS.cache_dir or default_cache_dir(),
        display=display,
    )


def _untrained_teacher(splits: Splits) -> keras.Model:
    """The teacher built by name, with fresh weights."""
    return teachers.build(
        FLAGS.teacher, splits.x_train.shape[1:], splits.num_classes, splits.normalization
    )


def _new_run_dir() -> str:
    teacher = pathlib.Path(FLAGS.teacher).stem if _is_path(FLAGS.teacher) else FLAGS.teacher
    words = [teacher, pathlib.Path(FLAGS.dataset).stem]
    name = "_".join("".join(c if c.isalnum() else "_" for c in word).strip("_") for word in words)
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return str(pathlib.Path("runs") / f"{name}_{now}")


def _start_tensorflow() -> None:
    """Imports TensorFlow and looks for its devices: what it says at its start, it says here."""
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")
    tf.config.list_physical_devices()


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Hides what native code writes to the error output, where Python has no say."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _help() -> str:
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
        shown = ",".join(default) if isinstance(default, list) else default
        head = f"  --{name}" if shown is None else f"  --{name}={str(shown).lower()}"
        if shown is not None and not isinstance(default, bool):
            head = f"  --{name}={shown}"
        lines.append(head)
        lines.extend(textwrap.wrap(FLAGS[name].help, 88, initial_indent=" " * 6,
                                   subsequent_indent=" " * 6))  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
