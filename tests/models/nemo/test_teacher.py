"""NeMo's archives as teachers: the same outputs, tokens, and what is refused by name."""

import copy
import os
from pathlib import Path

import pytest
import tiny_nemo
import torch
from torch.nn.utils.rnn import pad_sequence

import espnet_prune
from espnet_prune.cli import run
from espnet_prune.data.tokens import check_tokens
from espnet_prune.errors import DataError, EnvironmentProblem, ModelError
from espnet_prune.models.nemo.archive import opened
from espnet_prune.models.origins import open_origin

REAL = os.environ.get("ESPNET_PRUNE_NEMO", "")
SAMPLES = (16000, 9123, 12345)


def recordings() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [0.1 * torch.randn(samples, generator=generator) for samples in SAMPLES]


def imported(folder: Path, config: dict, state: dict, mode: str = "w") -> torch.nn.Module:
    archive = tiny_nemo.write_archive(folder / "tiny.nemo", config, state, mode)
    with open_origin(str(archive)) as origin:
        origin.write_tokens(folder / "tokens")
        return origin.build(folder / "tokens")


def ours(model: torch.nn.Module, speech: torch.Tensor, lengths: torch.Tensor) -> list[torch.Tensor]:
    """NeMo's order of outputs, for each recording without its padding."""
    with torch.no_grad():
        encoded, frames = model.encode(speech, lengths)
        found = model.ctc.log_softmax(encoded)
    order = [*range(1, tiny_nemo.PIECES + 1), 0]
    return [row[:number, order] for row, number in zip(found, frames.tolist(), strict=True)]


@pytest.mark.parametrize("mode, scaled", [("w", True), ("w:gz", True), ("w", False)])
def test_outputs_are_those_of_another_reading_of_nemo(tmp_path, mode, scaled):
    state = tiny_nemo.weights()
    model = imported(tmp_path, tiny_nemo.configuration(xscaling=scaled), state, mode)
    speech = recordings()
    expected = [tiny_nemo.log_probs(state, one, scaled) for one in speech]
    batch = pad_sequence(speech, batch_first=True)
    found = ours(model, batch, torch.tensor(SAMPLES))
    alone = [ours(model, one[None], torch.tensor([len(one)]))[0] for one in speech]
    for reading, padded, single in zip(expected, found, alone, strict=True):
        assert reading.shape == padded.shape
        assert float((reading - single).abs().max()) < 1e-4
        assert float((reading - padded).abs().max()) < 1e-4


def test_the_end_of_a_sentence_is_never_said(tmp_path):
    model = imported(tmp_path, tiny_nemo.configuration(), tiny_nemo.weights())
    with torch.no_grad():
        encoded, _ = model.encode(recordings()[0][None], torch.tensor([SAMPLES[0]]))
        found = model.ctc.log_softmax(encoded)
    assert float(found[..., model.eos].max()) < -30
    assert model.token_list[model.blank_id] == "<blank>"


def test_the_command_makes_a_teacher_whose_tokens_are_its_own(tmp_path):
    archive = tiny_nemo.write_archive(
        tmp_path / "tiny.nemo", tiny_nemo.configuration(), tiny_nemo.weights()
    )
    command = ["import_teacher", "--teacher", str(archive), "--out", str(tmp_path / "teacher")]
    assert run(command) == run(command) == 0
    model = espnet_prune.load(tmp_path / "teacher/model")
    tokens = tmp_path / "teacher/tokens"
    check_tokens(tokens, model.token_list, tokens / "bpe.model", "the teacher")
    assert (tmp_path / "teacher/model/espnet/model.pth").is_file()


@pytest.mark.parametrize(
    "section, key, value, message",
    [
        ("encoder", "self_attention_model", "rel_pos_local_attn", "rel_pos_local_attn.*rel_pos"),
        ("encoder", "subsampling", "dw_striding", "dw_striding.*striding"),
        ("encoder", "conv_norm_type", "layer_norm", "layer_norm.*batch_norm"),
        ("encoder", "att_context_size", [70, 1], r"att_context_size: \[70, 1\]"),
        ("encoder", "n_layer", 3, "n_layer.*did you mean 'n_layers'"),
        ("encoder", "n_layers", None, "n_layers: a number"),
        ("preprocessor", "normalize", "all_features", "all_features.*per_feature"),
        ("encoder", "ff_expansion_factor", "4", "ff_expansion_factor: a number.*'4'"),
        ("encoder", "dropout", None, "dropout: a number.*None"),
        ("preprocessor", "window_stride", None, "window_stride: a number.*None"),
        ("preprocessor", "window", "kaiser", "kaiser.*hann"),
        ("tokenizer", "type", "wpe", "wpe.*bpe"),
        ("tokenizer", "model_path", "nemo:other.model", "other.model.*no file of the archive"),
        ("decoder", "vocabulary", ["a", "b"], "30 pieces.*2 of decoder: vocabulary"),
    ],
)
def test_what_is_not_known_is_named(tmp_path, section, key, value, message):
    config = tiny_nemo.configuration()
    config[section][key] = value
    with pytest.raises(ModelError, match=message):
        imported(tmp_path, config, tiny_nemo.weights())


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("target", "nemo.collections.asr.models.EncDecRNNTBPEModel", "EncDecRNNTBPEModel"),
        ("aux_ctc", {}, "aux_ctc.*hybrids"),
    ],
)
def test_other_models_are_refused(tmp_path, key, value, message):
    config = {**tiny_nemo.configuration(), key: value}
    with pytest.raises(ModelError, match=message):
        imported(tmp_path, config, tiny_nemo.weights())


def test_a_key_at_the_top_that_nothing_reads_is_named(tmp_path, caplog):
    imported(tmp_path, {**tiny_nemo.configuration(), "new_key": 1}, tiny_nemo.weights())
    assert "new_key isn't read" in caplog.text


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda state: state.update({"encoder.layers.0.adapter.weight": torch.ones(1)}), "adapter"),
        (lambda state: state.pop("encoder.layers.1.norm_out.bias"), "missing.*norm_final.bias"),
        (lambda state: state.pop("encoder.pre_encode.out.bias"), "missing.*embed.out.bias"),
        (lambda state: state.update({"encoder.pre_encode.out.bias": torch.ones(3)}), "shape"),
        (lambda state: state.update({"encoder.pre_encode.out.bias": 3}), "a tensor was expected"),
    ],
)
@pytest.mark.parametrize("scaled", [True, False])
def test_weights_are_all_needed_and_no_others(tmp_path, change, message, scaled):
    state = copy.deepcopy(tiny_nemo.weights())
    change(state)
    with pytest.raises(ModelError, match=message):
        imported(tmp_path, tiny_nemo.configuration(xscaling=scaled), state)


def test_no_archive_no_file_no_kind_no_network(tmp_path, monkeypatch):
    (tmp_path / "broken.nemo").write_bytes(b"no tar")
    (tmp_path / "cut.nemo").write_bytes(
        tiny_nemo.write_archive(
            tmp_path / "whole.nemo", tiny_nemo.configuration(), tiny_nemo.weights()
        ).read_bytes()[:5000]
    )
    for name in ("broken.nemo", "cut.nemo"):
        with pytest.raises(ModelError, match=name), opened(str(tmp_path / name)):
            pass
    with pytest.raises(DataError, match="none.nemo"), opened(str(tmp_path / "none.nemo")):
        pass
    with pytest.raises(ModelError, match="model.tar.*nvidia/NAME"), open_origin("model.tar"):
        pass
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(EnvironmentProblem, match="stt_en_conformer_ctc_small.nemo"):
        with opened("nvidia/stt_en_conformer_ctc_small"):
            pass


@pytest.mark.slow
@pytest.mark.skipif(not Path(REAL).is_file(), reason="ESPNET_PRUNE_NEMO names no archive")
def test_the_real_one_has_its_size(tmp_path):
    with open_origin(REAL) as origin:
        assert len(origin.write_tokens(tmp_path / "tokens")) == 1026
        model = origin.build(tmp_path / "tokens")
    assert sum(p.numel() for p in model.parameters()) == 13_154_210
