"""Every kind of ESPnet's encoders: masked equals cut, sizes exact, saved equals loaded."""

import pytest
import torch
from random_structures import check_random_structures, encoded, gate
from tiny_encoders import ENCODERS, tiny_encoder
from tiny_models import AllSites, features, saturate

from espnet_prune.errors import ModelError
from espnet_prune.models.espnet.known import check_encoder
from espnet_prune.surgery import inject, load, save

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
ABSOLUTE = {"pos_enc_layer_type": "abs_pos"}
KINDS = {
    "conformer": [
        {"rel_pos_type": "latest"},
        {"rel_pos_type": "latest", "zero_triu": True},
        {**ABSOLUTE, "selfattention_layer_type": "selfattn"},
        {
            "pos_enc_layer_type": "scaled_abs_pos",
            "selfattention_layer_type": "selfattn",
            "qk_norm": True,
            "use_sdpa": True,
        },
        {"input_layer": "conv2d1"},
        {"input_layer": "conv2d2"},
        {"input_layer": "conv2d6"},
        {"input_layer": "conv2d8"},
        {"input_layer": "linear"},
        {"input_layer": None, "output_size": 80},
        {"interctc_layer_idx": [1], "num_blocks": 3},
        {"normalize_before": False},
        {"macaron_style": False, "use_cnn_module": False, "activation_type": "relu"},
        {"positionwise_layer_type": "conv1d"},
        {"positionwise_layer_type": "conv1d-linear"},
    ],
    "transformer": [
        {"input_layer": "conv2d8"},
        {"input_layer": "conv1d2"},
        {"input_layer": "linear"},
        {"input_layer": None},
        {"input_layer": "wav2vec", "output_size": 80},
        {"normalize_before": False},
        {"interctc_layer_idx": [2], "num_blocks": 3},
        {"positionwise_layer_type": "conv1d", "positionwise_conv_kernel_size": 3},
    ],
    "branchformer": [
        {"merge_method": "learned_ave"},
        {"merge_method": "fixed_ave", "cgmlp_weight": 0.3},
        {"use_cgmlp": False},
        {"use_attn": False},
        {"rel_pos_type": "legacy"},
        {**ABSOLUTE, "attention_layer_type": "selfattn", "use_linear_after_conv": True},
    ],
    "e_branchformer": [
        {"input_layer": "conv1d1"},
        {"input_layer": "conv1d2"},
        {"input_layer": "conv1d3"},
        {"use_ffn": False, "macaron_ffn": False},
        {"rel_pos_type": "legacy", "macaron_ffn": False},
        {**ABSOLUTE, "attention_layer_type": "selfattn", "use_linear_after_conv": True},
        {"interctc_layer_idx": [1], "num_blocks": 3, "merge_conv_kernel": 5},
    ],
    "contextual_conformer": [
        {"input_layer": "conv2d8", "macaron_style": False, "use_cnn_module": False},
        {"input_layer": "linear", "positionwise_layer_type": "conv1d"},
        {"block_size": 0, "normalize_before": False, "num_blocks": 3},
    ],
    "contextual_transformer": [
        {"input_layer": "conv2d6"},
        {"block_size": 40, "hop_size": 16, "look_ahead": 16, "ctx_pos_enc": False},
    ],
    "multiconvformer": [
        {"multicgmlp_type": "weighted_sum"},
        {"multicgmlp_type": "concat", "use_linear_after_conv": True},
        {"multicgmlp_type": "concat_fusion", "rel_pos_type": "legacy"},
    ],
}
EACH = [(family, options) for family, kinds in KINDS.items() for options in kinds]


def shown(value: object) -> str | None:
    """What a case is called."""
    return " ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else None


@pytest.mark.parametrize("family", ENCODERS)
def test_masked_equals_cut_on_twenty_structures(family):
    check_random_structures(tiny_encoder(family))


@pytest.mark.parametrize(("family", "options"), EACH, ids=shown)
def test_masked_equals_cut_and_saved_equals_loaded(family, options, tmp_path):
    small = check_random_structures(tiny_encoder(family, **options), number=4)
    loaded = load(save(small, tmp_path / "small"))
    with torch.no_grad():
        assert torch.equal(encoded(loaded, *features()), encoded(small, *features()))


@pytest.mark.parametrize("family", ENCODERS)
def test_a_dense_encoder_shows_the_options_that_build_it(family, tmp_path):
    model = tiny_encoder(family, dropout_rate=0.25, attention_dropout_rate=0.05)
    loaded = load(save(model, tmp_path / "dense"))
    assert str(loaded) == str(model)
    with torch.no_grad():
        assert torch.equal(encoded(loaded, *features()), encoded(model, *features()))


@pytest.mark.parametrize("family", ENCODERS)
def test_expected_size_equals_hard_size_when_gates_saturate(family):
    gated = inject(tiny_encoder(family), AllSites()).eval()
    saturate(gated)
    with torch.no_grad():
        assert float(gated.expected_sparsity()) == pytest.approx(gated.hard_sparsity(), abs=1e-9)
    assert 0.2 < gated.hard_sparsity() < 1


@pytest.mark.parametrize("family", ENCODERS)
def test_all_masks_get_gradients_and_all_gone_still_runs(family):
    gated = inject(tiny_encoder(family), AllSites()).train()
    with torch.no_grad():
        for each in gated.gates.values():
            each.log_alpha.zero_()
    encoded(gated, *features()).pow(2).mean().backward()
    assert all(gated.gate(n).log_alpha.grad is not None for n in gated.gate_names())
    fixed = gate(tiny_encoder(family))
    for name in fixed.gate_names():
        fixed.gate(name).set(torch.zeros(fixed.gate(name).units))
    with torch.no_grad():
        assert torch.isfinite(encoded(fixed, *features())).all()


@pytest.mark.parametrize(
    ("family", "options", "named"),
    [
        (
            "conformer",
            {"pos_enc_layer_type": "conv", "selfattention_layer_type": "selfattn"},
            "pos_enc_layer_type: ConvolutionalPositionalEmbedding isn't known; known are Pos",
        ),
        ("conformer", {"concat_after": True}, "concat_after"),
        ("conformer", {"ctc_trim": True}, "ctc_trim"),
        ("conformer", {"input_layer": "embed"}, "input_layer: Embedding isn't known.*conv2d8"),
        (
            "e_branchformer",
            {"attention_layer_type": "fast_selfattn", **ABSOLUTE},
            "FastSelfAttention, which isn't known; known are MultiHeadedAttention",
        ),
        ("e_branchformer", {"gradient_checkpoint_layers": [1]}, "gradient_checkpoint_layers"),
    ],
)
def test_what_is_not_known_is_named(family, options, named):
    with pytest.raises(ModelError, match=named):
        inject(tiny_encoder(family, **options), AllSites())


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({}, "my.yaml: encoder: rnn can't be pruned; known are branchformer, conformer, .*models/"),
        ({"encoder": "vgg_rnn"}, "encoder: vgg_rnn can't be pruned"),
        (
            {"encoder": "conformer", "encoder_conf": {"input_layer": "embed"}},
            "encoder_conf: input_layer: 'embed' can't be pruned; known are conv2d, ",
        ),
        (
            {
                "encoder": "e_branchformer",
                "encoder_conf": {"attention_layer_type": "fast_selfattn"},
            },
            "attention_layer_type: 'fast_selfattn' can't be pruned; known are rel_selfattn, ",
        ),
    ],
)
def test_what_is_not_known_is_named_before_anything_is_built(config, named):
    with pytest.raises(ModelError, match=named):
        check_encoder(config, "my.yaml")


@pytest.mark.parametrize("choice", ["conformer", "nemo_conformer", "ssl", "whisper_hf"])
def test_known_encoders_pass(choice):
    assert choice in {*check_encoder({"encoder": choice}, "my.yaml").choices, "conformer"}
