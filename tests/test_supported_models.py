"""The tool that tries the networks of keras.applications, on a small network and none at all."""

from __future__ import annotations

import importlib.util
import json
import pathlib

import numpy as np
import pytest
import small_models

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def tool():
    path = ROOT / "tools" / "supported_models.py"
    spec = importlib.util.spec_from_file_location("supported_models", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_finds_every_network_once(tool):
    found = tool.constructors()
    assert len(found) >= 40
    assert {"MobileNetV3Small", "ResNet50", "VGG16", "Xception"} <= set(found)
    assert not {"preprocess_input", "decode_predictions"} & set(found)


def test_takes_the_smallest_pictures_that_a_network_takes(tool):
    def constructor(input_shape, **settings):
        if input_shape[0] < 75:
            raise ValueError("too small")
        return {"input_shape": input_shape, **settings}

    without_top = {"input_shape": (75, 75, 3), "weights": None, "include_top": False}
    assert tool.small_network(constructor, False) == without_top
    with_top = {"include_top": True, "classes": 10, "classifier_activation": None}
    assert tool.small_network(constructor, True) == {**without_top, **with_top}


def test_statistics_are_near_to_those_of_the_activations_and_not_the_same(tool):
    model = tool.randomized(small_models.residual())
    norm = model.get_layer("bn1")
    assert norm.momentum == 0.99
    assert np.ptp(norm.gamma) > 0
    assert np.ptp(norm.beta) > 0
    assert np.isfinite(model(tool.pictures_for(model))).all()
    assert not np.allclose(norm.moving_variance, 1)


def test_a_network_passes(tool, tmp_path):
    told = {}
    model = tool.randomized(small_models.residual())
    tool.examine(model, str(tmp_path), lambda **values: told.update(values))
    assert told["step"] == "done"
    assert told["difference"] == 0
    assert (told["groups"], told["removable"]) == (2, 4)
    assert 0.2 < told["ratio"] < 0.8


def test_a_student_that_differs_fails(tool, tmp_path, monkeypatch):
    told = {}
    monkeypatch.setattr(tool, "COPY_TOLERANCE", -1)
    model = tool.randomized(small_models.residual())
    with pytest.raises(AssertionError, match=r"outputs differ by 0\.0"):
        tool.examine(model, str(tmp_path), lambda **values: told.update(values))
    assert told["step"] == "no action"


def test_one_that_takes_too_long_is_recorded_and_tried_again(tool, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tool, "constructors", lambda: {"Slow": None})
    path, table = tmp_path / "all" / "results.jsonl", tmp_path / "table.md"
    arguments = [f"--json={path}", f"--output={table}", "--timeout_secs=0"]
    for count in (2, 4):
        assert tool.main(arguments) == 1
        assert len(path.read_text().splitlines()) == count
    assert "| Slow without top | - | - | - | - | - | - | start: not done after 0 s |" in (
        table.read_text()
    )
    with path.open("a") as file:
        for top in (True, False):
            file.write(json.dumps({"name": "Slow", "top": top, "passed": True}) + "\n")
    assert tool.main(arguments) == 0
    assert capsys.readouterr().out.endswith("2 of 2 pass.\n")


def test_one_that_crashes_is_recorded(tool):
    result = tool.try_network("NoSuchNetwork", True, timeout_secs=300, memory_gib=14)
    assert not result["passed"]
    assert result["reason"] == "building the network: KeyError: 'NoSuchNetwork'"
