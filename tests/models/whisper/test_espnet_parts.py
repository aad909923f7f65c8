"""Whisper as encoder and decoder of an ESPnet model: tokens, loss, cut, save, load, decoding."""

import logging

import numpy
import pytest
import soundfile
import torch
from tiny_models import ENCODER, AllSites

from espnet_prune.cli import run
from espnet_prune.data.kaldi_dir import DataSet, write_data
from espnet_prune.decode.decode_config import DecodeConfig
from espnet_prune.decode.recogniser import open_recogniser
from espnet_prune.errors import ConfigError, DataError, ModelError
from espnet_prune.methods import make_method, options_of
from espnet_prune.models.espnet.build import build_asr_model
from espnet_prune.models.espnet.features import random_outputs
from espnet_prune.models.tokens import make_any_tokens
from espnet_prune.models.whisper import decoding as whisper_decoding
from espnet_prune.models.whisper.espnet_parts import whisper_of
from espnet_prune.models.whisper.preprocessing import WhisperPreprocessor
from espnet_prune.models.whisper.quiet import GENERATION, ITS_OWN, without_its_own_warning
from espnet_prune.models.whisper.tokens import WhisperText
from espnet_prune.score.probe import Probe
from espnet_prune.score.sensitivity import (
    SensitivityConfig,
    chosen_utterances,
    sensitivity,
)
from espnet_prune.surgery import cut, inject, load, plan_of, save
from espnet_prune.surgery.holding import holding
from espnet_prune.surgery.plan import encoder_blocks
from espnet_prune.surgery.sparse import count_zeroed
from espnet_prune.train.distilled_model import DistilledModel
from espnet_prune.train.system import write_model
from espnet_prune.train.training import token_options

SECONDS = 0.5
KINDS = ["head", "feed_forward_unit", "branch"]


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    """A folder of transformers with a tiny random Whisper."""
    folder = tmp_path_factory.mktemp("whisper") / "downloads/whisper"
    assert run(["get_whisper", "--whisper", "random", "--out", str(folder)]) == 0
    assert run(["get_whisper", "--whisper", "random", "--out", str(folder)]) == 0  # there already
    return folder


@pytest.fixture(scope="module")
def tokens(whisper, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokens")
    (folder / "text").write_text("a A LONG ONE\nb SHORT\n")
    make_any_tokens(folder / "text", folder, "hugging_face", 30, str(whisper))
    return folder


@pytest.fixture
def model(whisper, tokens):
    """The ESPnet model."""
    parts = {"model": str(whisper)}
    special = {"sym_sos": "<|startoftranscript|>", "sym_eos": "<|endoftext|>"}
    return build_asr_model(
        {
            "frontend": None,
            "input_size": 1,
            "normalize": None,
            "specaug": None,
            "encoder": "whisper_hf",
            "encoder_conf": parts,
            "decoder": "whisper_hf",
            "decoder_conf": parts,
            "model_conf": {"ctc_weight": 0.0, "lsm_weight": 0.0, **special},
            **token_options(tokens),
        }
    ).eval()


def method(name, target=0.3, **options):
    options = options_of(name, {"sites": KINDS, **options})
    return make_method(name, options, target=target, updates=4)


def batch(tokens):
    """Two recordings of noise with texts."""
    prepare = WhisperPreprocessor(str(tokens / "tokenizer.json"), multilingual=False)
    texts = [torch.tensor(prepare("x", {"text": t})["text"]) for t in ("A LONG ONE", "SHORT")]
    lengths = torch.tensor([len(t) for t in texts])
    text = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True, padding_value=-1)
    speech = 0.1 * torch.randn(2, 8000, generator=torch.Generator().manual_seed(1))
    return speech, torch.tensor([8000, 6000]), text, lengths


def test_text_goes_to_ids_behind_the_prefix_and_back(tokens):
    words = WhisperText(tokens / "tokenizer.json", multilingual=False)
    ids = words.ids("HELLO Café")
    assert ids[0] == words.tokenizer.token_to_id("<|notimestamps|>")
    assert words.text([*ids, words.tokenizer.token_to_id("<|endoftext|>")]) == "hello café"


def test_loss_is_that_of_transformers(model, tokens):
    speech, lengths, text, text_lengths = batch(tokens)
    loss, stats, _ = model(speech, lengths, text.clone(), text_lengths)
    whole = whisper_of(model)
    labels = torch.full((2, text.shape[1] + 1), -100)
    for row, (ids, number) in enumerate(zip(text, text_lengths.tolist(), strict=True)):
        labels[row, :number] = ids[:number]
        labels[row, number] = model.eos
    features = model.encoder.features(speech, lengths)
    starts = torch.cat([torch.full((2, 1), model.sos), labels[:, :-1].clamp_min(0)], dim=1)
    theirs = whole(input_features=features, decoder_input_ids=starts, labels=labels).loss
    count = int((labels != -100).sum())
    of_an_utterance = float(theirs.detach()) * count / 2  # as ESPnet has it
    assert float(loss.detach()) == pytest.approx(of_an_utterance, rel=1e-4)
    assert set(stats) >= {"loss_att", "acc"}


@pytest.mark.parametrize("name", ["uniform_magnitude", "self_pinching_weights", "l0_distill"])
def test_cut_equals_masked_saves_loads_and_decodes(model, name, tmp_path):
    chosen = method(name, budget={"tolerance": 0.05})
    gated = inject(model, chosen).eval()
    masks = chosen.masks(gated)
    with holding(gated, masks):
        masked = random_outputs(gated.model, SECONDS, decoder=True)
    small = cut(gated, masks).eval()
    torch.testing.assert_close(
        random_outputs(small, SECONDS, decoder=True), masked, atol=1e-5, rtol=1e-4
    )
    open_again = random_outputs(load_again(model, tmp_path), SECONDS, decoder=True)
    assert (masked - open_again).abs().max() > 1e-2  # far beyond rounding
    parts = [count_zeroed(small, part) for part in (small.encoder, small.decoder)]
    assert sum(parts) == count_zeroed(small)
    assert all(parts) if name == "self_pinching_weights" else not any(parts)
    write_model(small, tmp_path / "model")
    loaded = load(tmp_path / "model")
    assert torch.equal(
        random_outputs(loaded, SECONDS, decoder=True), random_outputs(small, SECONDS, decoder=True)
    )
    assert (plan_of(loaded) is None) == (name == "self_pinching_weights")
    recogniser = open_recogniser(tmp_path / "model", DecodeConfig(modes=("greedy",)))
    samples = (3000 * numpy.random.default_rng(0).normal(size=8000)).astype("int16")
    text = recogniser.transcribe(samples, "greedy")
    assert not (tmp_path / "model/espnet").exists()  # stock ESPnet knows no Whisper
    alone = load(save(whisper_of(loaded), tmp_path / "alone"))  # transformers' own class
    features = loaded.encoder.features(torch.from_numpy(samples / 32768.0).float()[None], LENGTH)
    ids = alone.generate(features, do_sample=False, num_beams=1, max_new_tokens=21)
    assert " ".join(recogniser.words.text(ids[0].tolist()).split()) == text
    with pytest.raises(ModelError, match="joint"):
        recogniser.transcribe(samples, "joint")


def test_blocks_and_channels_of_the_front_end_go_too(model, tokens, tmp_path):
    teacher = load_again(model, tmp_path)
    gated = inject(model, AllSites(learned=False)).eval()
    for name in ("encoder.block.0", "decoder.block.0"):
        gated.gate(name).set(torch.zeros(1))
    channels = gated.gate("front_end.0")
    channels.set((torch.arange(channels.units) % 3 > 0).float() * 0.9)
    masked = random_outputs(gated.model, SECONDS, decoder=True)
    small = cut(gated)
    torch.testing.assert_close(
        random_outputs(small, SECONDS, decoder=True), masked, atol=1e-5, rtol=1e-4
    )
    write_model(small, tmp_path / "model")
    loaded = load(tmp_path / "model")
    assert torch.equal(
        random_outputs(loaded, SECONDS, decoder=True), random_outputs(small, SECONDS, decoder=True)
    )
    assert encoder_blocks(loaded) == [1] and plan_of(loaded) == plan_of(small)
    features = loaded.encoder.features(torch.randn(1, 8000), LENGTH)
    search = {"do_sample": False, "num_beams": 1, "max_new_tokens": 21}
    found = [m.generate(features, **search).tolist() for m in (loaded.whisper, small.whisper)]
    assert (
        found[0]
        == found[1]
        == loaded.whisper.generate(features, use_cache=False, **search).tolist()
    )
    chosen = method("l0_distill")
    finetuned = DistilledModel(loaded, teacher, chosen.distillation, chosen.student).train()
    loss, stats, _ = finetuned(*batch(tokens))
    loss.backward()
    assert stats["loss_layer"] > 0
    assert loaded.encoder.model.conv1.weight.grad.abs().sum() > 0


def test_sensitivity_of_both_stacks(model, tmp_path):
    samples = numpy.random.default_rng(0).normal(0, 3000, 8000).astype("int16")
    soundfile.write(tmp_path / "a.flac", samples, 16000)
    write_data(tmp_path, DataSet({"a": str(tmp_path / "a.flac")}, {"a": "YES NO"}, {"a": "s"}))
    write_model(model, tmp_path / "model")
    config = SensitivityConfig(utterances=1, fractions=(1.0,), kinds=("head",))
    result = sensitivity(tmp_path / "model", tmp_path, config, tmp_path / "out")
    stacks = [("encoder", "attention"), ("decoder", "attention"), ("decoder", "cross_attention")]
    names = [f"{stack}.block.{i}.{part}.heads" for stack, part in stacks for i in (0, 1)]
    assert sorted(result["sites"]) == sorted(names)
    assert result["dense"]["words"] == 2
    changes = {name: site["removals"][0]["loss_change"] for name, site in result["sites"].items()}
    assert all(changes.values()) and len(set(changes.values())) == len(changes)
    without = {name: torch.zeros(8) for name in names if "cross" in name}
    probe = Probe(tmp_path / "model", chosen_utterances(tmp_path, 1), ("head",))
    assert probe.measure(without)[0] != result["dense"]["loss"]
    assert probe.comparable("Mister Smith's TWENTY!") == "mister smith is 20"


LENGTH = torch.tensor([8000])


def load_again(model, folder):
    write_model(model, folder / "dense")
    return load(folder / "dense")


def test_features_are_those_of_decoding_under_amp(model):
    speech = 0.01 * torch.randn(1, 8000, generator=torch.Generator().manual_seed(1))
    expected = model.encoder.features(speech, LENGTH)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.encoder.features(speech, LENGTH), expected)


def test_encoder_and_decoder_are_masked_in_training(model, tokens, tmp_path):
    teacher = load_again(model, tmp_path)
    chosen = method("l0_distill")
    gated = inject(model, chosen)
    distilled = DistilledModel(gated, teacher, chosen.distillation, chosen.student, chosen).train()
    loss, stats, _ = distilled(*batch(tokens))
    loss.backward()
    assert stats["loss_layer"] > 0 and stats["loss_att_kl"] > 0 and "loss_ctc_kl" not in stats
    grown = {"encoder": 0.0, "decoder": 0.0}
    for name in gated.gate_names():  # a mask that is saturated in this draw has no gradient
        grown[name.partition(".")[0]] += float(gated.gate(name).log_alpha.grad.abs().sum())
    assert grown["encoder"] > 0 and grown["decoder"] > 0


def test_a_recording_longer_than_the_window_is_named(model):
    with pytest.raises(ModelError, match=r"31\.0 s doesn't fit its window of 30 s"):
        model.encoder(torch.zeros(1, 31 * 16000), torch.tensor([31 * 16000]))


def test_a_transcript_longer_than_the_decoder_is_named(model):
    tokens = torch.zeros(1, 449, dtype=torch.long)
    encoded = torch.zeros(1, 4, model.encoder.output_size())
    with pytest.raises(ModelError, match="449 tokens doesn't fit its decoder of 448"):
        model.decoder(encoded, torch.tensor([4]), tokens, torch.tensor([449]))


def test_a_folder_of_others_is_left_alone(tmp_path):
    (tmp_path / "whisper").mkdir()
    with pytest.raises(DataError, match="this command didn't make it"):
        run(["get_whisper", "--whisper", "random", "--out", str(tmp_path / "whisper")])


def test_no_updates_are_for_a_pretrained_teacher_alone(tokens, tmp_path):
    (tmp_path / "teacher.yaml").write_text("encoder: conformer\nmax_epoch: 0\n")
    others = {name: str(tmp_path / name) for name in ("train", "valid", "stats", "out")}
    folders = {**others, "config": str(tmp_path / "teacher.yaml"), "tokens": str(tokens)}
    with pytest.raises(ConfigError, match="encoder conformer would be random"):
        run(["train_teacher", *[word for k, v in folders.items() for word in (f"--{k}", v)]])


def test_a_model_of_many_languages_must_know_their_tokens(model, tmp_path, monkeypatch):
    write_model(model, tmp_path)
    monkeypatch.setattr(whisper_decoding, "is_multilingual", lambda tokens: True)
    with pytest.raises(ModelError, match="lang_to_id"):
        open_recogniser(tmp_path, DecodeConfig(modes=("greedy",)))


def test_tokens_of_another_number_are_refused(model):
    config = model.espnet_prune_config
    with pytest.raises(ModelError, match="258 tokens, but the model has 259"):
        build_asr_model({**config, "token_list": config["token_list"][:-1]})


def test_tokens_need_a_tokenizer_that_is_whispers(tmp_path, whisper):
    with pytest.raises(ConfigError, match="--tokenizer"):
        make_any_tokens(tmp_path / "text", tmp_path, "hugging_face", 30)
    with pytest.raises(ConfigError, match="--tokenizer"):
        make_any_tokens(tmp_path / "text", tmp_path, "char", 30, str(whisper))
    with pytest.raises(ModelError, match="save_pretrained"):
        make_any_tokens(tmp_path / "text", tmp_path, "hugging_face", 30, str(tmp_path / "nothing"))


def test_a_plan_of_no_whisper_is_refused():
    parts = {"encoder": "conformer", "encoder_conf": ENCODER, "decoder": "transformer"}
    config = {**parts, "token_list": ["a", "b", "c"], "pruned_arch": {"schema": 1, "sites": {}}}
    with pytest.raises(ModelError, match="pruned_arch.*of the whole model.*encoder_conf"):
        build_asr_model(config)


def test_generate_has_no_warning_at_each_utterance(model, tmp_path):
    """Of the models' own longest length, which those of the hub have."""
    whisper_of(model).generation_config.max_length = 448
    write_model(model, tmp_path)
    recogniser = open_recogniser(tmp_path, DecodeConfig(modes=("greedy",)))
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    logging.getLogger(GENERATION).addHandler(handler)
    recogniser.transcribe(numpy.ones(8000, "int16"), "greedy")
    logging.getLogger(GENERATION).removeHandler(handler)
    assert [record.getMessage() for record in records] == []


def test_the_warning_that_generate_gives_itself_is_not_shown(caplog):
    logger = logging.getLogger(GENERATION)
    with caplog.at_level(logging.WARNING, GENERATION), without_its_own_warning():
        logger.propagate, before = True, logger.propagate
        for begin in ITS_OWN:
            logger.warning(begin + " and so on")
        logger.warning("another")
        logger.propagate = before
    assert caplog.messages == ["another"]
    assert not logger.filters
