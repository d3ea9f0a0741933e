"""Compiles a student as its teacher is compiled."""

from __future__ import annotations

import warnings

import keras

from esnac_tf.errors import UserError
from esnac_tf.graph.custom_objects import custom_objects


def compile_like(student: keras.Model, teacher: keras.Model) -> None:
    """Compiles a student with its teacher's loss, metrics and a new optimizer of the same kind.

    The optimizer has the settings and the learning rate that the teacher's has now, and no
    state. A teacher that is not compiled leaves its student as it is. To compile the student of
    a distributed training, call this inside of the strategy's scope.

    Args:
        student: A built model with the teacher's outputs.
        teacher: Any model.

    Raises:
        UserError: Keras can't make the loss, a metric or the optimizer anew, as with a lambda.

    Example:
        >>> teacher = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        >>> teacher.compile(keras.optimizers.SGD(0.25), "mse")
        >>> student = keras.models.clone_model(teacher)
        >>> compile_like(student, teacher)
        >>> student.loss, float(student.optimizer.learning_rate)
        ('mse', 0.25)
    """
    if not teacher.compiled:
        return
    # Keras finds custom classes and functions by name only, and only those it was told of.
    known = custom_objects([teacher.optimizer, teacher.loss, teacher.metrics])
    try:
        with warnings.catch_warnings(), keras.saving.CustomObjectScope(known):
            warnings.simplefilter("ignore")  # Keras warns of saving lambdas; nothing is saved
            settings = keras.saving.deserialize_keras_object(teacher.get_compile_config())
        student.compile(**settings)
    except (TypeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0].split(". ")[0]
        raise UserError(
            f"{student.name!r} can't be compiled as {teacher.name!r} is: {reason}.\n"
            "Compile it yourself; named functions and classes instead of lambdas avoid this."
        ) from error
    if student.optimizer is not None:
        student.optimizer.build(student.trainable_variables)
