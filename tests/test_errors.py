"""The reason of an exception: the useful words of what Keras and TensorFlow tell."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from esnac_tf.errors import error_reason

TOO_LARGE = np.full((2, 4), 70)
DENSE = {"module": "keras.layers", "class_name": "Dense", "registered_name": None}
OUTSIDE = "indices[0,0] = 70 is not in [0, 50)"
SHAPES = "Incompatible shapes: [8] vs. [8,10]"
SEVERAL = """Graph execution error:

Detected at node model/Gather defined at (most recent call last):
<stack traces unavailable>
2 root error(s) found.
  (0) INVALID_ARGUMENT:  indices[0,0] = 70 is not in [0, 50)
\t [[{{node model/Gather}}]]
\t [[model/Gather/_4]]
  (1) CANCELLED:  Function was cancelled before it was started
0 successful operations. [Op:__inference_step_7]"""


def tokens():
    inputs = keras.Input((4,), dtype="int32")
    hidden = keras.layers.Flatten()(keras.layers.Embedding(50, 2)(inputs))
    return keras.Model(inputs, keras.layers.Dense(3)(hidden))


def compiled(function, *shapes):
    """What TensorFlow runs; its shapes are not known while it is traced."""
    signature = [tf.TensorSpec(None)] * len(shapes)
    tf.function(function, autograph=False, input_signature=signature)(*map(tf.zeros, shapes))


def fails(value):
    raise RuntimeError("no\nway")


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        (lambda: tokens()(TOO_LARGE), OUTSIDE),
        (lambda: tokens().predict_on_batch(TOO_LARGE), OUTSIDE),
        (lambda: tf.zeros([8]) - tf.zeros([8, 10]), SHAPES),
        (lambda: compiled(lambda a, b: a - b, [8], [8, 10]), SHAPES),
        (
            lambda: tf.function(lambda a, b: a - b)(tf.zeros([8]), tf.zeros([8, 10])),
            "Dimensions must be equal, but are 8 and 10 with input shapes: [8], [8,10]",
        ),
        (
            lambda: compiled(lambda a: tf.py_function(fails, [a], tf.float32), [3]),
            "RuntimeError: no way",
        ),
        (
            lambda: keras.layers.deserialize({**DENSE, "config": {}}),
            "Dense.__init__() missing 1 required positional argument: 'units'",
        ),
    ],
    ids=["layer", "model", "eager", "compiled", "traced", "python", "config"],
)
def test_what_the_libraries_tell_around_it_is_left_out(action, reason):
    with pytest.raises(Exception) as caught:  # noqa: PT011
        action()
    assert error_reason(caught.value) == reason


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (tf.errors.InvalidArgumentError(None, None, SEVERAL), OUTSIDE),
        (ValueError("received [[1 2]\n [3 4]] and {'a': [[5]]}"),) * 2,
        (ValueError("the shapes\n  don't fit."), "the shapes don't fit"),
        (ValueError(), "ValueError"),
        (ValueError("x" * 300), "x" * 247 + "..."),
        (ValueError("Traceback (most recent call last):"),) * 2,
    ],
    ids=range(6),
)
def test_own_words_stay(error, reason):
    wanted = " ".join(str(reason).split()).removesuffix(".") if error is reason else reason
    assert error_reason(error) == wanted
