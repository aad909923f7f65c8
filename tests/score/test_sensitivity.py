"""Sensitivity of a tiny model of random weights: masks as a cut, parts, resumed, drawn."""

import json
import shutil

import numpy
import pytest
import soundfile
import torch

from espnet_prune.cli import main, run
from espnet_prune.data.kaldi_dir import DataSet, write_data
from espnet_prune.data.parallel import Share
from espnet_prune.data.tokens import make_tokens
from espnet_prune.errors import ConfigError, DataError, ModelError
from espnet_prune.score import sensitivity as module
from espnet_prune.score.sensitivity import (
    SensitivityConfig,
    chosen_utterances,
    sensitivity,
    worst_first,
)

RATE = 16000
CONFIG = SensitivityConfig(utterances=3, fractions=(0.5, 1.0))
HEADS = "block.1.attention.heads"


def build(folder, **settings):
    """Writes a model of random weights; returns it."""
    from espnet_prune.models.espnet.build import build_asr_model
    from espnet_prune.models.espnet.folder import write_espnet_folder

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "text").write_text("u0 YES NO\nu1 STOP GO\n")
    encoder = dict(output_size=16, attention_heads=4, linear_units=24, num_blocks=2)
    encoder |= dict(macaron_style=True, rel_pos_type="latest", cnn_module_kernel=5)
    config = dict(
        token_list=make_tokens(folder / "text", folder / "tokens", "char", 0),
        token_type="char",
        frontend_conf=dict(n_mels=20),
        encoder="conformer",
        encoder_conf=encoder,
        decoder="transformer",
        decoder_conf=dict(attention_heads=2, linear_units=16, num_blocks=1),
    )
    torch.manual_seed(0)
    model = build_asr_model({**config, **settings}).eval()
    if model.ctc is not None:
        torch.nn.init.normal_(model.ctc.ctc_lo.weight, 0.0, 3.0)  # so that texts aren't all blank
    write_espnet_folder(model, folder / "espnet")
    return model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    build(folder)
    return folder


def write_noise(folder, lengths, rate=RATE):
    """A dump folder of noise."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = numpy.random.default_rng(0)
    recordings = {}
    for index, length in enumerate(lengths):
        path = folder / f"u{index}.flac"
        soundfile.write(path, generator.normal(0, 3000, length).astype(numpy.int16), rate)
        recordings[f"u{index}"] = str(path)
    texts = dict.fromkeys(recordings, "YES NO")
    write_data(folder, DataSet(recordings, texts, {name: "s" for name in recordings}))
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_noise(tmp_path_factory.mktemp("data"), [9000, 16000, 12000, 8000, 14000, 9500])


@pytest.fixture(scope="module")
def out(model, data, tmp_path_factory):
    """What an unbroken run leaves."""
    folder = tmp_path_factory.mktemp("out")
    sensitivity(model, data, CONFIG, folder)
    return folder


@pytest.fixture(scope="module")
def result(out):
    return json.loads((out / "sensitivity.json").read_text())


def mean_loss(asr, data) -> float:
    """The labels' loss of the chosen utterances, by the model itself."""
    tokens = list("YES") + ["<space>"] + list("NO")
    ids = torch.tensor([[asr.token_list.index(token) for token in tokens]])
    losses = []
    for utterance in chosen_utterances(data, CONFIG.utterances):
        samples, _ = soundfile.read(utterance.entry, dtype="float32")
        lengths = torch.tensor([len(samples)]), torch.tensor([ids.shape[1]])
        with torch.no_grad():
            speech = torch.from_numpy(samples)[None]
            losses.append(float(asr.eval()(speech, lengths[0], ids, lengths[1])[0]))
    return sum(losses) / len(losses)


def load(model):
    from espnet_prune.models.espnet.build import load_trained

    return load_trained(model / "espnet/config.yaml", model / "espnet/model.pth")


def test_every_site_of_units_and_every_block_has_its_removals(result):
    assert len(result["sites"]) == 2 + 2 * 5
    heads = result["sites"][HEADS]
    assert (heads["kind"], heads["block"], heads["units"]) == ("head", 1, 4)
    assert [removal["removed"] for removal in heads["removals"]] == [2, 4]
    assert [removal["removed"] for removal in result["sites"]["block.0"]["removals"]] == [1]
    assert result["dense"]["words"] == 3 * 2


def test_wer_is_in_percent_of_the_words_and_a_change_is_from_the_dense_one(result):
    dense = result["dense"]
    assert dense["errors"] > 1 and dense["wer"] == pytest.approx(100 * dense["errors"] / 6)
    for site in result["sites"].values():
        for removal in site["removals"]:
            change = 100 * removal["errors"] / 6 - dense["wer"]
            assert removal["wer_change"] == pytest.approx(change)


def test_sites_come_by_the_loss_of_their_largest_removal_the_worst_first():
    losses = {"a": (9.0, 1.0), "b": (0.0, 3.0), "c": (0.0, -2.0)}
    sites = {n: {"removals": [{"loss_change": x} for x in ls]} for n, ls in losses.items()}
    found = worst_first({"sites": sites})
    assert [(name, removal["loss_change"]) for name, removal in found] == [
        ("b", 3.0),
        ("a", 1.0),
        ("c", -2.0),
    ]


def test_the_dense_loss_is_that_of_the_model(result, model, data):
    assert result["dense"]["loss"] == pytest.approx(mean_loss(load(model), data), rel=1e-5)


def test_the_greedy_text_is_that_of_decoding(model, data):
    from espnet_prune.decode.decode_config import DecodeConfig
    from espnet_prune.decode.recogniser import Recogniser
    from espnet_prune.score.probe import Probe

    utterances = chosen_utterances(data, 2)
    _, texts = Probe(model, utterances, ("head",)).measure({})
    recogniser = Recogniser(model, DecodeConfig())
    for utterance in utterances:
        samples, _ = soundfile.read(utterance.entry, dtype="int16")
        assert texts[utterance.name] == recogniser.transcribe(samples, "greedy") != ""


def test_a_model_of_8_khz_is_tried_on_8_khz(tmp_path):
    from espnet_prune.score.probe import Probe

    asr = build(tmp_path / "model", frontend_conf=dict(n_mels=20, fs="8k"))
    data = write_noise(tmp_path / "data", [4500, 8000, 6000], rate=8000)
    loss, _ = Probe(tmp_path / "model", chosen_utterances(data, 3), ("head",)).measure({})
    assert loss == pytest.approx(mean_loss(asr, data), rel=1e-5)


@pytest.mark.parametrize("place", [0, 1], ids=["half", "all"])
@pytest.mark.parametrize(
    "name", [HEADS, "block.0.feed_forward.units", "block.1.convolution.channels", "front_end.0"]
)
def test_a_removal_is_what_a_cut_would_do(result, model, data, name, place):
    from tiny_models import AllSites

    from espnet_prune.surgery import cut, inject

    if name == "front_end.0" and place == 1:
        pytest.skip("a front-end without channels can't be cut")
    asr = load(model)
    gated = inject(asr, AllSites(learned=False)).eval()
    site = gated.site_map.sites[name]
    removal = result["sites"][name]["removals"][place]
    gate = gated.gate(name)
    gate.set(module.mask_without(site, removal["removed"]))
    gone = site.magnitudes()[gate.mask == 0]
    assert place or gone.max() <= site.magnitudes()[gate.mask != 0].min()
    dense_size = sum(p.numel() for p in asr.parameters())
    small = cut(gated)
    assert removal["loss"] == pytest.approx(mean_loss(small, data), rel=1e-4)
    assert removal["parameters"] == dense_size - sum(p.numel() for p in small.parameters())
    change = removal["loss"] - result["dense"]["loss"]
    assert removal["loss_change"] == pytest.approx(change) and change != 0


def test_parts_and_a_resumed_run_give_the_same(model, data, out, tmp_path, monkeypatch):
    for number in (1, 2, 3):
        assert sensitivity(model, data, CONFIG, tmp_path, share=Share(number, 3)) is None
    assert not (tmp_path / "sensitivity.json").exists()
    names = {path.name for path in (tmp_path / "sites").iterdir()}
    assert names == {path.name for path in (out / "sites").iterdir()}
    lost = tmp_path / "sites" / f"{HEADS}.json"
    lost.unlink()  # as after a kill
    measured = []
    monkeypatch.setattr(module, "_measure", lambda task: measured.append(task.item) or stock(task))
    sensitivity(model, data, CONFIG, tmp_path)
    assert measured == [HEADS]
    assert (tmp_path / module.RESULT).read_bytes() == (out / module.RESULT).read_bytes()


stock = module._measure


@pytest.mark.slow
def test_two_processes_give_the_same(model, data, out, tmp_path):
    sensitivity(model, data, CONFIG, tmp_path, jobs=2)
    assert (tmp_path / module.RESULT).read_bytes() == (out / module.RESULT).read_bytes()


def test_another_choice_of_data_or_model_is_refused(model, data, out, tmp_path):
    folder = shutil.copytree(out, tmp_path / "out")
    with pytest.raises(ConfigError, match="utterances: 3 -> 2"):
        sensitivity(model, data, SensitivityConfig(2, (0.5, 1.0)), folder)
    with pytest.raises(ModelError, match="no such file; run the stages"):
        sensitivity(tmp_path, data, CONFIG, folder)


def test_a_file_in_the_results_place_is_refused(model, data, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="file is a file; a folder was expected"):
        sensitivity(model, data, CONFIG, tmp_path / "file")


def test_the_main_prints_the_worst_and_draws(model, data, out, tmp_path, capsys):
    folder = shutil.copytree(out, tmp_path / "out")
    words = ["--model", str(model), "--data", str(data), "--out", str(folder)]
    words += ["--utterances", "3", "--fractions", "0.5", "1"]
    assert run(["sensitivity", *words, "--part", "1/2"]) == 0
    assert not list(folder.glob("*.png"))
    assert run(["sensitivity", *words]) == 0
    printed = capsys.readouterr().out
    assert "dense: loss" in printed and len(printed.splitlines()) == 2 + 1 + 10
    for name in ("loss", "wer"):
        assert (folder / f"sensitivity_{name}.png").stat().st_size > 10000


def test_the_decoder_is_measured_where_it_is_asked_for(model, data, tmp_path):
    words = ["--model", str(model), "--data", str(data), "--out", str(tmp_path), "--decoder"]
    words += ["--utterances", "1", "--fractions", "1", "--sites", "feed_forward_unit", "block"]
    assert run(["sensitivity", *words]) == 0
    result = json.loads((tmp_path / "sensitivity.json").read_text())
    place = "decoder.block.0"
    found = {n: s["removals"][0] for n, s in result["sites"].items() if n.startswith("decoder")}
    assert set(found) == {place, f"{place}.feed_forward.units"}
    for removal in found.values():  # greedy CTC doesn't feel it
        assert removal["loss_change"] != 0 and removal["wer_change"] == 0
    assert (tmp_path / "sensitivity_loss.png").stat().st_size > 10000


def test_a_refused_model_does_not_bind_the_folder(tmp_path, data):
    build(tmp_path / "model", model_conf=dict(ctc_weight=1.0))  # no decoder
    out = tmp_path / "out"
    with pytest.raises(ModelError, match="decoder"):
        sensitivity(tmp_path / "model", data, SensitivityConfig(1, (1.0,), decoder=True), out)
    found = sensitivity(tmp_path / "model", data, SensitivityConfig(1, (1.0,), ("block",)), out)
    assert found["sites"]


def test_utterances_are_spread_over_the_data(data):
    assert [u.name for u in chosen_utterances(data, 3)] == ["u0", "u2", "u4"]
    assert len(chosen_utterances(data, 100)) == 6


def test_an_utterance_that_can_t_be_used_is_named(model, tmp_path):
    short = write_noise(tmp_path / "short", [700])
    with pytest.raises(DataError, match="'u0'.*too short"):
        sensitivity(model, short, CONFIG, tmp_path / "out")


def test_a_model_without_ctc_is_refused(tmp_path, data):
    build(tmp_path / "model", model_conf=dict(ctc_weight=0.0))
    with pytest.raises(ModelError, match="no CTC"):
        sensitivity(tmp_path / "model", data, CONFIG, tmp_path / "out")


@pytest.mark.parametrize(
    "words, named",
    [
        (["--utterances", "0"], "utterances: 0 is out of range"),
        (["--fractions", "1.5"], "fractions: 1.5 is out of range"),
        (["--sites", "heads"], "did you mean 'head'"),
        (["--part", "3/2"], "--part: '3/2'; expected K/N"),
    ],
)
def test_wrong_options_are_named(capsys, words, named):
    arguments = ["--model", "m", "--data", "d", "--out", "o", *words]
    assert main(["sensitivity", *arguments]) == 2
    assert named in capsys.readouterr().err
