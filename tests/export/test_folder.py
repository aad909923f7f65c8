"""A new folder takes the place of an earlier one of the same sort, and of nothing else."""

import json

import pytest
from torch import nn

from espnet_prune.cli import main
from espnet_prune.errors import ConfigError
from espnet_prune.export.folder import (
    DESCRIPTION,
    GRAPH,
    SCHEMA,
    TOKENS,
    others_than_export,
)
from espnet_prune.io_atomic import new_folder
from espnet_prune.models.whisper import from_ct2 as whisper_ct2

ABOUT = json.dumps({"schema": SCHEMA, "kind": "ctc_speech", "max_difference": {}})


def content_of(folder) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def export(folder, graph: str) -> None:
    """What an export does, in short."""
    with new_folder(folder, others_than_export, "an export") as new:
        (new / GRAPH).write_text(graph)
        (new / DESCRIPTION).write_text(ABOUT)


def test_what_a_link_leads_to_is_replaced(tmp_path):
    export(tmp_path / "real", "first")
    (tmp_path / "link").symlink_to("real")
    export(tmp_path / "link", "second")
    assert (tmp_path / "link").is_symlink()
    assert content_of(tmp_path / "real") == {GRAPH: "second", DESCRIPTION: ABOUT}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]


@pytest.mark.parametrize(
    "content",
    [
        {TOKENS: "mine", "bpe.model": "mine"},
        {TOKENS: "mine", DESCRIPTION: "no JSON"},
        {TOKENS: "mine", DESCRIPTION: "[]"},
        {TOKENS: "mine", DESCRIPTION: '{"schema": 1, "kind": "espnet_asr"}'},
        {TOKENS: "mine", DESCRIPTION: '{"schema": 2, "kind": "ctc_speech"}'},
    ],
)
def test_files_of_an_exports_names_are_no_export(tmp_path, content):
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match="other files than an export .*choose another folder"):
        export(tmp_path, "new")
    assert content_of(tmp_path) == content


def test_an_interruption_leaves_the_earlier_export(tmp_path, monkeypatch):
    export(tmp_path / "onnx", "first")
    replace = type(tmp_path).replace

    def stop(path, target):
        if path.suffix == ".tmp":
            raise KeyboardInterrupt
        return replace(path, target)

    monkeypatch.setattr(type(tmp_path), "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        export(tmp_path / "onnx", "second")
    assert content_of(tmp_path / "onnx")[GRAPH] == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["onnx"]


def test_a_file_above_the_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match="is a file; a folder was expected"):
        export(tmp_path / "file/onnx", "new")


@pytest.fixture
def convert(tmp_path, monkeypatch, capsys):
    """Gives the command a converter that writes two files; returns the status and the error."""

    def converter(source, folder):
        for name in ("config.json", "tokenizer.json"):
            (folder / name).write_text("new")
        return nn.Linear(2, 2)

    monkeypatch.setattr(whisper_ct2, "convert_whisper", converter)

    def run(out):
        status = main(["convert_whisper", str(tmp_path / "ct2"), str(out)])
        return status, capsys.readouterr().err

    return run


def test_a_conversion_is_made_again_but_not_over_other_files(convert, tmp_path):
    assert convert(tmp_path / "out") == convert(tmp_path / "out") == (0, "")
    assert content_of(tmp_path / "out")["config.json"] == "new"
    (tmp_path / "out/notes.txt").write_text("mine")
    status, error = convert(tmp_path / "out")
    assert status == 2 and "other files than a conversion (notes.txt)" in error
    assert (tmp_path / "out/notes.txt").read_text() == "mine"


def test_a_conversion_takes_no_exports_place(convert, tmp_path):
    export(tmp_path / "onnx", "first")
    status, error = convert(tmp_path / "onnx")
    assert status == 2 and "other files than a conversion" in error
    assert content_of(tmp_path / "onnx")[GRAPH] == "first"
