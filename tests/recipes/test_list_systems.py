"""The names that the driver loops over."""

import pytest

from espnet_prune.bin.list_systems import main, system_names
from espnet_prune.errors import ConfigError


def test_all_or_chosen_names_in_order(tmp_path, capsys):
    path = tmp_path / "systems.yaml"
    path.write_text("systems: {b: {}, a: {}}\n")
    assert system_names(path) == ["b", "a"]
    assert main(["--systems", str(path), "--only", "a"]) == 0
    assert capsys.readouterr().out == "a\n"


@pytest.mark.parametrize(
    ("text", "only", "expected"),
    [
        ("system: {a: {}}\n", None, "key 'systems'"),
        ("systems: {}\n", None, "at least one"),
        ("systems: {teacher: {}}\n", None, "can't be called 'teacher'"),
        ("systems: {l0_50: {}}\n", "l0_5", "did you mean 'l0_50'"),
    ],
)
def test_errors(tmp_path, text, only, expected):
    path = tmp_path / "systems.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=expected):
        system_names(path, only)
