"""Families: what is in a folder, and the error for what is not."""

import pytest

from esnac_tf import acquisitions, datasets, executors, exporters, strategies
from esnac_tf.distillation import losses
from esnac_tf.errors import UnknownNameError
from esnac_tf.families import Family


@pytest.mark.parametrize(
    "family",
    [
        acquisitions.FAMILY,
        datasets.FAMILY,
        executors.FAMILY,
        exporters.FAMILY,
        losses.FAMILY,
        strategies.FAMILY,
    ],
    ids=lambda family: family.kind,
)
def test_every_member_is_imported_by_its_name_and_others_are_told(family):
    assert family.names() == sorted(family.names()) != []
    for name in family.names():
        assert family.module(name).__name__ == f"{family.package}.{name}"
    wrong = family.names()[0] + "x"
    with pytest.raises(UnknownNameError) as caught:
        family.module(wrong)
    first, second = str(caught.value).splitlines()
    assert first == f"Unknown {family.kind} {wrong!r}. Did you mean {family.names()[0]!r}?"
    assert all(name in second for name in family.names())
    assert f"{family.package.replace('.', '/')}/." in second


def test_support_modules_and_packages_are_no_members(tmp_path, monkeypatch):
    package = tmp_path / "some_family"
    (package / "part").mkdir(parents=True)
    for file in ("__init__.py", "one.py", "support.py", "part/__init__.py"):
        (package / file).write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    family = Family("thing", "some_family", frozenset({"support"}))
    assert family.names() == ["one"]
    for name in ("support", "part", "__init__", "", "one.two"):
        with pytest.raises(UnknownNameError):
            family.check(name)
