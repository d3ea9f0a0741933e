"""The models of keras.applications as teachers."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from esnac_tf import teachers
from esnac_tf.errors import UserError
from esnac_tf.graph.teacher import analyse
from esnac_tf.teachers import applications
from esnac_tf.teachers.loading import load, load_weights

NORMALIZATION = ([120.0] * 3, [60.0] * 3)
PICTURES = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
MOBILE = "keras.applications.MobileNetV2(alpha=0.35)"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("keras.applications.ResNet50", ("keras.applications.ResNet50", {})),
        (" keras.applications.ResNet50() ", ("keras.applications.ResNet50", {})),
        (MOBILE, ("keras.applications.MobileNetV2", {"alpha": 0.35})),
        (
            "keras.applications.MobileNetV3Small(alpha=1.0, minimalistic=True)",
            ("keras.applications.MobileNetV3Small", {"alpha": 1.0, "minimalistic": True}),
        ),
    ],
)
def test_names_are_read(text, expected):
    assert teachers.parse_name(text) == expected
    teachers.check(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("keras.applications.MobileNetV", "Did you mean 'MobileNetV"),
        ("keras.applications.mobilenet", "Did you mean 'MobileNet'"),
        ("keras.applications.imagenet_utils", "no model 'imagenet_utils'"),
        ("keras.applications.keras", "no model 'keras'"),
        (
            "keras.applications.MobileNetV2(width=3)",
            "takes no argument 'width' here.\nKnown: alpha",
        ),
        ("keras.applications.MobileNetV2(weights=None)", "takes no argument 'weights' here."),
        ("keras.applications.MobileNetV2(0.35)", "Can't read the teacher"),
        ("keras.applications.a.MobileNetV2", "Can't read the teacher"),
        ("keras.layers.Dense(units=3)", "Can't read the teacher"),
        ("keras.applications.MobileNetV2(alpha=exit())", "Can't read the teacher"),
    ],
)
def test_what_is_none_is_told_in_two_lines(text, message):
    with pytest.raises(UserError) as caught:
        teachers.check(text)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 2


def test_a_model_takes_raw_pictures_and_gives_logits():
    model = teachers.build(MOBILE, (32, 32, 3), 7, NORMALIZATION)
    assert model.output_shape == (None, 7)
    normalization = model.layers[1]
    assert isinstance(normalization, keras.layers.Normalization)
    np.testing.assert_allclose(normalization(PICTURES), (PICTURES - 120) / 60, atol=1e-5)
    assert np.asarray(model(PICTURES)).sum(axis=-1) != pytest.approx(1)
    assert analyse(model).width_groups
    plain = teachers.build(MOBILE, (32, 32, 3), 7)
    assert not any(isinstance(layer, keras.layers.Normalization) for layer in plain.layers)


def test_one_that_preprocesses_gets_raw_pictures():
    model = teachers.build(
        "keras.applications.MobileNetV3Small(minimalistic=True)", (32, 32, 3), 7, NORMALIZATION
    )
    assert isinstance(model.layers[1], keras.layers.Rescaling)
    assert not any(isinstance(layer, keras.layers.Normalization) for layer in model.layers)


@pytest.mark.parametrize(
    ("spec", "picture", "message"),
    [
        ("MobileNetV2", (8, 8, 1), "at least 32x32"),
        ("InceptionV3", (32, 32, 3), "at least 75x75"),
        ("ResNet50(pooling=[])", (64,), "takes pictures of shape"),
    ],
)
def test_pictures_that_do_not_fit(spec, picture, message):
    with pytest.raises(UserError, match=message) as caught:
        teachers.build(f"keras.applications.{spec}", picture, 10)
    assert len(str(caught.value).splitlines()) == 2


def test_weights_of_the_model_alone_fit(tmp_path):
    plain = keras.applications.MobileNetV2(
        alpha=0.35, weights=None, input_shape=(32, 32, 3), classes=7, classifier_activation=None
    )
    plain.save_weights(tmp_path / "plain.weights.h5")
    plain.save(tmp_path / "plain.keras")
    model = teachers.build(MOBILE, (32, 32, 3), 7, NORMALIZATION)
    for name in ("plain.weights.h5", "plain.keras"):
        load_weights(model, tmp_path / name)
        expected = plain((PICTURES - 120) / 60, training=False)
        np.testing.assert_allclose(model(PICTURES, training=False), expected, atol=1e-4)


@pytest.fixture
def downloads(monkeypatch):
    """Asks for weights, as they would be downloaded, and takes fresh ones."""
    asked = []
    call = applications._call

    def without_network(function, settings, tensor, weights):
        asked.append((function, settings, weights))
        return call(function, settings, tensor, None)

    monkeypatch.setattr(applications, "_call", without_network)
    return asked


def test_imagenet_with_its_classes_is_the_model_on_its_preprocessed_pictures(downloads, tmp_path):
    model = teachers.build(MOBILE, (32, 32, 3), 1000, NORMALIZATION, "imagenet")
    [(function, settings, weights)] = downloads
    assert (function, weights, settings["include_top"]) == ("MobileNetV2", "imagenet", True)
    plain = keras.applications.MobileNetV2(
        alpha=0.35, weights=None, input_shape=(32, 32, 3), classifier_activation=None
    )
    plain.set_weights(model.get_weights())
    expected = plain(keras.applications.mobilenet_v2.preprocess_input(PICTURES.copy()))
    np.testing.assert_allclose(model(PICTURES), expected, atol=1e-5)
    model.save(tmp_path / "model.keras")
    np.testing.assert_allclose(load(tmp_path / "model.keras")(PICTURES), expected, atol=1e-5)


@pytest.mark.parametrize(
    "function",
    [
        "ResNet50",
        "ResNet50V2",
        "DenseNet121",
        "MobileNetV2",
        "EfficientNetB0",
        "MobileNetV3Small",
    ],
)
def test_preprocessing_is_the_model_s_own(function):
    inputs = keras.Input((32, 32, 3))
    model = keras.Model(inputs, applications._preprocessed(function, inputs))
    preprocess = applications._preprocess_input(function)
    np.testing.assert_allclose(model(PICTURES), preprocess(PICTURES.copy()), atol=1e-3)
    is_flipped = function == "ResNet50"
    assert any("item" in operation.name for operation in model.operations) == is_flipped


def test_no_search_removes_preprocessing(downloads):
    graph = analyse(teachers.build(MOBILE, (32, 32, 3), 7, None, "imagenet"))
    assert graph.nodes[0].name == "Conv1"


def test_imagenet_with_other_classes_gets_a_fresh_top(downloads):
    model = teachers.build(MOBILE, (32, 32, 3), 7, NORMALIZATION, "imagenet")
    [(_, settings, weights)] = downloads
    assert (weights, settings["include_top"]) == ("imagenet", False)
    assert model.output_shape == (None, 7)
    assert model.layers[-1].name == "logits"


def test_a_download_that_fails_is_told(monkeypatch):
    def no_network(*_, **__):
        raise Exception("URL fetch failure on https://x/y.h5: None -- [Errno -2] Unknown.")

    monkeypatch.setattr(applications, "_call", no_network)
    with pytest.raises(UserError, match=r"URL fetch .*\n.*--teacher_weights=FILE") as caught:
        teachers.build(MOBILE, (32, 32, 3), 7, None, "imagenet")
    assert len(str(caught.value).splitlines()) == 2
