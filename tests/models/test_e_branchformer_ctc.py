"""OWSM-CTC's encoder, told language, task and a text: masked equals cut, intermediate CTC's too."""

import pytest
import torch
from random_structures import check_random_structures, gate, random_structure
from tiny_models import AllSites, features, randomise, saturate
from tiny_owsm_ctc import ENCODER, SIZE, TOKENS
from torch.utils.flop_counter import FlopCounterMode

from espnet_prune.budget import Budget
from espnet_prune.budget.structure import BRANCH
from espnet_prune.errors import ModelError
from espnet_prune.export.onnx import export_onnx
from espnet_prune.models.e_branchformer_ctc import FAMILY
from espnet_prune.models.espnet.known import check_encoder
from espnet_prune.models.espnet.prompt import PREFIX, TEXT_TOKENS
from espnet_prune.score.profile import eager_attention
from espnet_prune.sites.base import HEAD
from espnet_prune.surgery import cut, inject, load, save

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore::UserWarning")]
ALONE = {"interctc_use_conditioning": False}  # as an encoder by itself can be saved
SHORT = {**ALONE, "num_blocks": 2, "interctc_layer_idx": [1], "use_cross_attention": True}
PUBLISHED = {
    "num_blocks": 27,
    "interctc_layer_idx": [6, 12, 15, 21],
    "use_cross_attention": [0, 0, 1] * 9,
}
KINDS = [
    {**SHORT, "attention_layer_type": "rel_selfattn", "pos_enc_layer_type": "rel_pos"},
    {**SHORT, "input_layer": "conv2d", "use_linear_after_conv": True, "use_sdpa": True},
    {**SHORT, "input_layer": "conv1d2", "use_ffn": False, "macaron_ffn": False},
    {**SHORT, "use_cross_attention": False},
]


def owsm_encoder(**options) -> torch.nn.Module:
    """A tiny one, with the layer by which a whole model conditions it on CTC."""
    torch.manual_seed(0)
    encoder = FAMILY.stock_class()(80, **{**ENCODER, **options})
    if encoder.interctc_use_conditioning:
        encoder.conditioning_layer = torch.nn.Linear(len(TOKENS), SIZE)
    return randomise(encoder).eval()


def prompt(batch: int) -> dict[str, torch.Tensor]:
    """Random embeddings of two tokens and of a text."""
    generator = torch.Generator().manual_seed(3)
    return {
        "prefix_embeds": torch.randn(batch, len(PREFIX), SIZE, generator=generator),
        "memory": torch.randn(batch, TEXT_TOKENS, SIZE, generator=generator),
        "memory_mask": torch.ones(batch, 1, TEXT_TOKENS, dtype=torch.bool),
    }


def run(encoder: torch.nn.Module, feats: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Its output and all that intermediate CTC hears, (B, T, D) one behind the other."""
    from espnet2.asr.ctc import CTC

    torch.manual_seed(1)
    ctc = CTC(len(TOKENS), SIZE).eval()
    output, heard = encoder(feats, lengths, ctc=ctc, **prompt(len(feats)))[0]
    return torch.cat([output, *(stream for _, stream in heard)], dim=-1)


def test_masked_equals_cut_on_twenty_structures():
    check_random_structures(owsm_encoder(), run=run)


def test_masked_equals_cut_in_the_published_depth():
    small = check_random_structures(owsm_encoder(**PUBLISHED), 2, run)
    assert len(small.interctc_layer_idx) == len(PUBLISHED["interctc_layer_idx"])


@pytest.mark.parametrize("options", KINDS, ids=str)
@torch.no_grad()
def test_each_kind_is_cut_saved_and_loaded(options, tmp_path):
    small = check_random_structures(owsm_encoder(**options), 4, run)
    loaded = load(save(small, tmp_path / "small"))
    assert torch.equal(run(loaded, *features()), run(small, *features()))


def test_a_dense_one_shows_the_options_that_build_it(tmp_path):
    rates = {"dropout_rate": 0.25, "attention_dropout_rate": 0.05, "layer_drop_rate": 0.1}
    model = owsm_encoder(**ALONE, **rates)
    loaded = load(save(model, tmp_path / "dense"))
    assert str(loaded) == str(model)
    assert loaded.encoders.layer_drop_rate == 0.1
    assert loaded.interctc_layer_idx == [2, 3]


@torch.no_grad()
def test_cross_attention_is_cut_by_heads_and_whole():
    gated = gate(owsm_encoder())
    sites = gated.site_map.sites
    across = [name for name in sites if "cross_attention" in name]
    assert [sites[n].kind for n in across] == [HEAD, HEAD, BRANCH, BRANCH]
    masks = {name: torch.ones(site.units) for name, site in sites.items()}
    masks["block.2.cross_attention.heads"][:2] = 0.0
    masks["block.5.cross_attention"].zero_()
    small = cut(gated, masks)
    assert small.encoders[2].cross_attn.h == 2
    assert not any(name.startswith("encoders.5.norm_cross") for name in small.state_dict())
    assert not any(name.startswith("encoders.5.cross") for name in small.state_dict())


@torch.no_grad()
def test_its_length_is_known():
    encoder, (feats, lengths) = owsm_encoder(), features()
    assert FAMILY.positions(encoder, feats.shape[1]) == run(encoder, feats, lengths).shape[1]


def test_blocks_that_ctc_hears_stay_and_keep_their_places():
    gated = gate(owsm_encoder())
    blocks = {name for name in gated.site_map.sites if name.count(".") == 1}
    assert blocks >= {"block.0", "block.3", "block.4", "block.5"}
    assert not blocks & {"block.1", "block.2"}
    masks = {name: torch.ones(site.units) for name, site in gated.site_map.sites.items()}
    masks["block.0"].zero_()
    assert cut(gated, masks).interctc_layer_idx == [1, 2]


def test_expected_size_equals_hard_size_when_gates_saturate():
    gated = inject(owsm_encoder(), AllSites()).eval()
    saturate(gated)
    with torch.no_grad():
        assert float(gated.expected_sparsity()) == pytest.approx(gated.hard_sparsity(), abs=1e-9)
    assert 0.2 < gated.hard_sparsity() < 1


def test_all_masks_get_gradients():
    gated = inject(owsm_encoder(use_flash_attn=False), AllSites()).train()
    with torch.no_grad():
        for each in gated.gates.values():
            each.log_alpha.zero_()
    run(gated.model, *features()).pow(2).mean().backward()
    assert all(gated.gate(n).log_alpha.grad is not None for n in gated.gate_names())


@torch.no_grad()
def test_products_are_counted_once_where_flash_attention_is_asked_for_and_not_there():
    gated = gate(owsm_encoder())
    frames = round(gated.site_map.reference_seconds * 100)
    with eager_attention(gated.model), FlopCounterMode(display=False) as counter:
        run(gated.model, torch.zeros(1, frames, 80), torch.tensor([frames]))
    total = Budget(gated.site_map, gated.gate_names(), "macs").total
    assert counter.get_total_flops() // 2 == total
    assert gated.model.encoders[0].attn.use_flash_attn


@torch.no_grad()
def test_a_cut_one_is_cut_again():
    once = gate(owsm_encoder())
    small = cut(once, random_structure(once, seed=2)).eval()
    twice = gate(small)
    masks = random_structure(twice, seed=4)
    for name in twice.gate_names():
        twice.gate(name).set(masks[name])
    masked = run(twice.model, *features())
    assert torch.allclose(run(cut(twice, masks).eval(), *features()), masked, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"input_layer": "linear"}, "input_layer: Sequential doesn't put the tokens .* conv2d8, "),
        (
            {"attention_layer_type": "fast_selfattn"},
            "FastSelfAttention, which isn't known; known are MultiHeadedAttention",
        ),
    ],
)
def test_what_is_not_known_is_named(options, named):
    with pytest.raises(ModelError, match=named):
        inject(owsm_encoder(**options), AllSites())


@pytest.mark.parametrize("value", ["linear", None])
def test_a_front_end_without_a_place_for_the_tokens_is_named_before_all(value):
    config = {"encoder": "e_branchformer_ctc", "encoder_conf": {"input_layer": value}}
    with pytest.raises(ModelError, match="input_layer: .* can't be pruned; known are conv2d8, "):
        check_encoder(config, "my.yaml")


def test_an_export_alone_is_refused_by_name(tmp_path):
    with pytest.raises(ModelError, match="has nothing that tells it.*export the whole model"):
        export_onnx(owsm_encoder(), tmp_path / "onnx")
