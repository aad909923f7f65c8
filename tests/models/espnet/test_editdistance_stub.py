"""The stand-in for the package editdistance."""

import importlib.util
import sys

import pytest

from espnet_prune.models.espnet.editdistance_stub import ensure_editdistance


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [("kitten", "sitting", 3), ([1, 2, 3], [1, 3], 1), (["a"], [], 1), ("", "", 0)],
)
def test_same_distances_without_the_package(monkeypatch, a, b, distance):
    monkeypatch.delitem(sys.modules, "editdistance", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    ensure_editdistance()
    monkeypatch.undo()
    stub = sys.modules.pop("editdistance")
    assert stub.eval(a, b) == distance


def test_the_real_package_is_kept_where_there_is_one():
    editdistance = pytest.importorskip("editdistance")
    ensure_editdistance()
    assert sys.modules["editdistance"] is editdistance
