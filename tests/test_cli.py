"""One command: it lists its verbs at once, knows them all, and explains every option."""

import subprocess
import sys

import pytest

from espnet_prune import cli
from espnet_prune.errors import ConfigError

OWN_PARSERS = [name for name, verb in cli.verbs().items() if not verb.passes_on]


def test_help_lists_every_verb(capsys):
    assert cli.main(["--help"]) == cli.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in cli.verbs():
        assert any(line.startswith(f"  {name} ") for line in lines), name


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from espnet_prune.cli import main; main(['--help'])\n"
        "heavy = {'torch', 'numpy', 'espnet2', 'transformers', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", OWN_PARSERS)
def test_every_option_of_a_verb_is_explained(name, capsys):
    parser = cli.get_parser(name)
    assert all(action.help for action in parser._actions)
    with pytest.raises(SystemExit) as ended:
        cli.run([name, "--help"])
    assert not ended.value.code and f"usage: espnet-prune {name}" in capsys.readouterr().out


def test_an_unknown_verb_is_named_with_the_nearest(capsys):
    assert cli.main(["prun"]) == 2
    assert "no verb 'prun' (did you mean 'prune'?)" in capsys.readouterr().err
    with pytest.raises(ConfigError):
        cli.run(["nothing_like_it"])


def test_a_package_that_is_missing_is_named_with_what_brings_it(capsys, monkeypatch):
    def without(given):
        raise ModuleNotFoundError("No module named 'espnet2.tasks'", name="espnet2.tasks")

    monkeypatch.setattr("espnet_prune.data.verbs.list_chapters", without)
    assert cli.main(["list_chapters", "."]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: espnet2.tasks is missing; install it: pip install ")


def test_a_mistake_of_the_program_is_not_called_a_missing_package(monkeypatch):
    def mistaken(given):
        raise ModuleNotFoundError(
            "No module named 'espnet_prune.nothing'", name="espnet_prune.nothing"
        )

    monkeypatch.setattr("espnet_prune.data.verbs.list_chapters", mistaken)
    with pytest.raises(ModuleNotFoundError):
        cli.main(["list_chapters", "."])


@pytest.mark.parametrize("name", OWN_PARSERS)
def test_no_help_begins_as_half_a_sentence(name):
    helps = [action.help for action in cli.get_parser(name)._actions]
    assert [text for text in helps if text.startswith("of ")] == []
