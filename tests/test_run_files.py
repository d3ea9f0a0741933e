"""Files of the run folder: JSON for any reader, and errors of the file system in two lines."""

import json
import pathlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esnac_tf.errors import UserError
from esnac_tf.run_files import dumps, plain, read_object, user_errors, write_object


def test_values_are_made_plain():
    values = {1: (np.int64(3), np.float32("inf")), "path": pathlib.Path("a/b"), "x": np.eye(2)}
    assert plain(values) == {"1": [3, None], "path": "a/b", "x": [[1.0, 0.0], [0.0, 1.0]]}


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_json_reader_takes_what_is_written(value):
    def refuse(constant):
        raise AssertionError(constant)

    json.loads(dumps(value), parse_constant=refuse)


def test_an_object_comes_back_and_a_missing_file_is_none(tmp_path):
    path = tmp_path / "a.json"
    assert read_object(path) is None
    write_object(path, {"ü": [1, float("nan")]})
    assert read_object(path) == {"ü": [1, None]}
    write_object(path, {})
    assert read_object(path) == {}


def test_what_json_cannot_hold_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "a.json"
    write_object(path, {"a": 1})
    with pytest.raises(TypeError, match="JSON cannot hold"):
        write_object(path, {"a": object()})
    assert read_object(path) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cannot be read as JSON"),
        (b"{", "cannot be read as JSON"),
        (b"\xff", "cannot be read as JSON"),
        (b'{"a": NaN}', "NaN is no JSON number"),
        (b"[]", "must hold a JSON object, and holds a list"),
    ],
)
def test_a_broken_file_is_told(tmp_path, content, reason):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=reason) as caught:
        read_object(path)
    assert str(caught.value).startswith(str(path))
    assert str(caught.value).splitlines()[1:] == [
        "Restore it from a copy, or choose another --run_dir."
    ]


def test_a_folder_in_the_place_of_a_file_is_told(tmp_path):
    with pytest.raises(UserError, match=f"Cannot use {tmp_path} for the run: Is a directory"):
        read_object(tmp_path)


def test_only_what_the_file_system_refuses_is_retold(tmp_path):
    with pytest.raises(ZeroDivisionError), user_errors(tmp_path):
        raise ZeroDivisionError
    with pytest.raises(UserError, match="already told"), user_errors(tmp_path):
        raise UserError("already told")
