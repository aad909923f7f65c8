"""Model folding as a method: uniform widths at the target, weights merged before the cut."""

import copy

import pytest
import torch
from tiny_models import encoder, features

from espnet_prune.errors import ModelError
from espnet_prune.methods import make_method
from espnet_prune.surgery import cut, inject
from espnet_prune.surgery.holding import holding

WIDE = {"output_size": 32, "linear_units": 96, "num_blocks": 3}


def folded(target: float = 0.5):
    method = make_method("folding", target=target)
    gated = inject(encoder(**WIDE), method).eval()
    return method, gated, method.masks(gated)


def test_every_site_keeps_as_many_units_as_by_uniform_magnitude():
    _, _, masks = folded()
    method = make_method("uniform_magnitude", target=0.5)
    others = method.masks(inject(encoder(**WIDE), method).eval())
    assert {n: int(m.sum()) for n, m in masks.items()} == {
        n: int(m.sum()) for n, m in others.items()
    }
    assert any(not torch.equal(mask, others[name]) for name, mask in masks.items())


def test_choosing_changes_no_weight_and_rewriting_does():
    method, gated, masks = folded()
    stock = encoder(**WIDE).state_dict()
    assert all(torch.equal(value, stock[key]) for key, value in gated.model.state_dict().items())
    before = copy.deepcopy(gated)
    method.rewrite(gated, masks)
    small = cut(gated, masks)
    with torch.no_grad(), holding(gated, masks):
        masked = gated(*features())[0]
        assert (masked - small(*features())[0]).abs().max() < 5e-6
    with torch.no_grad(), holding(before, masks):
        assert not torch.allclose(masked, before(*features())[0], atol=1e-3)


def test_masks_of_another_method_can_t_be_folded():
    method, gated, masks = folded()
    masks["block.0.attention.heads"] = masks["block.0.attention.heads"].flip(0)
    with pytest.raises(ModelError, match=r"block\.0\.attention\.heads.*by folding"):
        method.rewrite(gated, masks)
