"""The models of `keras.applications` as teachers, with fresh weights or those from ImageNet."""

from __future__ import annotations

import difflib
import inspect
import warnings
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from esnac_tf.errors import UserError, error_reason
from esnac_tf.teachers.blocks import normalized

if TYPE_CHECKING:
    from esnac_tf.teachers import Normalization

# Arguments that follow from the data and from the weights.
_GIVEN = ("include_top", "weights", "input_tensor", "input_shape", "classes",
          "classifier_activation", "name")  # fmt: skip
_IMAGENET_CLASSES = 1000


def check(function: str, arguments: Mapping[str, Any]) -> None:
    """Refuses what is no model function of `keras.applications`, and arguments it does not take.

    Args:
        function: Its name, such as "MobileNetV2".
        arguments: What the user gives.

    Raises:
        UserError: So it is.

    Example:
        >>> check("MobileNetV3", {})
        Traceback (most recent call last):
            ...
        esnac_tf.errors.UserError: keras.applications has no model 'MobileNetV3'. Did you mean \
'MobileNetV2'?
        Give one of its model functions, as keras.io/api/applications lists them.
    """
    found = _functions().get(function)
    if found is None:
        nearest = difflib.get_close_matches(function, sorted(_functions()), n=1)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
        raise UserError(
            f"keras.applications has no model {function!r}.{hint}\n"
            "Give one of its model functions, as keras.io/api/applications lists them."
        )
    known = [name for name in inspect.signature(found).parameters if name not in _GIVEN]
    for name in arguments:
        if name not in known:
            raise UserError(
                f"keras.applications.{function} takes no argument {name!r} here.\n"
                f"Known: {', '.join(known) or 'none'}; shapes and classes come from the data."
            )


def build(
    function: str,
    arguments: Mapping[str, Any],
    input_shape: tuple[int, ...],
    num_classes: int,
    normalization: Normalization | None = None,
    weights: str | None = None,
) -> keras.Model:
    """Builds a model of `keras.applications` that takes raw pictures and gives logits.

    With fresh weights the pictures are normalized as for the teachers of this package; a model
    that has preprocessing layers of its own gets them raw. With "imagenet" the model's own
    `preprocess_input` comes first, which takes pixels of 0 to 255; where the data has other
    than 1000 classes, the weights' top is replaced by average pooling and a fresh Dense layer.

    Args:
        function: The name of a model function, such as "MobileNetV2".
        arguments: What it is called with beside shape, classes and weights.
        input_shape: (height, width, channels) of a picture.
        num_classes: C, the number of logits.
        normalization: Mean and standard deviation of each channel, or None.
        weights: None, or "imagenet": those that Keras downloads.

    Returns:
        A functional model from pictures [B, height, width, channels] to logits [B, C].

    Raises:
        UserError: There is no such function, it does not take these arguments or pictures, or
            the weights can't be had.

    Example:
        >>> build("MobileNetV2", {"alpha": 0.35}, (32, 32, 3), 7).output_shape
        (None, 7)
    """
    check(function, arguments)
    inputs = keras.Input(input_shape, name="picture")
    try:
        if weights:
            model = _pretrained(function, arguments, inputs, num_classes, weights)
        else:
            model = _top(function, arguments, inputs, num_classes, None)
            if normalization is not None and not _preprocesses(model):
                tensor = normalized(inputs, normalization)
                model = _top(function, arguments, tensor, num_classes, None)
    except Exception as error:  # whatever the function raises, and whatever a download does
        reason = error_reason(error).split(". ")[0].rstrip(".")
        advice = " Without a network give --teacher_weights=FILE." if weights else ""
        raise UserError(
            f"keras.applications.{function} can't be built for pictures of shape "
            f"{tuple(input_shape)} and {num_classes} classes: {reason}.\n"
            f"Give larger pictures, other arguments or another model.{advice}"
        ) from error
    return keras.Model(inputs, model.output, name=model.name)  # not on a list of one input


def _preprocessed(function: str, inputs: Any) -> Any:
    """What `preprocess_input` of a model gives, as a layer, which no search removes.

    It scales and shifts each channel, and may turn the order of the channels round.
    """
    preprocess = _preprocess_input(function)
    black = preprocess(np.zeros((1, 1, 1, 3), np.float32))[0, 0, 0]
    scales = preprocess(np.eye(3, dtype=np.float32)[None, None])[0, 0] - black
    if scales[0, 0] == 0:
        inputs = inputs[..., ::-1]
    scale = scales.sum(axis=0)
    if np.allclose(scale, 1) and np.allclose(black, 0):
        return inputs
    return normalized(inputs, ((-black / scale).tolist(), (1 / scale).tolist()))


def _top(
    function: str, arguments: Mapping[str, Any], tensor: Any, num_classes: int, weights: str | None
) -> keras.Model:
    """The model with its top, of logits."""
    top = {"include_top": True, "classes": num_classes, "classifier_activation": None}
    return _call(function, {**arguments, **top}, tensor, weights)


def _pretrained(
    function: str, arguments: Mapping[str, Any], inputs: Any, num_classes: int, weights: str
) -> keras.Model:
    tensor = _preprocessed(function, inputs)
    if num_classes == _IMAGENET_CLASSES:
        return _top(function, arguments, tensor, num_classes, weights)
    settings = {"pooling": "avg", **arguments, "include_top": False}
    model = _call(function, settings, tensor, weights)
    logits = keras.layers.Dense(num_classes, name="logits")(model.output)
    return keras.Model(inputs, logits, name=model.name)


def _call(
    function: str, settings: Mapping[str, Any], tensor: Any, weights: str | None
) -> keras.Model:
    shape = tuple(tensor.shape[1:])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one that the pictures are not those of ImageNet
        return _functions()[function](
            **settings, weights=weights, input_tensor=tensor, input_shape=shape
        )


def _functions() -> dict[str, Callable[..., keras.Model]]:
    """The model functions by name."""
    return {
        name: value
        for name, value in vars(keras.applications).items()
        if inspect.isfunction(value) and name[0].isupper()
    }


def _preprocess_input(function: str) -> Callable[[Any], Any]:
    """The public function that goes with a model function.

    Those without one (MobileNetV3) have layers for it.
    """
    for module in vars(keras.applications).values():
        if isinstance(module, ModuleType) and hasattr(module, function):
            return getattr(module, "preprocess_input", _unchanged)
    return _unchanged


def _unchanged(pictures: Any) -> Any:
    return pictures


def _preprocesses(model: keras.Model) -> bool:
    """Whether a model has preprocessing layers of its own."""
    kinds = (keras.layers.Rescaling, keras.layers.Normalization)
    return any(isinstance(layer, kinds) for layer in model.layers)
