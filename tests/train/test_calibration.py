"""The utterances that a method looks at, read from a training set."""

from pathlib import Path
from types import SimpleNamespace

import mini_recipe
import pytest
import soundfile
import torch
from tiny_models import encoder, passes_of

from espnet_prune.data.kaldi_dir import read_map
from espnet_prune.methods import make_method
from espnet_prune.models.tokens import make_any_tokens
from espnet_prune.models.whisper.get_whisper import get_whisper
from espnet_prune.models.whisper.tokens import WhisperText
from espnet_prune.surgery import inject
from espnet_prune.surgery.rounding import FORMS, nearest
from espnet_prune.train import calibration
from espnet_prune.train.calibration import _utterances


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, repository) -> Path:
    folder = tmp_path_factory.mktemp("calibration")
    mini_recipe.write_recipe(folder, repository)
    return folder


def drawn(recipe: Path, number: int, seed: int) -> list[dict[str, torch.Tensor]]:
    return _utterances({}, recipe / "dump/train", recipe / "data/tokens", number, seed, "cpu")


def samples(batches: list) -> list[int]:
    return [int(batch["speech_lengths"]) for batch in batches]


def test_an_utterance_is_its_recording_and_its_transcript(recipe):
    recordings = read_map(recipe / "dump/train/wav.scp")
    texts = read_map(recipe / "dump/train/text")
    length_of = {soundfile.info(path).frames: key for key, path in recordings.items()}
    batches = drawn(recipe, 5, seed=0)
    assert len(batches) == 5
    for batch in batches:
        key = length_of[int(batch["speech_lengths"])]
        expected, _ = soundfile.read(recordings[key], dtype="float32")
        assert torch.equal(batch["speech"], torch.from_numpy(expected)[None])
        assert int(batch["text_lengths"]) == len(texts[key])  # tokens are characters


def test_the_seed_draws_them_and_their_order(recipe):
    assert samples(drawn(recipe, 8, 1)) == samples(drawn(recipe, 8, 1))
    assert samples(drawn(recipe, 8, 1)) != samples(drawn(recipe, 8, 2))
    everything = samples(drawn(recipe, 100, 1))
    assert len(set(everything)) == 16
    assert everything != sorted(everything)


def test_tokens_of_whisper_are_those_that_it_trains_on(recipe, tmp_path):
    get_whisper("random", tmp_path / "whisper")
    make_any_tokens(
        recipe / "dump/train/text", tmp_path, "hugging_face", 30, str(tmp_path / "whisper")
    )
    batches = _utterances({}, recipe / "dump/train", tmp_path, 2, 0, "cpu")
    words = WhisperText(tmp_path / "tokenizer.json", multilingual=False)
    expected = [words.ids(text) for text in read_map(recipe / "dump/train/text").values()]
    assert all(batch["text"][0].tolist() in expected for batch in batches)


def test_directions_that_were_found_on_data_reach_the_cut(tmp_path, monkeypatch):
    method = make_method("low_rank", target=0.4)
    gated = inject(encoder(), method).eval()
    passes = passes_of(gated, 2)
    monkeypatch.setattr(calibration, "_gated_and_passes", lambda *unused: (gated, passes))
    calibration.choose_masks(SimpleNamespace(build_method=lambda: method), tmp_path, ngpu=0)
    fresh = inject(encoder(), method).eval()
    name = "encoders.0.feed_forward.w_1.basis"
    assert not torch.equal(fresh.model.state_dict()[name], gated.model.state_dict()[name])
    calibration.take_weights(fresh, tmp_path)
    assert torch.equal(fresh.model.state_dict()[name], gated.model.state_dict()[name])


def test_the_order_of_gates_is_found_again_by_another_configuration_alone(tmp_path, monkeypatch):
    """As of a run that was killed before its first checkpoint, and begun again otherwise."""
    method = make_method("l0_distill", {"gate": {"order": "fisher"}}, target=0.4)
    gated, asked = inject(encoder(), method).eval(), []

    def found(*unused):
        asked.append(len(asked))
        return gated, passes_of(gated, 2)

    monkeypatch.setattr(calibration, "_gated_and_passes", found)
    config = SimpleNamespace(build_method=lambda: method)
    for seed, times in ((0, 1), (0, 1), (1, 2)):
        calibration.write_order(config, tmp_path, 0, {"seed": seed})
        assert len(asked) == times


def test_weights_that_make_good_what_goes_reach_the_cut(tmp_path, monkeypatch):
    method = make_method("numerical", target=0.4)
    gated = inject(encoder(), method).eval()
    passes = passes_of(gated, 2)
    monkeypatch.setattr(calibration, "_gated_and_passes", lambda *unused: (gated, passes))
    calibration.choose_masks(SimpleNamespace(build_method=lambda: method), tmp_path, ngpu=0)
    fresh = inject(encoder(), method).eval()
    calibration.take_weights(fresh, tmp_path)
    stock, found = encoder().state_dict(), fresh.model.state_dict()
    assert all(value.equal(found[name]) for name, value in gated.model.state_dict().items())
    changed = {name for name, value in found.items() if not value.equal(stock[name])}
    assert changed and len(changed) < len(found) / 4
    assert set(calibration.load_file(tmp_path / calibration.WEIGHTS)) == changed
    sparsity = gated.budget.sparsity(gated.budget.hard(calibration.read_masks(tmp_path)))
    assert float(sparsity) == pytest.approx(0.4, abs=0.005)


def test_eight_bits_ask_for_no_utterance():
    model = encoder(output_size=64)
    before = model.encoders[0].self_attn.linear_q.weight.clone()
    folders = SimpleNamespace(train=Path("nowhere"), tokens=Path("nowhere"))
    stage = SimpleNamespace(training={})
    calibration.round_on_data(model, 8, SimpleNamespace(folders=folders, prune=stage, seed=0))
    assert model.encoders[0].self_attn.linear_q.weight.equal(nearest(before, FORMS[8])[0])
