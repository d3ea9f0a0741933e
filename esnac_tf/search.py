"""The command line: flags -> one frozen config -> `search_students`. Nothing else reads flags.

python -m esnac_tf.search --teacher=resnet18 --dataset=cifar10
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import pathlib
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from esnac_tf import datasets, executors, in_place, teachers, tf_config
from esnac_tf.command_flags import FLAGS, help_text, parse
from esnac_tf.command_teacher import (
    assist_chief,
    check_classes,
    join_machines,
    teacher_in_file,
    trained_teacher_by_name,
    untrained_teacher,
)
from esnac_tf.display import Display
from esnac_tf.distillation.interruption import Terminated, raise_terminated
from esnac_tf.errors import UserError
from esnac_tf.flag_checks import IMAGENET, checked_config, is_path, origin
from esnac_tf.profiling import measured, profiled
from esnac_tf.quiet_start import start_tensorflow
from esnac_tf.record import RunFolder
from esnac_tf.resuming import check_resume, check_run, check_teacher, finished_summary
from esnac_tf.teachers.custom_objects import import_modules

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from esnac_tf.config import SearchConfig
    from esnac_tf.datasets import Splits
    from esnac_tf.datasets.pipelines import TrainingBatches
    from esnac_tf.distillation.machines import Machines
    from esnac_tf.result import SearchResult

# The exit code of --in_place where no student may take the teacher's place.
_NOTHING_REPLACED = 3
# So many classes are named of those that are missing.
_TOLD_CLASSES = 5
# The classes that the weights of Keras's own networks tell apart.
_IMAGENET_CLASSES = 1000


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: The command line, the program's name first; the process's own by default.

    Returns:
        The exit code: 0, 2 after an error of the user, 3 if --in_place finds no student that may
        take the teacher's place, 130 after an interruption, 141 if nobody reads the output any
        more, 143 after SIGTERM.
    """
    try:
        parse(sys.argv if arguments is None else arguments)
        if FLAGS["help"].value:
            print(help_text())
            return 0
        with profiled(), warnings.catch_warnings():
            warnings.showwarning = _tell
            return _run()
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        run_dir = FLAGS["run_dir"].value
        advice = f" The same command with --run_dir={run_dir} goes on." if run_dir else ""
        print(f"Interrupted.{advice}", file=sys.stderr)
        return 143 if isinstance(error, Terminated) else 130
    except BrokenPipeError:
        # Python would complain again when it flushes the output at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _tell(message: Warning | str, *_: Any, **__: Any) -> None:
    """Prints a warning as a sentence, without the code that gave it."""
    print(f"Warning: {message}", file=sys.stderr)


def _run() -> int:
    here = None if FLAGS.dry_run else tf_config.role()
    writes = here is None or here.is_chief
    if writes and threading.current_thread() is threading.main_thread():
        # The others wait for the chief where Python handles no signals.
        signal.signal(signal.SIGTERM, raise_terminated)
    config, from_file = checked_config(writes), is_path(FLAGS.teacher)
    display = Display()
    resumes = False
    if here is not None and FLAGS.in_place:
        raise UserError(
            f"--in_place is for one machine, and TF_CONFIG names {here.num_machines}.\n"
            "Leave --in_place out, or unset TF_CONFIG."
        )
    if writes:
        check_resume(FLAGS.run_dir or None, config.resume)
    if FLAGS.run_dir and writes:  # told before anything is loaded, or a teacher trained for hours
        resumes = check_run(FLAGS.run_dir, {**config.fixed(), **origin()})
    if FLAGS.in_place:
        if resumes and _told_already_in_place(config, display):
            return 0
        in_place.check_replaceable(FLAGS.teacher)
    with measured("import"):
        start_tensorflow()
        if writes:
            executors.check(config.executor, config.placement())
        machines = None
        if here is not None:
            config = dataclasses.replace(config, distribute="none")  # as `search_students` does
            machines = join_machines(config, here, display)
        import_modules(FLAGS.custom_objects)
    if not from_file:
        teachers.check(FLAGS.teacher)
    with measured("teacher"):
        model = teacher_in_file(FLAGS.teacher) if from_file and writes else None
    with measured("data"):
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
    _warn_of_classes_not_held_out(splits, display)
    if model is not None:
        check_classes(model, splits)
    return _search(config, model, splits, display, resumes, machines)


def _warn_of_classes_not_held_out(splits: Splits, display: Display) -> None:
    missing = splits.classes_not_held_out()
    if missing:
        names = missing[:_TOLD_CLASSES] + ["..."] * (len(missing) > _TOLD_CLASSES)
        display.warning(
            f"{len(missing)} of {splits.num_classes} classes ({', '.join(names)}) are missing "
            "among the held-out examples, the last of the training set. Shuffle the examples in "
            "the file, or hold out more (--validation_examples)."
        )


def _search(
    config: SearchConfig,
    model: keras.Model | None,
    splits: Splits,
    display: Display,
    resumes: bool,
    machines: Machines | None,
) -> int:
    """Searches, or describes the search, or shows what a finished one found.

    Args:
        config: The settings.
        model: The teacher if it came from a file.
        splits: The data.
        display: Where to tell about it.
        resumes: Whether the run folder holds a search with these settings.
        machines: Those that train together, if there are several.

    Returns:
        The exit code.
    """
    with measured("import"):
        from esnac_tf.compression import search_students
        from esnac_tf.datasets.pipelines import evaluation_batches
        from esnac_tf.datasets.stored import scaled, training_batches
        from esnac_tf.distillation.machines import END, Order
        from esnac_tf.teachers.loading import load_weights

    size, scale = config.batch_size, FLAGS.input_scale
    with measured("data"):
        batches = training_batches(splits, size, config.seed, scale)
        validation = evaluation_batches(
            scaled(splits.x_validation, scale), splits.y_validation, size
        )
    if machines is not None and not machines.is_chief:
        return assist_chief(config, splits, batches, validation, display, machines)
    if FLAGS.teacher_weights == IMAGENET:
        if splits.num_classes == _IMAGENET_CLASSES and not FLAGS.dry_run:
            model = untrained_teacher(splits, IMAGENET)  # which needs no training
    elif model is None and FLAGS.teacher_weights:
        model = untrained_teacher(splits)
        load_weights(model, FLAGS.teacher_weights)
    if resumes:
        _check_teacher_and_data(config, model, batches, validation)
    if FLAGS.dry_run:
        from esnac_tf.estimate import describe_search

        epochs = FLAGS.teacher_epochs if model is None else 0
        model = model or untrained_teacher(splits)
        _try_metric(config, model, batches)
        for line in describe_search(model, config, batches, epochs):
            display.message(line)
        return 0
    finished = resumes and not FLAGS.in_place  # which needs students, not only figures
    summary = finished_summary(FLAGS.run_dir, config.free()) if finished else None
    if summary is not None:
        display.message(f"The search in {FLAGS.run_dir} is finished.")
        display.summary_table(summary, FLAGS.run_dir)
        if machines is not None:
            machines.tell(Order(END))
        return 0
    _check_before_training(config, model, splits, batches)
    run_dir = FLAGS["run_dir"].value = FLAGS.run_dir or _new_run_dir()
    display.message(f"The run folder is {run_dir}.")
    with _removed_after_a_mistake(run_dir):
        if model is None:
            # Nobody else may take the folder while a teacher is trained.
            with RunFolder(run_dir), measured("teacher", whole=True):
                model = trained_teacher_by_name(config, splits, display, machines)
        result = search_students(
            model,
            batches,
            validation,
            test=evaluation_batches(scaled(splits.x_test, scale), splits.y_test, size),
            run_dir=run_dir,
            config=config,
            run_config=origin(),
            display=display,
        )
    display.summary_table(result.summary, run_dir)
    display.message(f"All of it is in {run_dir}.")
    return _put_in_place(config, model, result, display) if FLAGS.in_place else 0


def _check_before_training(
    config: SearchConfig, model: keras.Model | None, splits: Splits, batches: TrainingBatches
) -> None:
    """Holds --max_params and --metric against a teacher before it is trained or a folder made.

    A named teacher is built for that only if there is something to check; --max_params of a
    teacher from a file is checked by the search, which trains nothing before.
    """
    from esnac_tf.graph.teacher import analyse
    from esnac_tf.search_setup import search_space

    if model is None:
        if config.max_params is None and (config.metric, config.loss) == ("auto", "auto"):
            return
        model = untrained_teacher(splits)
        if config.max_params is not None:
            search_space(analyse(model, config.channel_groups, config.protect), model, config)
    _try_metric(config, model, batches)


def _try_metric(config: SearchConfig, model: keras.Model, batches: TrainingBatches) -> None:
    """Tries --metric and --loss on a batch.

    The accuracy of a classifier, the default, fits any.
    """
    from esnac_tf.distillation import evaluate
    from esnac_tf.distillation.task import ACCURACY
    from esnac_tf.graph.checks import check_examples
    from esnac_tf.purpose import check_labels, find_purpose, with_outputs

    purpose = find_purpose(model, config)
    if purpose.task.metric == ACCURACY:
        return
    examples = batches.epoch(0).take(1)
    check_examples(model, examples, "training")
    [(x, y)] = examples
    outputs = model(x, training=False)
    purpose = with_outputs(purpose, outputs)
    check_labels(purpose, outputs, y)
    evaluate([model], examples, task=purpose.task)


def _told_already_in_place(config: SearchConfig, display: Display) -> bool:
    """Whether this very command has put a student in place before; then it is shown again."""
    summary = finished_summary(FLAGS.run_dir, config.free(), exported=False)
    if summary is None or not in_place.is_done(FLAGS.run_dir, FLAGS.teacher, FLAGS.max_drop):
        return False
    display.summary_table(summary, FLAGS.run_dir)
    display.message(
        f"{FLAGS.teacher} is already a student that this search found; the teacher is in "
        f"{in_place.teacher_path(FLAGS.teacher)}."
    )
    return True


def _put_in_place(
    config: SearchConfig, model: keras.Model, result: SearchResult, display: Display
) -> int:
    """Replaces the teacher's file by the best student that may; returns the exit code."""
    from esnac_tf.purpose import find_purpose

    metric = find_purpose(model, config).task.metric
    teacher = result.summary["teacher"]
    value, num_params = teacher[f"validation_{metric.name}"], teacher["num_params"]
    measured = result.students, num_params, value, metric, FLAGS.max_drop
    student = in_place.choose(*measured)
    if student is None:
        print(in_place.told_why_none(FLAGS.teacher, *measured), file=sys.stderr)
        return _NOTHING_REPLACED
    in_place.replace(FLAGS.teacher, student.model, model)
    in_place.note_done(FLAGS.run_dir, FLAGS.teacher, FLAGS.max_drop)
    display.message(
        f"{FLAGS.teacher} is now the student of trial {student.trial.number}, "
        f"{student.times_smaller:.2f} times smaller; the teacher is in "
        f"{in_place.teacher_path(FLAGS.teacher)}."
    )
    return 0


def _check_teacher_and_data(
    config: SearchConfig,
    model: keras.Model | None,
    batches: TrainingBatches,
    validation: tf.data.Dataset,
) -> None:
    """Holds teacher and data against those of the search to resume.

    A named teacher that is trained here comes about by settings, which are held against those of
    the search already, and by the data; it is not trained to be compared.

    Args:
        config: The settings.
        model: The teacher; None if it is trained here.
        batches: The training data.
        validation: The held-out data.
    """
    from esnac_tf.datasets.digests import data_digest, digest_of
    from esnac_tf.graph.teacher import analyse
    from esnac_tf.student import StudentBuilder

    digests = {"data_sha256": data_digest(batches, validation)}
    if model is not None:
        # As the search digests it: its weights in the order in which students have them.
        graph = analyse(model, config.channel_groups)
        teacher = StudentBuilder(model, graph, config.channel_importance).teacher()
        digests["weights_sha256"] = digest_of(teacher.get_weights())
    check_teacher(FLAGS.run_dir, digests)


@contextlib.contextmanager
def _removed_after_a_mistake(run_dir: str) -> Iterator[None]:
    """Removes a run folder that was not there before, if an error leaves it without trials."""
    path = pathlib.Path(run_dir)
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        yield
    except UserError:
        written = {"lock", "config.json", "teacher.json"}
        if made and path.is_dir() and written.issuperset(os.listdir(path)):
            with contextlib.suppress(OSError):
                for name in os.listdir(path):
                    (path / name).unlink()
                for folder in made:  # a parent that holds something else by now stays
                    folder.rmdir()
        raise


def _new_run_dir() -> str:
    teacher = pathlib.Path(FLAGS.teacher).stem if is_path(FLAGS.teacher) else FLAGS.teacher
    words = [teacher, pathlib.Path(FLAGS.dataset).stem]
    name = "_".join("".join(c if c.isalnum() else "_" for c in word).strip("_") for word in words)
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return str(pathlib.Path("runs") / f"{name}_{now}")


if __name__ == "__main__":
    sys.exit(main())
