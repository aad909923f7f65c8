"""Dynamic int8 in torch, as a mode of decoding, in scores and in the report's tables."""

import json

import numpy
import pytest
import soundfile
import torch
from tiny_models import encoder, features

from espnet_prune.cli import main
from espnet_prune.config import load_yaml, to_dataclass
from espnet_prune.data.kaldi_dir import read_map
from espnet_prune.decode import int8
from espnet_prune.decode.decode_config import DecodeConfig
from espnet_prune.decode.decoding import decode
from espnet_prune.decode.int8 import quantise_linear, stored_bytes
from espnet_prune.decode.recogniser import open_recogniser
from espnet_prune.errors import ConfigError, ModelError
from espnet_prune.export.int8 import base_mode, by_onnx
from espnet_prune.report.tables_int8 import int8_table
from espnet_prune.score.timing import ProfileConfig

pytestmark = pytest.mark.timeout(300)
RATE = 16000
UTTERANCES = ("a", "b")


def test_linear_layers_are_quantised_but_positions_are_not():
    model = encoder()
    before, feats = stored_bytes(model), features()
    with torch.no_grad():
        expected = model(*feats)[0]
        found = quantise_linear(model)(*feats)[0]
    attention = model.encoders[0].self_attn
    assert type(attention.linear_pos) is torch.nn.Linear
    assert type(attention.linear_q) is not torch.nn.Linear
    assert stored_bytes(model) < before
    difference = (found - expected).abs().mean() / expected.abs().mean()
    assert 0 < difference < 0.1
    with pytest.raises(ModelError, match="no linear layer"):
        quantise_linear(torch.nn.ReLU())


def test_modes_and_what_they_are_of():
    assert [base_mode(m) for m in ("greedy_onnx_int8", "joint_int8", "joint")] == [
        "greedy",
        "joint",
        "joint",
    ]
    assert by_onnx("greedy_onnx_int8") and not by_onnx("greedy_int8") and not by_onnx("greedy")
    with pytest.raises(ConfigError, match="greedy_int4"):
        DecodeConfig(modes=("greedy_int4",))


def test_the_folder_of_overrides_is_read(repository):
    decoding, profile = (
        load_yaml(repository / f"conf/int8/{n}.yaml") for n in ("decode", "profile")
    )
    assert any(map(by_onnx, to_dataclass(DecodeConfig, decoding, "decode.yaml").modes))
    assert to_dataclass(ProfileConfig, profile, "profile.yaml").int8


def test_onnx_runtime_decodes_on_one_thread_as_torch_does(monkeypatch):
    """Several processes share the cores."""
    asked = {}
    monkeypatch.setattr(int8, "OnnxRecogniser", lambda *_, **options: asked.update(options))
    int8.onnx_recogniser.__wrapped__("folder", 40.0)
    assert asked == {"threads": 1}


@pytest.fixture(scope="module")
def decoded(system, tmp_path_factory):
    """A data folder, and hypotheses of the system by mode."""
    data, out = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("decoded") / "test"
    for index, name in enumerate(UTTERANCES):
        noise = numpy.random.default_rng(index).normal(0, 0.1, RATE + 4000 * index)
        soundfile.write(data / f"{name}.wav", noise, RATE)
    for file, form in (("wav.scp", "{0} " + str(data) + "/{0}.wav"), ("utt2spk", "{0} {0}")):
        (data / file).write_text("".join(form.format(name) + "\n" for name in UTTERANCES))
    (data / "spk2utt").write_text((data / "utt2spk").read_text())
    (data / "text").write_text("a YES NO\nb STOP\n")
    modes = ("greedy", "greedy_int8", "joint_int8", "greedy_onnx_int8")
    decode(system / "model", data, DecodeConfig(modes=modes, beam_size=2), out)
    return data, {mode: read_map(out / mode / "hyp", empty_values=True) for mode in modes}


def test_int8_decodes_in_torch_and_in_onnx_runtime(system, decoded):
    data, texts = decoded
    assert all(list(found) == list(UTTERANCES) for found in texts.values())
    assert any(texts["greedy_onnx_int8"].values())
    config = DecodeConfig(beam_size=2)
    small = open_recogniser(system / "model", config, int8=True)
    kind = type(small.model.encoder.encoders[0].feed_forward.w_1).__module__
    assert "quantized" in kind
    for name in UTTERANCES:
        samples = soundfile.read(data / f"{name}.wav", dtype="int16")[0]
        assert texts["greedy_int8"][name] == small.transcribe(samples, "greedy")
        assert texts["joint_int8"][name] == small.transcribe(samples, "joint")


def test_int8_is_compared_with_the_teacher_in_floating_point(decoded, tmp_path):
    data, _ = decoded
    for folder, text in (
        ("small/decode/test/greedy_int8", "a YES\nb\n"),
        ("teacher/decode/test/greedy", "a YES NO\nb STOP\n"),
    ):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "hyp").write_text(text)
    arguments = ["--data", str(data), "--system", str(tmp_path / "small"), "--set", "test"]
    assert main(["score", *arguments, "--teacher", str(tmp_path / "teacher")]) == 0
    score = json.loads((tmp_path / "small/decode/test/greedy_int8/score.json").read_text())
    assert score["errors"] == 2 and score["p_vs_teacher"] is not None


def test_the_table_has_what_was_measured_alone():
    part = {"bytes": 2_000_000, "rtf": {"ctc_greedy": 0.01}, "speedup": {"ctc_greedy": 3.0}}
    made = {"torch_int8": part, "onnx": part, "onnx_int8": {**part, "bytes": 1_000_000}}
    system = {
        "weights_bytes": {"kept": 4_000_000},
        "rtf": {"ctc_greedy": 0.02, "threads": 1, "batch": 1},
        "speedup": {"ctc_greedy": 1.5},
        "int8": made,
    }
    assert int8_table([("dense", {"int8": None})]) == []
    (table,) = int8_table([("dense", {"int8": None}), ("half", system)])
    (row,) = table.rows
    assert row[:6] == ["half", "4.0 MB", "2.0 MB", "2.0 MB", "1.0 MB", "-"]
    assert row[6:] == ["0.0200 (1.50x)", *["0.0100 (3.00x)"] * 3, "-", "-"]
