"""The tool that tries models of others' code, on small models and none at all."""

from __future__ import annotations

import json

import keras
import model_examination
import numpy as np
import pytest
import small_models
import supported_models
from model_zoo import code_examples, keras_applications, keras_hub_backbones
from model_zoo.case import Case

APPLICATIONS = keras_applications.TITLE


def examined(model, folder, values=None):
    """What was told of a model that passes."""
    told = {}
    values = values or {}
    model_examination.examine(
        model_examination.randomized(model, values),
        values,
        str(folder),
        lambda **found: told.update(found),
    )
    assert told["step"] == "done"
    return told


def test_finds_every_network_once():
    found = keras_applications.constructors()
    assert len(found) >= 40
    assert {"MobileNetV3Small", "ResNet50", "VGG16", "Xception"} <= set(found)
    assert not {"preprocess_input", "decode_predictions"} & set(found)


def test_takes_the_smallest_pictures_that_a_network_takes():
    def constructor(input_shape, **settings):
        if input_shape[0] < 75:
            raise ValueError("too small")
        return {"input_shape": input_shape, **settings}

    without_top = {"input_shape": (75, 75, 3), "weights": None, "include_top": False}
    assert keras_applications.small_network(constructor, False) == without_top
    with_top = {"include_top": True, "classes": 10, "classifier_activation": None}
    assert keras_applications.small_network(constructor, True) == {**without_top, **with_top}


def test_names_are_there_once_in_a_source():
    for source in supported_models.sources():
        names = [case.name for case in source.cases()]
        assert len(names) == len(set(names))
        assert {case.source for case in source.cases()} == {source.TITLE}


def test_inputs_fit_the_model():
    inputs = {
        "picture": keras.Input((8, 8, 3), name="picture"),
        "words": keras.Input((None,), name="words", dtype="int32"),
        "mask": keras.Input((None,), name="mask", dtype="bool"),
        "colour": keras.Input((), name="colour", dtype="string"),
    }
    values = {"mask": (True,), "colour": ("red", "green")}
    drawn = model_examination.inputs_for(keras.Model(inputs, inputs), values)
    count, length = model_examination.NUM_EXAMPLES, model_examination.LENGTH
    assert {name: tuple(tensor.shape) for name, tensor in drawn.items()} == {
        "picture": (count, 8, 8, 3),
        "words": (count, length),
        "mask": (count, length),
        "colour": (count,),
    }
    assert 200 < np.max(drawn["picture"]) < 255
    assert np.max(drawn["words"]) < model_examination.NUM_TOKENS
    assert np.all(drawn["mask"])
    assert set(drawn["colour"].numpy()) <= {b"red", b"green"}


def test_statistics_are_near_to_those_of_the_activations_and_not_the_same():
    model = model_examination.randomized(small_models.residual(), {})
    norm = model.get_layer("bn1")
    assert norm.momentum == 0.99
    assert np.ptp(norm.gamma) > 0
    assert np.ptp(norm.beta) > 0
    assert np.isfinite(model(model_examination.inputs_for(model, {}))).all()
    assert not np.allclose(norm.moving_variance, 1)


def test_a_network_passes(tmp_path):
    told = examined(small_models.residual(), tmp_path)
    assert told["difference"] == 0
    assert (told["groups"], told["removable"]) == (2, 4)
    assert 0.2 < told["ratio"] < 0.8


def test_one_with_several_inputs_and_outputs_passes(tmp_path):
    examined(small_models.several_inputs_and_ops(), tmp_path)


@pytest.mark.parametrize("case", code_examples.cases(divisor=8), ids=lambda case: case.name)
def test_a_code_example_passes(case, tmp_path):
    # Blocks that can only go as a whole don't come near to a half.
    assert examined(case.build(), tmp_path, case.values)["ratio"] == pytest.approx(0.5, abs=0.2)


@pytest.mark.filterwarnings("ignore")  # of keras-hub and what it imports
def test_a_backbone_of_keras_hub_passes(tmp_path):
    pytest.importorskip("keras_hub", reason="needs the extra keras-hub")
    (case,) = (case for case in keras_hub_backbones.cases() if case.name == "DenseNetBackbone")
    assert examined(case.build(), tmp_path, case.values)["ratio"] == pytest.approx(0.5, abs=0.1)


def test_a_student_that_differs_fails(tmp_path, monkeypatch):
    told = {}
    monkeypatch.setattr(model_examination, "COPY_TOLERANCE", -1)
    model = model_examination.randomized(small_models.residual(), {})
    with pytest.raises(AssertionError, match=r"outputs differ by 0\.0"):
        model_examination.examine(model, {}, str(tmp_path), lambda **found: told.update(found))
    assert told["step"] == "no action"


def test_one_that_takes_too_long_is_recorded_and_tried_again(tmp_path, monkeypatch, capsys):
    case = Case(APPLICATIONS, "Slow", lambda: None, address="https://example.org")
    monkeypatch.setattr(supported_models, "all_cases", lambda: {(APPLICATIONS, "Slow"): case})
    path, table = tmp_path / "all" / "results.jsonl", tmp_path / "table.md"
    arguments = [f"--json={path}", f"--output={table}", "--timeout_secs=0"]
    for count in (1, 2):
        assert supported_models.main(arguments) == 1
        assert len(path.read_text().splitlines()) == count
    row = "| [Slow](https://example.org) | - | - | - | - | - | - | start: not done after 0 s |"
    assert row in table.read_text()
    with path.open("a") as file:
        file.write(json.dumps({"source": APPLICATIONS, "name": "Slow", "passed": True}) + "\n")
    assert supported_models.main(arguments) == 0
    assert capsys.readouterr().out.endswith("1 of 1 pass.\n")


def test_one_that_crashes_is_recorded():
    result = supported_models.try_model((APPLICATIONS, "None"), timeout_secs=300, memory_gib=14)
    assert not result["passed"]
    assert result["reason"] == f"building the model: KeyError: ('{APPLICATIONS}', 'None')"


def test_sources_have_sections_with_totals(tmp_path, capsys):
    path, table = tmp_path / "results.jsonl", tmp_path / "table.md"
    results = [
        # As results of keras.applications were written before there were other sources.
        {"name": "VGG16", "top": True, "num_params": 1234, "ratio": 0.5, "passed": True},
        {"name": "VGG16", "top": False, "passed": False, "reason": "start: a|b"},
        {"source": "keras-hub", "name": "BertBackbone", "passed": True},
    ]
    path.write_text("".join(json.dumps(result) + "\n" for result in results))
    arguments = [f"--json={path}", f"--output={table}", "--only=^nothing$"]
    assert supported_models.main(arguments) == 1
    assert capsys.readouterr().out == "2 of 3 pass.\n"
    text = table.read_text()
    order = [
        "## keras.applications",
        "| VGG16 | 1,234 | - | - | - | - | 50.0 % | pass |",
        "| VGG16 without top | - | - | - | - | - | - | start: a\\|b |",
        "1 of 2 pass.",
        "## keras-hub",  # and its version, if it is installed
        "| BertBackbone |",
        "1 of 1 pass.",
    ]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert "## Keras code examples" not in text


def test_what_is_not_installed_is_told_and_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(keras_hub_backbones, "PACKAGE", "no-such-package")
    path = tmp_path / "results.jsonl"
    assert supported_models.main([f"--json={path}", "--source=^keras-hub$"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "Left out all of keras-hub. Install it: pip install no-such-package",
        "0 of 0 pass.",
    ]
    assert not path.exists()


def test_the_reason_why_keras_can_not_revive_an_object_is_told():
    error = RuntimeError("layer 'x'")
    error.__cause__ = ValueError("It failed.\nException encountered: no such argument")
    assert supported_models.reason_of(error) == "no such argument"
    assert supported_models.reason_of(ValueError("first\nsecond")) == "first"
    assert supported_models.reason_of(ValueError()) == ""
