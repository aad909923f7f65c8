"""FlexiGPT: equal blocks are shared for nothing, what differs comes back by its directions."""

import copy
import logging
import re

import pytest
import torch
from tiny_models import encoder, features

from espnet_prune.errors import ConfigError
from espnet_prune.methods import make_method
from espnet_prune.models.conformer.fast_encoder import slow_down, speed_up
from espnet_prune.surgery import cut, inject, load, plan_of, save
from espnet_prune.surgery.holding import holding

DEEP = {"output_size": 32, "linear_units": 96, "num_blocks": 4}
MATRICES = ("self_attn", "feed_forward", "feed_forward_macaron")


def with_twins() -> torch.nn.Module:
    """An encoder whose third block has the second one's matrices, and one that differs a little."""
    model = encoder(**DEEP)
    for name in MATRICES:
        own = copy.deepcopy(getattr(model.encoders[1], name))
        setattr(model.encoders[2], name, own)
    with torch.no_grad():
        weight = model.encoders[2].feed_forward.w_1.weight
        weight += torch.randn(96, 1) @ torch.randn(1, 32)
    return model


def chosen(target: float, model=None, **options):
    """The gated model and masks by how far its output moves."""
    model = model or encoder(**DEEP)
    dense = outputs(model)
    method = make_method("flexigpt", options, target=target)
    gated = inject(model, method).eval()
    moved = [lambda: (gated(*features())[0] - dense).square().mean()]
    return gated, method.masks(gated, moved)


def outputs(model) -> torch.Tensor:
    with torch.no_grad():
        return model(*features())[0]


def test_a_block_like_the_one_before_it_goes_first_and_changes_nothing(tmp_path):
    gated, masks = chosen(0.2, with_twins())
    assert {name.split(".")[1] for name, mask in masks.items() if not mask.all()} == {"2"}
    with torch.no_grad(), holding(gated, masks):
        masked = gated(*features())[0]
    small = cut(gated, masks)
    assert torch.allclose(masked, outputs(with_twins()), atol=1e-4)
    assert torch.allclose(outputs(small), masked, atol=1e-5)
    lent, own = small.encoders[1].feed_forward.w_2, small.encoders[2].feed_forward.w_2
    assert own.shared is lent.weight
    feats, lengths = features()[0][:1], torch.tensor([features()[0].shape[1]])
    with torch.no_grad():
        alone = small(feats, lengths)[0]
        assert speed_up(small)
        assert torch.allclose(small(feats, lengths)[0], alone, atol=1e-5)
    slow_down(small)
    loaded = load(save(small, tmp_path))
    assert torch.equal(outputs(loaded), outputs(small))
    assert loaded.encoders[2].feed_forward.w_2.shared is loaded.encoders[1].feed_forward.w_2.weight
    assert plan_of(loaded).to_json() == plan_of(small).to_json()


@pytest.mark.parametrize("target", [0.3, 0.6])
def test_shared_weights_count_once_and_lenders_are_whole(target):
    gated, masks = chosen(target)
    small = cut(gated, masks)
    removed = sum(p.numel() for p in gated.model.parameters()) - sum(
        p.numel() for p in small.parameters()
    )
    assert removed == gated.budget.prunable - gated.budget.hard(masks)
    reached = float(gated.budget.sparsity(gated.budget.hard(masks)))
    assert reached == pytest.approx(target, abs=0.005)
    for name, site in plan_of(small).sites.items():
        whole = len(site.kept) == site.units
        assert (site.lender is None) == whole, name
        if not whole:
            lender = plan_of(small).sites[site.lender]
            assert len(lender.kept) == lender.units


@pytest.mark.parametrize("target, said", [(0.05, "none"), (0.6, r"\d(, \d)*")])
def test_it_says_which_blocks_borrow(target, said, caplog):
    caplog.set_level(logging.INFO)
    chosen(target)
    assert re.search(f"flexigpt: borrowing: {said}, and in part", caplog.text)


def test_more_than_all_blocks_but_one_is_refused():
    with pytest.raises(ConfigError, match="target: 90.0%: all blocks but one borrowed"):
        chosen(0.9, rank_share=0.5)
