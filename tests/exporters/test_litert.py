"""What only the LiteRT format promises."""

import subprocess
import sys

import keras
import pytest

from esnac_tf.errors import UserError
from esnac_tf.exporters import litert


def test_nothing_is_printed(tmp_path, capfd):
    litert.export(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), tmp_path / "a")
    assert capfd.readouterr() == ("", "")


def test_weights_are_float32(tmp_path):
    model = keras.Sequential([keras.Input((300,)), keras.layers.Dense(400)])
    path = litert.export(model, tmp_path / "student")
    assert 0.99 < path.stat().st_size / (4 * model.count_params()) < 1.1


def test_an_operation_that_litert_lacks_is_told_in_two_lines(tmp_path, capfd):
    inputs = keras.Input((4, 4))
    model = keras.Model(inputs, keras.ops.qr(inputs)[0], name="decomposition")
    with pytest.raises(UserError, match=r"'decomposition' .*\n.*saved_model or keras") as caught:
        litert.export(model, tmp_path / "student")
    assert len(str(caught.value).splitlines()) == 2
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().err == ""


def test_the_standard_error_comes_back(capfd):
    with litert._without_native_chatter():
        subprocess.run([sys.executable, "-c", "import os; os.write(2, b'away')"], check=True)
    print("here", file=sys.stderr)
    assert capfd.readouterr().err == "here\n"
