"""A pretrained model that another one replaced is noticed by the stages that start from it."""

import pytest

from espnet_prune.cli import get_parser, run
from espnet_prune.config import load_yaml
from espnet_prune.errors import ConfigError
from espnet_prune.record import (
    MODEL_FILES,
    TOKENIZER_FILES,
    contents_digest,
    contents_of,
    mark_finished,
)
from espnet_prune.train import teacher


@pytest.fixture
def whisper(tmp_path):
    """A folder that looks like a pretrained model's; nothing here loads it."""
    folder = tmp_path / "whisper"
    folder.mkdir()
    for name in ("config.json", "generation_config.json", "tokenizer.json", "model.safetensors"):
        (folder / name).write_text(f"contents of {name}")
    return folder


@pytest.mark.parametrize(
    "changed, model, tokenizer",
    [
        ("model.safetensors", True, False),
        ("tokenizer.json", False, True),
        ("config.json", True, True),
        ("README.md", False, False),
    ],
)
def test_contents_are_those_of_the_files_that_count(whisper, changed, model, tokenizer):
    before = [contents_digest(whisper, files) for files in (MODEL_FILES, TOKENIZER_FILES)]
    (whisper / changed).write_text("another")
    after = [contents_digest(whisper, files) for files in (MODEL_FILES, TOKENIZER_FILES)]
    assert [a != b for a, b in zip(after, before, strict=True)] == [model, tokenizer]


def test_names_on_the_hub_add_nothing():
    for name in ("openai/whisper-tiny.en", None, {"d_model": 4}):
        assert contents_of(name, MODEL_FILES) == {}


def test_a_teacher_of_a_replaced_model_is_refused_by_its_name(whisper, tmp_path):
    config, out = tmp_path / "teacher.yaml", tmp_path / "teacher"
    config.write_text(f"encoder: whisper_hf\nencoder_conf: {{model: {whisper}}}\nmax_epoch: 0\n")
    out.mkdir()
    folders = ("train", "valid", "tokens", "stats")
    command = [f"--config={config}", f"--out={out}", *(f"--{f}={tmp_path}" for f in folders)]
    args = get_parser("train_teacher").parse_args(command)
    mark_finished(out, teacher._made_by(args, load_yaml(config)))
    assert run(["train_teacher", *command]) == 0
    (whisper / "model.safetensors").write_text("another model")
    with pytest.raises(ConfigError, match=f"contents of {whisper}.*remove this folder"):
        run(["train_teacher", *command])


def test_tokens_of_a_replaced_tokenizer_are_refused(whisper, tmp_path, monkeypatch):
    made = []
    for played in ("make_any_tokens", "check_texts"):
        monkeypatch.setattr(
            f"espnet_prune.models.tokens.{played}", lambda *a, by=played: made.append(by) or ["a"]
        )
    (tmp_path / "text").write_text("a b\n")
    command = ["--text", str(tmp_path / "text"), "--out", str(tmp_path / "tokens")]
    command += ["--type", "hugging_face", "--tokenizer", str(whisper)]
    assert run(["make_tokens", *command]) == run(["make_tokens", *command]) == 0
    assert made == ["make_any_tokens", "check_texts"]
    (whisper / "tokenizer.json").write_text("another")
    with pytest.raises(ConfigError, match=f"contents of {whisper}"):
        run(["make_tokens", *command])
