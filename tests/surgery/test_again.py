"""A cut model is pruned again: one plan of both cuts, from the model that was never cut."""

import pytest
import torch
from random_structures import check, encoded, gate, random_structure
from tiny_encoders import ENCODERS, tiny_encoder
from tiny_models import AllSites, encoder, features

from espnet_prune.errors import ModelError
from espnet_prune.models.espnet.build import build_asr_model
from espnet_prune.models.espnet.features import random_outputs
from espnet_prune.sites import DecoderConfig
from espnet_prune.surgery import cut, inject, load, plan_of, save
from espnet_prune.surgery.plan import Plan, SitePlan, encoder_blocks

BLOCKS = 4


def halved(gated, seed: int) -> dict[str, torch.Tensor]:
    """A random structure that leaves some of the front-end."""
    masks = random_structure(gated, seed)
    for name in ("front_end.0", "front_end.1"):
        masks[name][0] = 1.0
    return masks


@pytest.mark.parametrize("family", ENCODERS)
def test_cut_three_times_saved_and_loaded(family, tmp_path):
    model = tiny_encoder(family, num_blocks=BLOCKS)
    for seed in (1, 2, 3):  # soft, hard, soft
        gated = gate(model)
        model = check(gated, halved(gated, seed)).eval()
    assert all(site.units >= len(site.kept) for site in plan_of(model).sites.values())
    loaded = load(save(model, tmp_path / "small"))
    assert plan_of(loaded) == plan_of(model)
    with torch.no_grad():
        assert torch.equal(encoded(loaded, *features()), encoded(model, *features()))


def test_units_and_blocks_of_both_cuts_are_counted_from_the_first_model():
    first = Plan(
        {
            "front_end.0": SitePlan("front_end_channel", None, 5, (1, 2, 4)),
            "block.0.x": SitePlan("head", 0, 4, ()),
            "block.1.x": SitePlan("head", 1, 4, (0, 3)),
            "block.0": SitePlan("block", 0, 1, ()),
            "block.1": SitePlan("block", 1, 1, (0,)),
        }
    )
    second = Plan(
        {
            "front_end.0": SitePlan("front_end_channel", None, 3, (0, 2)),
            "block.0.x": SitePlan("head", 0, 2, (1,)),
            "block.0": SitePlan("block", 0, 1, (0,)),
            "decoder.block.0.x": SitePlan("head", 1, 2, (1,)),
        }
    )
    both = second.after(first)
    kept = {name: site.kept for name, site in both.sites.items()}
    assert kept == {
        "front_end.0": (1, 4),
        "block.0.x": (),
        "block.1.x": (3,),
        "block.0": (),
        "block.1": (0,),
        "decoder.block.0.x": (1,),
    }
    assert both.sites["block.1.x"].units == 4


@torch.no_grad()
def test_a_whole_model_whose_decoder_is_cut_the_second_time(tmp_path):
    torch.manual_seed(0)
    model = build_asr_model(
        {
            "token_list": ["<blank>", "<unk>", "A", "B", "<sos/eos>"],
            "token_type": "char",
            "normalize": None,
            "encoder": "conformer",
            "encoder_conf": {**ENCODERS["conformer"], "num_blocks": BLOCKS},
            "decoder": "transformer",
            "decoder_conf": {"attention_heads": 2, "linear_units": 16, "num_blocks": 2},
        }
    ).eval()
    gated = gate(model)
    masks = halved(gated, 2)
    masks["block.1"] *= 0
    first = load(save(cut(gated, masks).eval(), tmp_path / "first"))
    again = AllSites(learned=False)
    again.decoder = DecoderConfig()
    gated = inject(first, again).eval()
    masks = halved(gated, 4)
    for name in gated.gate_names():
        gated.gate(name).set(masks[name])
    second = cut(gated, masks).eval()
    masked = random_outputs(gated.model, 1.0, decoder=True)
    assert torch.allclose(random_outputs(second, 1.0, decoder=True), masked, atol=1e-5)
    loaded = load(save(second, tmp_path / "second"))
    assert torch.equal(
        random_outputs(loaded, 1.0, decoder=True), random_outputs(second, 1.0, decoder=True)
    )
    assert set(encoder_blocks(second)) <= set(encoder_blocks(first)) < set(range(BLOCKS))


def test_a_model_that_hears_nothing_is_refused_by_name():
    gated = gate(encoder())
    masks = {name: torch.ones(site.units) for name, site in gated.site_map.sites.items()}
    masks["front_end.1"].zero_()
    deaf = cut(gated, masks)
    with pytest.raises(ModelError, match="front_end: .*hears nothing"):
        inject(deaf, AllSites(learned=False))
