"""Attention by random features: near to softmax, padding unseen, masked equals cut, rebuilt."""

import pytest
import torch
from tiny_models import AllSites, encoder, features
from torch.nn import functional as F

from espnet_prune.errors import ConfigError, ModelError
from espnet_prune.methods import make_method
from espnet_prune.sites.linear_attention import (
    LinearAttention,
    by_features,
    orthogonal_features,
)
from espnet_prune.surgery import cut, inject, load, plan_of, save
from espnet_prune.surgery.holding import holding


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_many_features_come_near_to_softmax_attention():
    q, k, v = (0.5 * drawn(seed, 2, 3, 20, 8) for seed in (1, 2, 3))
    exact = F.scaled_dot_product_attention(q, k, v)
    errors = [
        float((by_features(q, k, v, orthogonal_features(number, 8, 0), None) - exact).abs().mean())
        for number in (16, 8192)
    ]
    assert errors[1] < 0.01 and errors[1] < 0.4 * errors[0]


def test_features_of_a_group_are_orthogonal_and_the_seed_decides():
    found = orthogonal_features(8, 8, 0)
    products = found @ found.T
    assert torch.allclose(products, torch.diag(products.diagonal()), atol=1e-4)
    assert found.equal(orthogonal_features(8, 8, 0))
    assert not found.equal(orthogonal_features(8, 8, 1))


def test_padding_is_not_seen():
    attention = LinearAttention(encoder().encoders[0].self_attn)
    x, mask = drawn(0, 1, 9, 16), torch.ones(1, 1, 9, dtype=torch.bool)
    mask[..., 6:] = False
    with torch.no_grad():
        padded = attention(x, x, x, None, mask)[:, :6]
        alone = attention(*[x[:, :6]] * 3, None, None)
    assert torch.allclose(padded, alone, atol=1e-5)


def outputs(model) -> torch.Tensor:
    with torch.no_grad():
        return model(*features())[0]


def test_performer_replaces_every_block_and_is_rebuilt(tmp_path):
    method = make_method("performer", target=1.0)
    gated = inject(encoder(), method).eval()
    assert torch.equal(outputs(gated), outputs(encoder()))
    masks = method.masks(gated)
    with torch.no_grad(), holding(gated, masks):
        masked = gated(*features())[0]
    small = cut(gated, masks)
    assert torch.equal(outputs(small), masked) and not torch.equal(masked, outputs(encoder()))
    assert all(type(block.self_attn) is LinearAttention for block in small.encoders)
    removed = sum(p.numel() for p in encoder().parameters()) - sum(
        p.numel() for p in small.parameters()
    )
    assert removed == gated.budget.prunable and gated.budget.hard(masks) == 0
    loaded = load(save(small, tmp_path))
    assert torch.equal(outputs(loaded), masked)
    assert plan_of(loaded).to_json() == plan_of(small).to_json()
    with pytest.raises(ModelError, match="already cut"):
        inject(small, method)


def test_some_blocks_may_keep_softmax(tmp_path):
    gated = inject(encoder(), AllSites(("softmax_attention",), learned=False)).eval()
    gated.gate("block.1.softmax").set(torch.zeros(1))
    loaded = load(save(cut(gated), tmp_path))
    kinds = [type(block.self_attn) is LinearAttention for block in loaded.encoders]
    assert kinds == [False, True]
    assert torch.allclose(outputs(loaded), outputs(gated), atol=1e-6)


def test_the_target_is_all_of_it():
    with pytest.raises(ConfigError, match="target: 0.5"):
        make_method("performer", target=0.5)
    with pytest.raises(ConfigError, match="budget: measure: macs of linear attention"):
        make_method("performer", {"budget": {"measure": "macs"}}, target=1.0)
