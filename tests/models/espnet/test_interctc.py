"""Whole models whose encoder hears intermediate CTC, and is conditioned on it."""

import copy

import pytest
import torch
from random_structures import check_random_structures, encoded, gate, random_structure
from tiny_encoders import ENCODERS, tiny_encoder

from espnet_prune.distill import DistillConfig
from espnet_prune.export.onnx import export_onnx
from espnet_prune.methods.options import StudentConfig
from espnet_prune.models.espnet.build import build_asr_model
from espnet_prune.models.espnet.features import random_outputs
from espnet_prune.surgery import cut, load, save
from espnet_prune.train.distilled_model import DistilledModel

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]
TOKENS = ["<blank>", "<unk>", "A", "B", "<sos/eos>"]
CONDITIONED = {"interctc_layer_idx": [1], "interctc_use_conditioning": True, "num_blocks": 3}
ALONE = DistillConfig(layer_weight=0.0, ctc_weight=0.0, attention_weight=0.0)


def whole(family: str = "conformer"):
    """An ESPnetASRModel with CTC and a decoder."""
    torch.manual_seed(0)
    return build_asr_model(
        {
            "token_list": TOKENS,
            "token_type": "char",
            "normalize": None,
            "encoder": family,
            "encoder_conf": {**ENCODERS[family], **CONDITIONED},
            "decoder": "transformer",
            "decoder_conf": {"attention_heads": 2, "linear_units": 16, "num_blocks": 1},
            "model_conf": {"ctc_weight": 0.3, "interctc_weight": 0.4, "report_cer": False},
        }
    ).eval()


@pytest.mark.parametrize("family", ["conformer", "transformer", "e_branchformer"])
def test_masked_equals_cut_under_conditioning(family):
    from espnet2.asr.ctc import CTC

    model = tiny_encoder(family, **CONDITIONED)
    ctc = CTC(len(TOKENS), 16).eval()
    model.conditioning_layer = torch.nn.Linear(len(TOKENS), 16)

    def run(encoder, feats, lengths):
        return encoded(lambda *inputs: encoder(*inputs, ctc=ctc), feats, lengths)

    check_random_structures(model, 6, run)


def test_a_layer_that_ctc_hears_keeps_its_place_when_blocks_before_it_go():
    model = tiny_encoder("transformer", num_blocks=4, interctc_layer_idx=[3])
    gated = gate(model)
    assert "block.2" not in gated.site_map.sites
    masks = {name: torch.ones(site.units) for name, site in gated.site_map.sites.items()}
    masks["block.0"].zero_()
    small = cut(gated, masks)
    assert small.interctc_layer_idx == [2] and model.interctc_layer_idx == [3]


@torch.no_grad()
def test_a_cut_model_is_saved_loaded_and_exported(tmp_path):
    gated = gate(whole())
    small = cut(gated, random_structure(gated, seed=3)).eval()
    loaded = load(save(small, tmp_path / "small"))
    before, after = (random_outputs(each, 1.0, decoder=True) for each in (small, loaded))
    assert torch.equal(before, after)
    assert max(export_onnx(loaded, tmp_path / "onnx").values()) < 1e-4


@torch.no_grad()
def test_the_labels_loss_is_espnet_s_own():
    model = whole()
    batch = {
        "speech": torch.randn(2, 16000, generator=torch.Generator().manual_seed(1)),
        "speech_lengths": torch.tensor([16000, 12000]),
        "text": torch.tensor([[2, 3, 2], [3, 2, -1]]),
        "text_lengths": torch.tensor([3, 2]),
    }
    theirs, stats, _ = model(**copy.deepcopy(batch))
    learning = DistilledModel(model, copy.deepcopy(model), ALONE, StudentConfig()).eval()
    ours, own, _ = learning(**copy.deepcopy(batch))
    assert float(ours) == pytest.approx(float(theirs), rel=1e-5)
    assert float(own["loss_interctc"]) == pytest.approx(float(stats["loss_interctc_layer1"]))


@torch.no_grad()
def test_the_same_model_is_no_layers_away_from_itself():
    model = whole("e_branchformer")
    config = DistillConfig(label_weight=0.0, ctc_weight=0.0, attention_weight=0.0)
    learning = DistilledModel(model, copy.deepcopy(model), config, StudentConfig()).eval()
    _, stats, _ = learning(
        torch.randn(1, 16000), torch.tensor([16000]), torch.tensor([[2, 3]]), torch.tensor([2])
    )
    assert float(stats["loss_layer"]) == pytest.approx(0.0, abs=1e-6)
