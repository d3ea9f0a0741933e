"""A student in the place of its teacher's file: which one qualifies, and how the file changes.

The teacher is kept beside it, and only then does the student replace it in one step. So a process
that is killed leaves a whole file under each name at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import pathlib
import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from esnac_tf.errors import UserError
from esnac_tf.files import replacing
from esnac_tf.run_files import read_object, write_object

if TYPE_CHECKING:
    import keras

    from esnac_tf.distillation.task import SearchMetric
    from esnac_tf.result import Student


def teacher_path(path: str | os.PathLike[str]) -> pathlib.Path:
    """Where the teacher of a file is kept.

    Example:
        >>> teacher_path("models/digits.keras").as_posix()
        'models/digits.teacher.keras'
    """
    path = pathlib.Path(path)
    return path.with_name(f"{path.stem}.teacher{path.suffix}")


def check_replaceable(path: str | os.PathLike[str]) -> None:
    """Raises before a search what would hinder its end.

    Raises:
        UserError: The file is no `.keras` file or a link, its folder can't be written, or there
            is another teacher beside it already.
    """
    path, kept = pathlib.Path(path), teacher_path(path)
    if path.suffix != ".keras":
        raise UserError(
            f"--in_place replaces .keras files, received --teacher={path}.\n"
            "Load it with Keras and save it as a .keras file, or leave --in_place out and take "
            "the student from the run folder."
        )
    if path.is_symlink():
        raise UserError(
            f"--in_place replaces no links, and {path} is one.\nGive --teacher={path.resolve()}."
        )
    if not os.access(path.absolute().parent, os.W_OK | os.X_OK):
        raise UserError(
            f"--in_place can't write in the folder of {path}.\n"
            "Check its permissions, or copy the model into a folder of your own."
        )
    if os.path.lexists(kept) and not _same_contents(path, kept):
        raise UserError(
            f"{kept} is there already, and --in_place never overwrites it.\n"
            f"If {path} is its student, all is done. Move {kept} away to compress {path} (again), "
            f"or to {path} to have that teacher back."
        )


def check_compiled(teacher: keras.Model) -> None:
    """Raises before a search that no student could be compiled as its teacher is.

    Raises:
        UserError: So it is.
    """
    import keras

    from esnac_tf.compilation import compile_like

    compile_like(
        keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)], name="student"), teacher
    )


def quality_drop(student: float, teacher: float, metric: SearchMetric) -> float:
    """How much worse a student is, in percent; below 0 if it is better.

    Of the accuracy it is the difference, in points. Of any other metric it is the part of the
    teacher's quality that is lost: value / teacher's value is kept where more is better, else
    teacher's value / value.

    Example:
        >>> from esnac_tf.distillation.task import ACCURACY, SearchMetric
        >>> quality_drop(0.95, 0.97, ACCURACY)
        2.0
        >>> quality_drop(0.5, 0.4, SearchMetric("loss", "min"))
        20.0
    """
    if metric.name == "accuracy":
        lost = teacher - student
    else:
        lost = 1 - metric.quality(student) / metric.quality(teacher)
    return round(100 * lost, 6)  # 0.97 - 0.95 is a little more than 0.02


def choose(
    students: Sequence[Student],
    teacher_params: int,
    teacher_metric: float,
    metric: SearchMetric,
    max_drop: float,
) -> Student | None:
    """The student of the best objective among those that may take the teacher's place.

    Args:
        students: The best students of a search.
        teacher_params: Parameters of the teacher.
        teacher_metric: The teacher's metric on held-out data.
        metric: The metric.
        max_drop: The largest drop that is borne, as `quality_drop` has it.

    Returns:
        The student; None if none has fewer parameters and drops so little.
    """
    fit = [
        student
        for student in _smaller(students, teacher_params)
        if quality_drop(student.validation_metric, teacher_metric, metric) <= max_drop
    ]
    return max(fit, key=lambda student: student.objective, default=None)


def told_why_none(
    path: str | os.PathLike[str],
    students: Sequence[Student],
    teacher_params: int,
    teacher_metric: float,
    metric: SearchMetric,
    max_drop: float,
) -> str:
    """What to say where `choose` gives None: by how much the best missed, and what helps."""
    head = f"{os.fspath(path)} stays as it is: "
    smaller = _smaller(students, teacher_params)
    drops = [quality_drop(s.validation_metric, teacher_metric, metric) for s in smaller]
    drops = [drop for drop in drops if not math.isnan(drop)]
    if not drops:
        return f"{head}no student is smaller than the teacher.\nSearch longer (--num_steps)."
    unit = "points of accuracy" if metric.name == "accuracy" else f"% of the {metric.name}"
    least = min(drops)
    return (
        f"{head}the student that loses least loses {least:.2f} {unit}, "
        f"{least - max_drop:.2f} more than --max_drop={max_drop:g}.\n"
        "Train longer (--search_epochs, --full_epochs), search longer (--num_steps), or raise "
        "--max_drop."
    )


def replace(path: str | os.PathLike[str], student: keras.Model, teacher: keras.Model) -> None:
    """Puts a student into the place of its teacher's file, and keeps the teacher beside it.

    The file gets the teacher's name for the model, and the student compiled as the teacher is,
    without any state of the optimizer. It is read again before it takes the place.

    Args:
        path: The teacher's file.
        student: The student.
        teacher: The teacher as the file gives it.

    Raises:
        UserError: There is another teacher beside the file, a file can't be written, or the
            student does not have the teacher's inputs and outputs. The file is as it was then.
    """
    import keras

    from esnac_tf.compilation import compile_like

    check_replaceable(path)
    path, kept = pathlib.Path(path), teacher_path(path)
    with replacing(path) as written:
        # Through a file: what was trained on several devices becomes a model of one.
        plain = written.with_name("student.keras")
        keras.Model(student.input, student.output, name=teacher.name).save(plain)
        model = _loaded(plain)
        compile_like(model, teacher)
        model.save(written)
        if _signature(_loaded(written)) != _signature(teacher):
            raise UserError(
                f"The student has not the inputs and outputs of {path}, which stays as it is.\n"
                "Take the student from the run folder, and please report this."
            )
        shutil.copymode(path, written)
        if not os.path.lexists(kept):
            with replacing(kept) as copy:
                shutil.copy2(path, copy)


def note_done(run_dir: str | os.PathLike[str], path: str | os.PathLike[str], drop: float) -> None:
    """Remembers in a run folder that its search put a student in place; see `is_done`.

    Args:
        run_dir: The run folder.
        path: The file that is a student now.
        drop: The largest drop that was borne.
    """
    with contextlib.suppress(UserError, OSError):  # the student is in place even so
        values = {"sha256": _digest(pathlib.Path(path)), "max_drop": drop}
        write_object(pathlib.Path(run_dir) / "in_place.json", values)


def is_done(run_dir: str | os.PathLike[str], path: str | os.PathLike[str], drop: float) -> bool:
    """Whether a file is still the student that `note_done` remembers, and its teacher beside it.

    Args:
        run_dir: The run folder.
        path: The file.
        drop: The largest drop that is borne: with another one another student might be chosen.

    Raises:
        UserError: The note can't be read.
    """
    note, path = read_object(pathlib.Path(run_dir) / "in_place.json"), pathlib.Path(path)
    if note is None or note.get("max_drop") != drop or not teacher_path(path).is_file():
        return False
    return path.is_file() and note.get("sha256") == _digest(path)


def _digest(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _smaller(students: Sequence[Student], teacher_params: int) -> list[Student]:
    return [student for student in students if student.num_params < teacher_params]


def _loaded(path: pathlib.Path) -> keras.Model:
    """A model of a file that was written here, so it is trusted."""
    import keras

    return keras.saving.load_model(path, compile=False, safe_mode=False)


def _signature(model: keras.Model) -> Any:
    """Names, shapes, dtypes and structure of a model's inputs and outputs."""
    import keras

    from esnac_tf.graph.parsing import functional_model

    model = functional_model(model)

    def described(tensor: Any) -> str:
        return f"{tuple(tensor.shape)} {tensor.dtype}"

    return (
        [tensor.name for tensor in model.inputs],
        list(model.output_names),
        keras.tree.map_structure(described, model.input),
        keras.tree.map_structure(described, model.output),
    )


def _same_contents(first: pathlib.Path, second: pathlib.Path) -> bool:
    """Whether two files hold the same: a process was killed before it replaced the first."""
    if not (first.is_file() and second.is_file()):
        return False
    return first.read_bytes() == second.read_bytes()
