"""What only the SavedModel format promises."""

import logging

import keras
import numpy as np
import pytest
import tensorflow as tf

from esnac_tf.errors import UserError
from esnac_tf.exporters import saved_model


def _convolutional_model():
    inputs = keras.Input((16, 16, 3), name="image-1")
    x = inputs
    for width in (32, 64, 64):
        x = keras.layers.Conv2D(width, 3, padding="same")(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    x = keras.layers.Dropout(0.5)(keras.layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, keras.layers.Dense(10)(x))


def test_every_weight_is_written_once(tmp_path):
    model = _convolutional_model()
    path = saved_model.export(model, tmp_path / "student")
    weights_bytes = sum(keras.ops.convert_to_numpy(weight).nbytes for weight in model.weights)
    written_bytes = sum(
        file.stat().st_size for file in (path / "variables").glob("variables.data-*")
    )
    assert weights_bytes <= written_bytes < 1.2 * weights_bytes


def test_the_batch_size_is_free_and_outputs_keep_their_structure(tmp_path):
    first = keras.Input((4,), name="first")
    outputs = {"a": [keras.layers.Dense(2)(first), first], "b": keras.layers.Dense(3)(first)}
    path = saved_model.export(keras.Model(first, outputs), tmp_path / "student")
    loaded = tf.saved_model.load(str(path))
    for batch in (1, 5):
        served = loaded.serve(tf.zeros([batch, 4]))
        assert keras.tree.map_structure(lambda tensor: tuple(tensor.shape), served) == {
            "a": [(batch, 2), (batch, 4)],
            "b": (batch, 3),
        }
    assert set(loaded.signatures["serving_default"].structured_outputs) == {
        "a_output_0",
        "a_output_1",
        "b",
    }


def test_inference_mode_is_exported(tmp_path):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dropout(0.9)(inputs))
    loaded = tf.saved_model.load(str(saved_model.export(model, tmp_path / "student")))
    np.testing.assert_array_equal(loaded.serve(tf.ones([2, 4])), np.ones([2, 4]))


def test_what_lookup_layers_learned_is_exported(tmp_path):
    word = keras.Input((1,), name="word", dtype="string")
    number = keras.Input((1,), name="number", dtype="int64")
    text = keras.Input((), name="text", dtype="string")
    settings = {"output_mode": "multi_hot"}
    encoded = [
        keras.layers.StringLookup(vocabulary=["red", "green"], **settings)(word),
        keras.layers.IntegerLookup(vocabulary=[3, 7], **settings)(number),
        keras.layers.TextVectorization(vocabulary=["a", "b"], **settings)(text),
    ]
    outputs = keras.layers.Dense(2)(keras.layers.Concatenate()(encoded))
    model = keras.Model([word, number, text], outputs)
    loaded = tf.saved_model.load(str(saved_model.export(model, tmp_path / "student")))
    values = [
        tf.constant([["green"], ["blue"]]),
        tf.constant([[3], [7]], tf.int64),
        tf.constant(["a b", "b c"]),
    ]
    served = loaded.serve(dict(zip(["word", "number", "text"], values, strict=True)))
    np.testing.assert_allclose(served, model(values), rtol=1e-6)


def test_a_folder_that_is_no_saved_model_is_not_overwritten(tmp_path):
    (tmp_path / "student_saved_model").mkdir()
    (tmp_path / "student_saved_model" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="no SavedModel"):
        saved_model.export(_convolutional_model(), tmp_path / "student")
    assert (tmp_path / "student_saved_model" / "thesis.txt").exists()


def test_an_unbuilt_model_is_told(tmp_path):
    with pytest.raises(UserError, match=r"no fixed inputs\.\nExpected a Functional model"):
        saved_model.export(keras.Sequential([keras.layers.Dense(2)]), tmp_path / "student")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error", [tf.errors.ResourceExhaustedError, tf.errors.PermissionDeniedError]
)
def test_what_tensorflow_s_files_refuse_is_told(tmp_path, monkeypatch, error):
    def refuse(*arguments, **keywords):
        raise error(None, None, "{{node}} /a/student; No space left on device [Op:SaveV2]")

    monkeypatch.setattr(tf.saved_model, "save", refuse)
    with pytest.raises(UserError, match=r"student_saved_model: No space left on device\.\n"):
        saved_model.export(_convolutional_model(), tmp_path / "student")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_printed(tmp_path, capfd, caplog):
    with caplog.at_level(logging.WARNING):
        saved_model.export(_convolutional_model(), tmp_path / "student")
    assert capfd.readouterr() == ("", "")
    assert caplog.messages == []
