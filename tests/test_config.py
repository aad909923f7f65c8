"""Strict configuration: each wrong key, value or file is named."""

from dataclasses import dataclass, field

import pytest

from espnet_prune.config import load_yaml, to_dataclass
from espnet_prune.errors import ConfigError


@dataclass(frozen=True)
class Inner:
    rate: float = 0.1


@dataclass(frozen=True)
class Outer:
    name: str
    count: int = 1
    inner: Inner = field(default_factory=Inner)
    kinds: tuple[str, ...] = ()
    maybe: int | None = None
    flag: bool = False


def test_nested_values_lists_and_exponents():
    values = {"name": "x", "inner": {"rate": "1e-3"}, "kinds": ["a"], "maybe": None, "flag": True}
    outer = to_dataclass(Outer, values, "f.yaml")
    assert outer.inner.rate == pytest.approx(1e-3)
    assert outer.kinds == ("a",) and outer.maybe is None and outer.flag


@pytest.mark.parametrize(
    "values, message",
    [
        ({"name": "x", "cuont": 2}, "unknown key 'cuont'.*did you mean 'count'"),
        ({"name": "x", "inner": {"rat": 2}}, "f.yaml: inner: unknown key 'rat'.*'rate'"),
        ({"count": 2}, "'name' is missing"),
        ({"name": "x", "count": "two"}, "count: int was expected, not 'two'"),
        ({"name": "x", "count": True}, "count: int was expected"),
        ({"name": "x", "count": 1.5}, "count: int was expected"),
        ({"name": "x", "inner": 3}, "inner: a mapping"),
        ({"name": "x", "kinds": "a"}, "kinds: a list"),
        ({"name": "x", "flag": 1}, "flag: bool was expected"),
    ],
)
def test_wrong_values_are_named(values, message):
    with pytest.raises(ConfigError, match=message):
        to_dataclass(Outer, values, "f.yaml")


def test_base_is_merged_below(tmp_path):
    (tmp_path / "base.yaml").write_text("a: {x: 1, y: 2}\nb: 3\n")
    (tmp_path / "own.yaml").write_text("base: base.yaml\na: {y: 5}\n")
    assert load_yaml(tmp_path / "own.yaml") == {"a": {"x": 1, "y": 5}, "b": 3}


@pytest.mark.parametrize(
    "text, message",
    [
        ("a: 1\na: 2\n", "key 'a' is given twice"),
        ("a: [1\n", "not valid YAML"),
        ("- 1\n", "a mapping"),
        ("base: own.yaml\n", "lead back to itself"),
        ("base: none.yaml\n", "none.yaml: no such"),
        ("base: [1]\n", r"own.yaml: base: the path of one YAML file was expected, not \[1\]"),
        ("base: .\n", "it can't be read .*directory"),
        ("? [a]\n: b\n", "not valid YAML: while constructing a mapping"),
        ("a: \x07\n", "own.yaml: not valid YAML"),
    ],
)
def test_wrong_files_are_named(tmp_path, text, message):
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_yaml(tmp_path / "own.yaml")


def test_a_file_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "own.yaml").write_bytes(b"a: \xe9\n")
    with pytest.raises(ConfigError, match="own.yaml: not UTF-8"):
        load_yaml(tmp_path / "own.yaml")


def test_a_merged_anchor_gives_keys_that_may_be_given_again(tmp_path):
    path = tmp_path / "merged.yaml"
    path.write_text("one: &one {a: 1, b: 2}\nother: {<<: *one, b: 3}\n")
    assert load_yaml(path)["other"] == {"a": 1, "b": 3}


def test_values_of_any_kind_may_be_true_or_false():
    @dataclass
    class Row:
        options: dict[str, object]

    given = {"continue_schedule": True, "gate": {"beta": 0.5}}
    assert to_dataclass(Row, {"options": given}, "systems.yaml").options == given


@pytest.mark.parametrize("value", [None, "l0", ["a"]])
def test_what_is_no_mapping_is_named(value):
    with pytest.raises(ConfigError, match="f.yaml: a mapping of keys was expected, not"):
        to_dataclass(Outer, value, "f.yaml")
