"""OWSM's models, ESPnet's task s2t: an E-Branchformer with CTC and a decoder, pruned as a whole."""

import pytest
import torch
import yaml
from tiny_models import AllSites

import espnet_prune
from espnet_prune.errors import ModelError
from espnet_prune.methods import make_method
from espnet_prune.models.espnet.build import build_model
from espnet_prune.models.espnet.features import random_outputs
from espnet_prune.models.origins import open_origin
from espnet_prune.surgery import cut, inject, plan_of

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]
SPECIAL = ["<blank>", "<unk>", "<na>", "<nospeech>"]
# the published options of OWSM 3.1, with small sizes
CONFIG = {
    "token_list": [*SPECIAL, "<eng>", "<asr>", "A", "B", "<sop>", "<sos>", "<eos>"],
    "token_type": "char",
    "preprocessor": "s2t",
    "normalize": "global_mvn",
    "frontend_conf": {"n_fft": 512, "win_length": 400, "hop_length": 160},
    "encoder": "e_branchformer",
    "encoder_conf": {
        "output_size": 16,
        "attention_heads": 2,
        "attention_layer_type": "selfattn",
        "pos_enc_layer_type": "abs_pos",
        "rel_pos_type": "latest",
        "cgmlp_linear_units": 24,
        "cgmlp_conv_kernel": 31,
        "num_blocks": 2,
        "input_layer": "conv2d",
        "linear_units": 24,
        "use_ffn": True,
        "macaron_ffn": True,
        "merge_conv_kernel": 31,
    },
    "decoder": "transformer",
    "decoder_conf": {"attention_heads": 2, "linear_units": 24, "num_blocks": 2},
    "model_conf": {"ctc_weight": 0.3, "lsm_weight": 0.1, "report_cer": False, "report_wer": False},
}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build_model(CONFIG, "s2t").eval()


@torch.no_grad()
def test_encoder_and_decoder_are_cut_saved_and_loaded(model, tmp_path):
    method = make_method("magnitude", {"decoder": {}}, target=0.5, updates=4)
    gated = inject(model, method).eval()
    masks = method.masks(gated)
    small = cut(gated, masks).eval()
    assert any(name.startswith("decoder.") for name in plan_of(small).sites)
    before = random_outputs(small, 1.0, decoder=True)
    loaded = espnet_prune.load(espnet_prune.save(small, tmp_path / "small"))
    assert type(loaded).__name__ == "ESPnetS2TModel"
    assert torch.equal(random_outputs(loaded, 1.0, decoder=True), before)


def test_what_espnet_left_of_it_is_loaded_but_is_no_recipe_s_teacher(model, tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    torch.save(model.state_dict(), tmp_path / "valid.acc.ave.pth")
    loaded = espnet_prune.load(tmp_path)
    assert all(torch.equal(v, loaded.state_dict()[n]) for n, v in model.state_dict().items())
    assert inject(loaded, AllSites(learned=False)).gate_names()
    with pytest.raises(ModelError, match="task s2t; recipes train and decode those of task asr"):
        with open_origin(str(tmp_path)) as origin:
            origin.write_tokens(tmp_path)
