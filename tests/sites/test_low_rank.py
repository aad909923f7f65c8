"""Matrices of low rank: masked equals cut, sizes exact, saved and loaded, also after a cut."""

import pytest
import torch
from tiny_models import AllSites, encoder, features, random_mask, saturate
from torch.nn import functional as F

from espnet_prune.errors import ModelError
from espnet_prune.models.conformer.fast_encoder import is_fast, slow_down, speed_up
from espnet_prune.models.conformer.fast_training import speed_up_training
from espnet_prune.sites import KINDS, RANK
from espnet_prune.sites.low_rank import LowRankLinear, narrowed, singular_vectors
from espnet_prune.surgery import cut, inject, load, plan_of, save

TOLERANCE = 2e-5
FIRST = "block.0.feed_forward.w_1"


def gated_with(setter, model=None, learned: bool = False):
    """A gated encoder; ``setter(site)`` gives each matrix's mask (units,)."""
    gated = inject(model or encoder(), AllSites((RANK,), learned=learned)).eval()
    for name in gated.gate_names() if not learned else ():
        gated.gate(name).set(setter(gated.site_map.sites[name]))
    return gated


def half(site) -> torch.Tensor:
    return random_mask(site, soft=False)


def soft(site) -> torch.Tensor:
    """Open to different degrees, and one matrix without any zero."""
    mask = random_mask(site, soft=True)
    return mask + 0.1 if site.name == FIRST else mask


def one_gone(site) -> torch.Tensor:
    return torch.zeros(site.units) if site.name.endswith("w_1") else torch.ones(site.units)


def outputs(model) -> torch.Tensor:
    with torch.no_grad():
        return model(*features())[0]


def test_a_mask_leaves_the_directions_that_are_open():
    weight = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    basis = singular_vectors(weight, 2)
    left, values, right = torch.linalg.svd(weight, full_matrices=False)
    assert narrowed(weight, basis, torch.ones(2)).equal(weight)
    first = values[0] * left[:, :1] @ right[:1]
    assert torch.allclose(narrowed(weight, basis, torch.tensor([0.5, 0.0])), 0.5 * first, atol=1e-6)
    without_half = weight - 0.5 * first
    assert torch.allclose(
        narrowed(weight, basis, torch.tensor([0.5, 1.0])), without_half, atol=1e-6
    )


@pytest.mark.parametrize("setter", [half, soft, one_gone])
def test_masked_equals_cut_and_sizes_are_exact(setter, tmp_path):
    gated = gated_with(setter)
    small = cut(gated)
    assert float((outputs(gated) - outputs(small)).abs().max()) < TOLERANCE
    kept = sum(p.numel() for p in small.parameters())
    budget, masks = gated.budget, gated.hard_masks()
    assert kept == budget.total - budget.prunable + budget.hard(masks)
    assert budget.total == sum(p.numel() for p in encoder().parameters())
    loaded = load(save(small, tmp_path))
    assert torch.equal(outputs(loaded), outputs(small))
    assert plan_of(loaded).to_json() == plan_of(small).to_json()


def test_open_gates_change_nothing_bit_for_bit():
    gated = gated_with(lambda site: torch.ones(site.units))
    assert torch.equal(outputs(gated), outputs(encoder()))
    small = cut(gated)
    assert torch.equal(outputs(small), outputs(encoder()))
    assert set(small.state_dict()) == set(encoder().state_dict())


def test_the_expected_size_is_the_hard_one_once_gates_saturate():
    gated = gated_with(None, learned=True)
    saturate(gated)
    with torch.no_grad():
        gated.gate(FIRST).log_alpha.fill_(60.0)
    masks = gated.hard_masks()
    assert masks[FIRST].all()
    probabilities = {name: gated.gate(name).probabilities() for name in gated.gate_names()}
    expected = float(gated.budget.expected(probabilities).detach())
    assert expected == pytest.approx(gated.budget.hard(masks), rel=1e-9)


def test_ranks_are_cut_after_units_and_both_are_rebuilt(tmp_path):
    units = inject(encoder(), AllSites(KINDS, learned=False)).eval()
    for name in units.gate_names():
        site = units.site_map.sites[name]
        keeps = name != "block.1.convolution" and not name.startswith("block.0.macaron")
        units.gate(name).set(random_mask(site, False) if keeps else torch.zeros(site.units))
    first = cut(units)
    gated = gated_with(half, model=first)
    both = cut(gated)
    assert float((outputs(gated) - outputs(both)).abs().max()) < TOLERANCE
    loaded = load(save(both, tmp_path))
    assert torch.equal(outputs(loaded), outputs(both))
    assert sum(p.numel() for p in both.parameters()) < sum(p.numel() for p in first.parameters())
    with pytest.raises(ModelError, match="already cut"):
        gated_with(half, model=both)


def test_faster_passes_give_the_same(tmp_path):
    small = cut(gated_with(half))
    feats = features()[0][:1]
    lengths = torch.tensor([feats.shape[1]])
    with torch.no_grad():
        expected = small(feats, lengths)[0]
        assert speed_up(small) and is_fast(small)
        assert torch.allclose(small(feats, lengths)[0], expected, atol=1e-5)
    slow_down(small)
    speed_up_training(small)
    with torch.no_grad():
        assert torch.allclose(small(feats, lengths)[0], expected, atol=1e-5)


def test_a_layer_that_is_two_has_their_product_as_weight():
    first, second = torch.randn(2, 7), torch.randn(5, 2)
    layer, x = LowRankLinear(first, second, torch.randn(5)), torch.randn(3, 7)
    assert torch.allclose(layer(x), F.linear(x, layer.weight, layer.bias), atol=1e-5)
    empty = LowRankLinear(torch.zeros(0, 7), torch.zeros(5, 0), torch.ones(5))
    assert empty(x).eq(1).all() and empty.weight.eq(0).all()
