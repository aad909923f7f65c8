"""Whole ESPnet models: built, saved, loaded strictly, cut, and read by stock ESPnet."""

import espnet_prune.models.espnet.choices  # noqa: F401  isort: skip  (stubs before ESPnet)
import copy
import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from system_configs import system_config
from tiny_asr import asr_config
from tiny_models import AllSites, randomise

from espnet_prune.errors import DataError, ModelError, TargetMissedError
from espnet_prune.models.espnet.build import build_asr_model, load_trained
from espnet_prune.models.espnet.folder import (
    read_espnet_config,
    trained_seconds,
    write_espnet_folder,
)
from espnet_prune.models.graph_names import TRAINED_SECONDS
from espnet_prune.record import read_record
from espnet_prune.surgery import cut, inject, load, plan_of, save
from espnet_prune.train.cutting import CUT_TOLERANCE, cut_system
from espnet_prune.train.system import write_model

SAMPLES = 16000
FAR_BEYOND_ROUNDING = 0.1  # of outputs of the order of 1
ENCODER = {
    "output_size": 16,
    "attention_heads": 4,
    "linear_units": 24,
    "num_blocks": 2,
    "macaron_style": True,
    "rel_pos_type": "latest",
    "cnn_module_kernel": 7,
}


def config(**changes) -> dict:
    values = {
        "normalize": "global_mvn",
        "encoder": "conformer",
        "encoder_conf": ENCODER,
        "decoder": "transformer",
        "decoder_conf": {"attention_heads": 2, "linear_units": 16, "num_blocks": 1},
    }
    return asr_config(**{**values, **changes})


@pytest.fixture
def dense() -> torch.nn.Module:
    """A model whose norms and statistics are not what they are at the start."""
    torch.manual_seed(0)
    model = randomise(build_asr_model(config()))
    model.normalize.mean.normal_()
    model.normalize.std.uniform_(0.5, 2.0)
    return model.eval()


@pytest.fixture
def small(dense) -> torch.nn.Module:
    """The same cut unevenly, with soft masks folded in and one branch gone; ``dense`` stays."""
    gated = inject(copy.deepcopy(dense), AllSites(learned=False)).eval()
    generator = torch.Generator().manual_seed(1)
    for name in gated.gate_names():
        site = gated.site_map.sites[name]
        if site.kind in ("block", "branch"):
            value = torch.zeros(1) if name.endswith("block.1.macaron") else torch.ones(1)
        else:
            value = torch.rand(site.units, generator=generator)
            value = torch.where(value < 0.3, 0.0, value)
            value[0] = 1.0
        gated.gate(name).set(value)
    return cut(gated).eval()


@pytest.fixture(params=["dense", "small"])
def model(request):
    return request.getfixturevalue(request.param)


@torch.no_grad()
def outputs(model) -> list[torch.Tensor]:
    """Encoder, CTC and decoder of two recordings of unequal length."""
    generator = torch.Generator().manual_seed(2)
    speech = torch.randn(2, SAMPLES, generator=generator)
    lengths = torch.tensor([SAMPLES, SAMPLES * 2 // 3])
    encoded, encoded_lengths = model.encode(speech, lengths)
    text, text_lengths = torch.tensor([[6, 2, 3], [6, 4, 2]]), torch.tensor([3, 2])
    decoded, _ = model.decoder(encoded, encoded_lengths, text, text_lengths)
    return [encoded, encoded_lengths, model.ctc.log_softmax(encoded), decoded]


def same(ours, theirs) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_saved_and_loaded_is_equal(model, tmp_path):
    save(model, tmp_path)
    again = load(tmp_path)
    assert not again.training
    assert same(outputs(again), outputs(model))
    assert plan_of(again) == plan_of(model)


def test_nothing_saved_names_a_file_of_the_training(model, tmp_path):
    """The statistics are in the weights, and loading needs no file of them."""
    model.espnet_prune_config["normalize_conf"] = {"stats_file": "/gone/stats.npz", "eps": 1e-10}
    save(model, tmp_path)
    text = (tmp_path / "model.json").read_text()
    assert "gone" not in text and "eps" in text
    assert same(outputs(load(tmp_path)), outputs(model))


def test_the_longest_training_utterance_is_kept_in_every_form(dense, tmp_path):
    dense.espnet_prune_config[TRAINED_SECONDS] = 3.3
    assert trained_seconds(tmp_path) is None
    write_model(dense, tmp_path / "dense")
    gated = inject(load(tmp_path / "dense"), AllSites(learned=False)).eval()
    write_model(cut(gated), tmp_path / "cut")
    for folder in (tmp_path / "dense", tmp_path / "cut"):
        assert trained_seconds(folder) == 3.3
        assert read_espnet_config(folder / "espnet/config.yaml")[TRAINED_SECONDS] == 3.3


def test_saved_loaded_and_saved_is_the_same_file(model, tmp_path):
    save(model, tmp_path / "one")
    save(load(tmp_path / "one"), tmp_path / "two")
    for name in ("model.json", "model.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_the_cut_is_smaller_and_unlike(dense, small):
    sizes = [sum(p.numel() for p in m.parameters()) for m in (dense, small)]
    assert sizes[1] < sizes[0]
    difference = (outputs(small)[0] - outputs(dense)[0]).abs().max()
    assert difference > FAR_BEYOND_ROUNDING


@pytest.mark.parametrize("part", ["", "encoder", "decoder", "ctc", "normalize"])
def test_stock_espnet_reads_every_weight(model, tmp_path, part):
    """Speech2Text gives the very same numbers, of the whole and in each part's state."""
    from espnet2.bin.asr_inference import Speech2Text

    folder = write_espnet_folder(model, tmp_path / "espnet")
    read = Speech2Text(str(folder / "config.yaml"), str(folder / "model.pth"), lm_weight=0.0)
    if not part:
        assert same(outputs(read.asr_model), outputs(model))
        return
    ours, theirs = (getattr(m, part).state_dict() for m in (model, read.asr_model))
    assert set(ours) == set(theirs)
    # Speech2Text turns the statistics, which may be of double precision, into single ones.
    assert all(torch.equal(ours[key].to(theirs[key].dtype), theirs[key]) for key in ours)


def test_our_loader_reads_the_folder_for_stock_espnet(model, tmp_path):
    folder = write_espnet_folder(model, tmp_path / "espnet")
    again = load_trained(folder / "config.yaml", folder / "model.pth")
    assert same(outputs(again), outputs(model))


def spoil(state: dict, how: str) -> str:
    """Changes weights; returns what the error must say."""
    key = "encoder.encoders.0.self_attn.linear_q.weight"
    if how == "missing":
        del state[key]
    elif how == "unexpected":
        state["encoder.encoders.9.extra"] = torch.zeros(1)
        return "unexpected: encoder.encoders.9.extra"
    else:
        shape = tuple(state[key].shape)
        state[key] = state[key][:-1].clone()
        return f"shape: {key} {(shape[0] - 1, shape[1])} instead of {shape}"
    return f"missing: {key}"


@pytest.mark.parametrize("how", ["missing", "unexpected", "shape"])
def test_weights_that_do_not_fit_are_named(model, tmp_path, how):
    save(model, tmp_path)
    path = tmp_path / "model.safetensors"
    state = load_file(path)
    message = spoil(state, how)
    save_file(state, path)
    with pytest.raises(ModelError, match=re.escape(message)) as caught:
        load(tmp_path)
    assert "model.safetensors" in str(caught.value)


@pytest.mark.parametrize("how", ["missing", "unexpected", "shape"])
def test_trained_weights_that_do_not_fit_are_named(model, tmp_path, how):
    write_espnet_folder(model, tmp_path)
    state = model.state_dict()
    message = spoil(state, how)
    torch.save(state, tmp_path / "model.pth")
    with pytest.raises(ModelError, match=re.escape(message)) as caught:
        load_trained(tmp_path / "config.yaml", tmp_path / "model.pth")
    assert "model.pth" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no weights at all", b"PK\x03\x04"])
def test_a_damaged_file_of_weights_is_named(dense, tmp_path, content):
    write_model(dense, tmp_path)
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match="model.safetensors: can't be read"):
        load(tmp_path)
    (tmp_path / "espnet" / "model.pth").write_bytes(content)
    with pytest.raises(ModelError, match="model.pth: can't be read"):
        load_trained(tmp_path / "espnet/config.yaml", tmp_path / "espnet/model.pth")


def test_a_pickled_module_is_refused(dense, tmp_path):
    write_espnet_folder(dense, tmp_path)
    torch.save(torch.nn.Linear(1, 1), tmp_path / "model.pth")
    with pytest.raises(ModelError, match="model.pth: can't be read"):
        load_trained(tmp_path / "config.yaml", tmp_path / "model.pth")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [("schema", 99, "schema 99, expected 1"), ("kind", "tts", "kind 'tts', expected")],
)
def test_another_description_is_refused(dense, tmp_path, key, value, message):
    save(dense, tmp_path)
    path = tmp_path / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(ModelError, match=message):
        load(tmp_path)


def test_a_missing_description_is_named(tmp_path):
    with pytest.raises(DataError, match="model.json: no such file"):
        load(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"encoder_conf": {**ENCODER, "attention_heads": 3}},
        {"encoder_conf": {**ENCODER, "unknown_option": 3}},
        {"token_list": "no/such/tokens.txt"},
        {"encoder": "no_such_encoder"},
    ],
)
def test_a_model_that_espnet_cannot_build_is_a_model_error(change):
    with pytest.raises(ModelError, match="can't build"):
        build_asr_model(config(**change))


def test_a_plan_of_another_model_is_refused(small, tmp_path):
    save(small, tmp_path)
    path = tmp_path / "model.json"
    description = json.loads(path.read_text())
    description["config"]["encoder_conf"]["num_blocks"] = 3
    path.write_text(json.dumps(description))
    with pytest.raises(ModelError, match="plan: made for another model"):
        load(tmp_path)


def test_a_model_without_its_configuration_says_so(dense, tmp_path):
    del dense.espnet_prune_config
    with pytest.raises(ModelError, match="doesn't carry its configuration"):
        save(dense, tmp_path)


@pytest.fixture
def system(dense, tmp_path):
    """A function that gives the folder and the configuration of a system to be cut."""
    write_model(dense, tmp_path / "teacher/model")

    def make(target: float, name: str = "magnitude", **options):
        out = tmp_path / "system"
        row = {"method": name, "target": target, "options": options}
        return out, system_config(row, tmp_path)

    return make


def test_the_cut_at_its_target_is_recorded(system):
    out, config = system(0.4)
    assert cut_system(out, config) < CUT_TOLERANCE
    record = read_record(out)
    sparsity, prunable = record["sparsity"], record["params"]["prunable"]
    assert sparsity["value"] == pytest.approx(0.4, abs=0.005)
    assert sparsity["value"] == pytest.approx(1 - sparsity["kept"] / sparsity["total"])
    assert prunable == {"kept": sparsity["kept"], "dense": sparsity["total"]}
    small = load(out / "cut")
    assert sum(p.numel() for p in small.parameters()) == record["params"]["total"]["kept"]
    assert plan_of(small).to_json() == json.loads((out / "plan.json").read_text())


@pytest.mark.parametrize("method", ["magnitude", "small_from_scratch"])
def test_a_decoder_that_is_cut_too_is_counted_by_itself(system, method):
    out, config = system(0.5, method, decoder={}, budget={"tolerance": 0.02})
    cut_system(out, config)
    record, small = read_record(out), load(out / "cut")
    sparsity, params = record["sparsity"], record["params"]
    assert params["prunable"] == {"kept": sparsity["kept"], "dense": sparsity["total"]}
    for name, part in (("encoder", small.encoder), ("decoder", small.decoder), ("total", small)):
        assert params[name]["kept"] == sum(p.numel() for p in part.parameters())
        assert params[name]["kept"] < params[name]["dense"]
    assert plan_of(small).to_json() == json.loads((out / "plan.json").read_text())


def test_a_missed_target_says_by_how_much(system):
    """Whole heads alone: eighths can't come nearer to this target."""
    out, config = system(0.45, sites=["head"])
    with pytest.raises(TargetMissedError) as caught:
        cut_system(out, config)
    message = str(caught.value)
    found = re.search(r"reach ([\d.]+)% of (\d+) prunable parameters, ([\d.]+) points", message)
    reached, points = float(found[1]), float(found[3])
    assert abs(reached - 45) == pytest.approx(points, abs=0.011)
    assert points > 0.5
    assert "target 45.00% (tolerance 0.50%)" in message
    assert not (out / "cut").exists()
