"""The synthetic corpus: disjoint, the same by seed, and wrong settings named."""

import dataclasses
import errno
import random
import re
import shutil
from pathlib import Path

import numpy
import pytest
import soundfile

from espnet_prune.cli import main
from espnet_prune.config import load_yaml, to_dataclass
from espnet_prune.data import synth
from espnet_prune.data.kaldi_dir import read_data
from espnet_prune.data.validate import validate
from espnet_prune.errors import ConfigError, EnvironmentProblem

SMALL = synth.Corpus(sets={"train": 6, "dev": 3, "test": 3})
needs_flite = pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")


@pytest.fixture
def tone(monkeypatch):
    """Every utterance is a short tone, so that no flite is needed."""
    monkeypatch.setattr(synth, "check_voices", lambda corpus, where: None)
    monkeypatch.setattr(synth, "speak", lambda u: 0.1 * numpy.sin(numpy.arange(800) * 0.1))


def files_below(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_default_sets_are_disjoint_and_have_the_sizes_asked_for(tmp_path):
    corpus = synth.Corpus()
    sets = synth.plan(corpus, tmp_path)
    texts = [u.text for utterances in sets.values() for u in utterances]
    assert {name: len(utterances) for name, utterances in sets.items()} == corpus.sets
    assert len(set(texts)) == len(texts)


def test_default_vocabulary_is_small_and_the_test_set_has_no_new_words(tmp_path):
    sets = synth.plan(synth.Corpus(), tmp_path)
    words = {name: {w for u in sets[name] for w in u.text.split()} for name in sets}
    assert 60 <= len(words["train"]) <= 100
    assert words["test"] <= words["train"] and words["dev"] <= words["train"]


def test_recipe_configuration_is_valid_and_its_sets_alike(repository, tmp_path):
    path = repository / "egs/synth/l0_conformer1/conf/corpus.yaml"
    corpus = to_dataclass(synth.Corpus, load_yaml(path), str(path))
    synth.check(corpus, str(path))
    sets = synth.plan(corpus, tmp_path, str(path))
    spelled = {
        name: sum(u.text.startswith("SPELL ") for u in sets[name]) / len(sets[name])
        for name in ("train", "test")
    }
    assert spelled["test"] == pytest.approx(spelled["train"], abs=0.1)


def test_same_seed_same_plan_and_another_seed_another(tmp_path):
    other = dataclasses.replace(SMALL, seed=2)
    assert synth.plan(SMALL, tmp_path) == synth.plan(SMALL, tmp_path)
    one, two = ([u.text for u in synth.plan(c, tmp_path)["train"]] for c in (SMALL, other))
    assert one != two


def test_ranges_hold_for_every_utterance(tmp_path):
    corpus = dataclasses.replace(synth.Corpus(), snr_db=(3.0, 4.0), duration_stretch=(0.9, 1.0))
    for utterances in synth.plan(corpus, tmp_path).values():
        for u in utterances:
            assert 3.0 <= u.snr_db <= 4.0 and 0.9 <= u.duration_stretch <= 1.0
            assert 0.89 <= u.pitch_hz / corpus.voices[u.voice] <= 1.11


def test_letters_are_spoken_as_letters():
    assert synth.spoken("SPELL A B") == "spell A B"


@pytest.mark.parametrize("snr_db", [0.0, 20.0])
def test_noise_has_the_ratio_asked_for(snr_db):
    clean = numpy.sin(numpy.arange(16000) * 0.05)
    noise = synth.add_noise(clean, snr_db, (1, 2)) - clean
    assert 10 * numpy.log10(numpy.mean(clean**2) / numpy.mean(noise**2)) == pytest.approx(snr_db)


def test_no_noise_leaves_the_samples(tmp_path):
    clean = numpy.sin(numpy.arange(100) * 0.05)
    assert synth.add_noise(clean, None, (1, 2)) is clean


def test_loud_noise_is_not_clipped(tmp_path, monkeypatch):
    monkeypatch.setattr(synth, "speak", lambda u: 0.9 * numpy.sin(numpy.arange(8000) * 0.1))
    corpus = dataclasses.replace(SMALL, snr_db=(-10.0, -10.0))
    utterance = synth.plan(corpus, tmp_path)["train"][0]
    synth.make(utterance)
    samples, _ = soundfile.read(utterance.path)
    assert numpy.abs(samples).max() == pytest.approx(synth.PEAK, abs=1e-3)


@needs_flite
def test_corpus_is_valid_and_the_same_again(tmp_path):
    for name in ("a", "b"):
        synth.prepare(SMALL, tmp_path / name, jobs=2 if name == "a" else 1)
    for set_name, count in SMALL.sets.items():
        data, _ = validate(tmp_path / "a" / set_name)
        assert len(data.texts) == count
        for utterance, entry in data.recordings.items():
            assert soundfile.info(entry).subtype == "PCM_16"
            again = tmp_path / "b" / set_name / "audio" / f"{utterance}.wav"
            assert Path(entry).read_bytes() == again.read_bytes()
        for file in ("text", "utt2spk", "spk2utt"):
            one, two = (tmp_path / n / set_name / file for n in ("a", "b"))
            assert one.read_text() == two.read_text()


@needs_flite
def test_voice_that_flite_lacks_is_named(tmp_path):
    corpus = dataclasses.replace(SMALL, voices={"slt2": 174.0})
    with pytest.raises(ConfigError, match=r"voices: 'slt2' is not known \(did you mean 'slt'"):
        synth.prepare(corpus, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_finished_corpus_is_not_made_again(tmp_path, tone, monkeypatch):
    assert set(synth.prepare(SMALL, tmp_path)) == set(SMALL.sets)
    before = files_below(tmp_path)
    monkeypatch.setattr(synth, "make", None)
    assert synth.prepare(SMALL, tmp_path) == {}
    assert files_below(tmp_path) == before


def test_another_corpus_in_the_folder_is_an_error_that_names_the_key(tmp_path, tone):
    synth.prepare(SMALL, tmp_path)
    with pytest.raises(ConfigError, match="seed: 1 -> 2"):
        synth.prepare(dataclasses.replace(SMALL, seed=2), tmp_path)


def test_interrupted_corpus_is_completed_by_the_same_command(tmp_path, tone, monkeypatch):
    make, made = synth.make, []

    def stop_at_the_third(utterance):
        made.append(utterance)
        if len(made) == 3:
            raise KeyboardInterrupt
        return make(utterance)

    monkeypatch.setattr(synth, "make", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        synth.prepare(SMALL, tmp_path)
    assert not (tmp_path / "train" / "wav.scp").exists()
    monkeypatch.setattr(synth, "make", make)
    synth.prepare(SMALL, tmp_path)
    assert len(read_data(tmp_path / "train").texts) == SMALL.sets["train"]


def test_full_disk_names_the_file_and_leaves_no_half(tmp_path, tone, monkeypatch):
    def write_some(path, content):
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_some)
    with pytest.raises(EnvironmentProblem, match=r"train-00000\.wav: no space left"):
        synth.prepare(SMALL, tmp_path)
    assert files_below(tmp_path) == {}


def test_missing_flite_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentProblem, match="apt-get install flite"):
        synth.prepare(SMALL, tmp_path / "data")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("script", "message"),
    [("echo broken >&2; exit 3", "failed with status 3: broken"), ("exit 0", "gave no sound")],
)
def test_flite_that_fails_is_named(tmp_path, monkeypatch, script, message):
    flite = tmp_path / "flite"
    flite.write_text(f"#!/bin/sh\n{script}\n")
    flite.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentProblem, match=message):
        synth.speak(synth.plan(SMALL, tmp_path)["train"][0])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("sed: 1", r"corpus\.yaml: unknown key 'sed' \(did you mean 'seed'\?\)"),
        ("seed: one", r"seed: int was expected, not 'one'"),
        ("seed: -1", r"seed: -1 is out of range"),
        ("sets: {train: 0}", r"sets\.train: 0 is out of range"),
        ("sets: {}", r"sets: at least one"),
        ("sets: {a/b: 1}", r"sets: 'a/b' is not a name"),
        ("voices: {}", r"voices: at least one"),
        ("voices: {slt: 5}", r"voices\.slt \(Hz\): 5\.0 is out of range"),
        ("kinds: {comand: 1}", r"kinds: 'comand' is not known \(did you mean 'command'\?\)"),
        ("kinds: {command: 0}", r"kinds: at least one"),
        ("pitch_ratio: [1.1, 0.9]", r"pitch_ratio: \[lowest, highest\] was expected"),
        ("duration_stretch: [1.0]", r"duration_stretch: \[lowest, highest\] was expected"),
        ("snr_db: [5, 500]", r"snr_db: 500\.0 is out of range"),
    ],
)
def test_wrong_settings_are_one_clear_line(tmp_path, capsys, line, message):
    config = tmp_path / "corpus.yaml"
    config.write_text(line + "\n")
    arguments = ["--out", str(tmp_path / "data"), "--config", str(config)]
    assert main(["prepare_synth", *arguments]) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert error.startswith("error: ") and str(config) in error
    assert re.search(message, error)
    assert not (tmp_path / "data").exists()


def test_more_sentences_than_the_grammar_has_is_an_error():
    corpus = synth.Corpus(sets={"train": 7000}, kinds={"command": 1.0})
    with pytest.raises(ConfigError, match=r"c\.yaml: sets: 7000 utterances .* different sentences"):
        synth.draw_sentences(corpus, random.Random(1), "c.yaml")
