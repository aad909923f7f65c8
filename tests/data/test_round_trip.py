"""Tokens give back every training text, or stage 4 says which they change."""

import logging
import unicodedata
from pathlib import Path

import pytest
import sentencepiece

from espnet_prune.cli import main
from espnet_prune.data.round_trip import check_round_trip
from espnet_prune.errors import DataError
from espnet_prune.io_atomic import write_json
from espnet_prune.record import MARK

# What Unicode's compatibility normal form would change, one kind a text.
CHANGED_BY_NFKC = {
    "a ligature of Armenian": "ես և դու",
    "marks behind their letters": unicodedata.normalize("NFD", "où était élève"),
    "full-width letters": "ａｂｃ ｄｅ",
    "presentation forms of Arabic": "ﻻ ﷲ",
    "units and superscripts": "㎏ m²",
    "letters of Hangul one by one": unicodedata.normalize("NFD", "한국어 말"),
    "a vowel of Thai": "กำ นำ",
    "a joiner": "नमस्\u200dते जी",
}


def make(folder: Path, *texts: str, kind: str = "bpe", size: int = 60) -> int:
    lines = [f"u{number:02d} {text}\n" for number, text in enumerate(texts)]
    (folder / "text").write_text("".join(lines), encoding="utf-8")
    command = ["--text", folder / "text", "--out", folder / "tokens"]
    command += ["--type", kind, "--vocab_size", size]
    return main(["make_tokens", *(str(word) for word in command)])


@pytest.mark.parametrize("text", CHANGED_BY_NFKC.values(), ids=CHANGED_BY_NFKC.keys())
def test_pieces_give_back_what_unicode_s_normal_form_would_change(text, tmp_path):
    characters = len(set(text) | {" "}) + 2
    assert unicodedata.normalize("NFKC", text) != text or "\u200d" in text
    assert make(tmp_path, text, f"{text} {text}", size=characters) == 0
    model = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokens/bpe.model"))
    assert model.decode(model.encode(text)) == text


@pytest.mark.parametrize("kind", ["bpe", "char"])
def test_tags_and_names_of_special_tokens_come_back(kind, tmp_path):
    texts = ["<noise> a [laughter]", "x<blank>y <unk> z", "<space> <sos/eos>"]
    assert make(tmp_path, *texts, kind=kind) == 0


def test_what_the_pieces_cannot_write_is_named(tmp_path, capsys):
    assert make(tmp_path, "one ▁two", "three", "one ▁two", size=20) == 2
    message = capsys.readouterr().err
    assert "text: the tokens of" in message and "can't write 1 of 2 different texts" in message
    assert "'u00': 'one ▁two' as 'one two'" in message
    assert "lost: U+2581 LOWER ONE EIGHTH BLOCK" in message
    assert not (tmp_path / "tokens" / MARK).exists()


def test_a_text_too_long_for_sentencepiece_s_default_is_learned(tmp_path):
    """Its rare letters would be unknown, as it would be left out of the training."""
    assert make(tmp_path, "a b c " * 1000 + "q", "a b", size=9) == 0
    assert "q" in (tmp_path / "tokens/tokens.txt").read_text()


def test_words_in_two_forms_that_look_alike_are_named(tmp_path, caplog):
    composed = "élève"
    with caplog.at_level(logging.WARNING):
        assert make(tmp_path, composed, unicodedata.normalize("NFD", composed), size=14) == 0
    assert "1 words are written by different characters that look alike (élève)" in caplog.text


def test_tokens_of_an_earlier_version_are_proven_when_they_are_used(tmp_path, capsys):
    assert make(tmp_path, "ես և դու", "նա և նա", size=20) == 0
    assert make(tmp_path, "ես և դու", "նա և նա", size=20) == 0
    lines = (tmp_path / "tokens/tokens.txt").read_text().splitlines(keepends=True)
    kept = (line for line in lines if "և" not in line)
    (tmp_path / "tokens/tokens.txt").write_text("".join(kept))
    assert make(tmp_path, "ես և դու", "նա և նա", size=20) == 2
    assert "can't write 2 of 2 different texts" in capsys.readouterr().err


def test_tokens_of_a_trained_model_that_write_the_other_case(tmp_path):
    assert make(tmp_path, "yes no", "go", kind="char") == 0
    texts = {"a": "YES", "b": "NO GO"}
    with pytest.raises(DataError, match="--text_case lower writes them as these tokens do"):
        check_round_trip(tmp_path / "tokens", texts, tmp_path / "text", given=True)


def test_what_a_trained_model_s_tokens_lack_is_named(tmp_path, caplog):
    assert make(tmp_path, "yes no", "go", kind="char") == 0
    texts = {"a": "yes", "b": "no 5"}
    with caplog.at_level(logging.WARNING):
        check_round_trip(tmp_path / "tokens", texts, tmp_path / "text", given=True)
    assert "can't write 1 of 2 different texts: 'b'" in caplog.text
    assert "lost: U+0035 DIGIT FIVE" in caplog.text
    with pytest.raises(DataError, match="can't write 1 of 2"):
        check_round_trip(tmp_path / "tokens", texts, tmp_path / "text")


def test_words_as_tokens(tmp_path):
    (tmp_path / "tokens.txt").write_text("<blank>\n<unk>\nyes\nno\n<sos/eos>\n")
    write_json(tmp_path / "tokens.json", {"type": "word", "vocab_size": 5, "model": None})
    check_round_trip(tmp_path, {"a": "yes no"}, tmp_path / "text")
    with pytest.raises(DataError, match="'yes go' as 'yes'"):
        check_round_trip(tmp_path, {"a": "yes go"}, tmp_path / "text")
