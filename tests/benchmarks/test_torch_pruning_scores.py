"""Torch-Pruning on a tiny Conformer: what it cuts, what stops it, scores that a method takes."""

import json

import pytest
import torch
from safetensors.torch import load_file

from espnet_prune.errors import ConfigError
from espnet_prune.methods import make_method
from espnet_prune.models.espnet.build import build_asr_model
from espnet_prune.surgery import cut, inject, load
from espnet_prune.train.system import write_model

FEED_FORWARDS = {f"block.{b}.{name}.units" for b in (0, 1) for name in ("macaron", "feed_forward")}


@pytest.fixture
def scored(repository, monkeypatch, tmp_path, capsys):
    """Folder of a model and its scores."""
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    import torch_pruning_scores

    encoder = dict(output_size=16, attention_heads=2, linear_units=24, num_blocks=2)
    encoder |= dict(macaron_style=True, rel_pos_type="latest", cnn_module_kernel=5)
    config = dict(
        token_list=["<blank>", "<unk>", "A", "B", "<sos/eos>"],
        token_type="char",
        frontend_conf=dict(n_mels=20),
        encoder="conformer",
        encoder_conf=encoder,
    )
    torch.manual_seed(0)
    write_model(build_asr_model({**config, "model_conf": {"ctc_weight": 1.0}}), tmp_path / "model")
    out = tmp_path / "tp.safetensors"
    assert torch_pruning_scores.main(["--model", str(tmp_path / "model"), "--out", str(out)]) == 0
    return tmp_path


def test_feed_forwards_are_cut_and_the_rest_is_named_with_its_reason(scored):
    record = json.loads((scored / "tp.json").read_text())
    kinds = record["kinds"]
    assert all(kinds[k] == "cut, and the model runs" for k in ("macaron_unit", "feed_forward_unit"))
    assert all("Error" in kinds[kind] for kind in ("convolution_channel", "head"))
    scores = load_file(scored / "tp.safetensors")
    assert set(scores) == FEED_FORWARDS and record["units"] == 4 * 24
    assert all(torch.isfinite(value).all() and value.std() > 0 for value in scores.values())


def test_its_scores_make_a_model_and_not_a_smaller_one_than_they_can(scored):
    share = json.loads((scored / "tp.json").read_text())["share_of_prunable"]
    options = {"importance": {"file": str(scored / "tp.safetensors")}}

    def made(target: float) -> torch.nn.Module:
        model = load(scored / "model")
        method = make_method("importance", options, target=target)
        gated = inject(model, method).eval()
        return cut(gated, method.masks(gated))

    layers = made(0.9 * share).encoder.encoders
    assert all(layer.self_attn.h == 2 for layer in layers)
    assert sum(layer.feed_forward.w_1.out_features for layer in layers) < 24
    with pytest.raises(ConfigError, match="target"):
        made(share + 0.05)
