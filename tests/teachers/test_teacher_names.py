"""Teachers as the user writes them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from esnac_tf import teachers
from esnac_tf.errors import UnknownNameError, UserError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("resnet18", ("resnet18", {})),
        (" resnet18() ", ("resnet18", {})),
        ("vgg16(width=8)", ("vgg16", {"width": 8})),
    ],
)
def test_names_with_and_without_arguments(text, expected):
    assert teachers.parse_name(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "resnet18(",
        "resnet18(16)",
        "resnet18(width=)",
        "resnet18(width=0)",
        "resnet18(width=1.5)",
        "resnet18(width=True)",
        "resnet18(width='8')",
        "resnet18(width={[]: 1})",
        "resnet18(width=8, width=9)",
        "resnet18(width=exit())",
        "resnet18(**{'width': 8})",
        "resnet18(depth=3)",
        "teachers.resnet18",
        "resnet18 resnet34",
        "resnet18\0",
        "(" * 2000,
        "C:\\models\\mine.keras",
    ],
)
def test_what_can_not_be_read_is_told_in_two_lines(text):
    with pytest.raises(UserError) as error:
        teachers.parse_name(text)
    assert len(str(error.value).splitlines()) <= 2


@pytest.mark.parametrize(
    ("name", "hint"), [("resnet81", "resnet18"), ("vgg", "vgg1"), ("shuffelnet", "shufflenet")]
)
def test_the_nearest_name_is_offered(name, hint):
    with pytest.raises(UnknownNameError, match=f"Did you mean '{hint}") as error:
        teachers.parse_name(name)
    assert len(str(error.value).splitlines()) == 2
    assert all(known in str(error.value) for known in teachers.names())


@pytest.mark.parametrize("name", ["blocks", "loading", "picture_input", "_resnet", "relu"])
def test_what_lies_beside_the_teachers_is_none(name):
    with pytest.raises(UnknownNameError):
        teachers.parse_name(name)


@pytest.mark.parametrize(
    ("spec", "picture", "message"),
    [
        ("vgg16", (28, 28, 1), "at least 32x32, received 28x28"),
        ("vgg19", (64, 16, 3), "at least 32x32, received 64x16"),
        ("shufflenet(width=36)", (32, 32, 3), "multiple of 8"),
        ("shufflenet(width=24)", (32, 32, 3), "at least 32"),
        ("resnet18", (784,), "height, width, channels"),
    ],
)
def test_pictures_and_widths_that_do_not_fit(spec, picture, message):
    with pytest.raises(UserError, match=message) as error:
        teachers.build(spec, picture, 10)
    assert len(str(error.value).splitlines()) == 2


def test_names_are_told_without_tensorflow():
    code = (
        "import sys; from esnac_tf import teachers; teachers.parse_name('vgg16(width=8)'); "
        "assert 'keras' not in sys.modules and 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
