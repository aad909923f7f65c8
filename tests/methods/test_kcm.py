"""Gradient-free pruning: the ranking by weights in closed form, loudness, and no look at a loss."""

import pytest
import torch
from tiny_models import encoder, passes_of

from espnet_prune.errors import ConfigError
from espnet_prune.methods import make_method
from espnet_prune.methods.kcm import filters_of, loudness, representativeness
from espnet_prune.surgery import inject

UNITS = "block.0.feed_forward.units"


def gated_of(model=None):
    return inject(model or encoder(), make_method("kcm")).eval()


def test_equal_filters_share_a_rank_and_a_lone_one_has_its_own():
    near, far = torch.tensor([1.0, 0.0]).double(), torch.tensor([0.0, 1.0]).double()
    filters = torch.stack([near, near, far])
    ranks = representativeness(filters, width=0.1, convergence=1e-9)
    assert ranks.tolist() == pytest.approx([0.5, 0.5, 1.0], abs=1e-3)


def test_the_first_step_is_the_root_of_the_mean_similarity():
    generator = torch.Generator().manual_seed(0)
    filters = torch.randn(5, 3, generator=generator).double()
    squares = (filters[:, None] - filters[None]).square().sum(dim=2)
    width = squares.sqrt().sum() / 20
    kernel = torch.exp(-squares / width**2)
    expected = kernel.mean(dim=1).rsqrt() / 5
    assert torch.allclose(representativeness(filters, 1.0, 0.5), expected)


@pytest.mark.parametrize("convergence, steps", [(0.52, 1), (0.45, 2), (0.25, 3)])
def test_it_is_done_once_the_sum_changes_by_less_than_asked_for(convergence, steps):
    # nothing is alike, so that each step takes the roots of what is on the diagonal
    ranks = representativeness(torch.eye(4).double(), width=0.01, convergence=convergence)
    assert ranks.tolist() == pytest.approx([4 ** -(0.5**steps)] * 4)


def test_a_filter_is_all_that_a_unit_feeds():
    gated = gated_of()
    sites, block = gated.site_map.sites, gated.model.encoders[0]
    assert torch.equal(filters_of(sites[UNITS]), block.feed_forward.w_2.weight.detach().T.double())
    heads = filters_of(sites["block.0.attention.heads"])
    assert torch.equal(heads[1].view(4, 16), block.self_attn.linear_out.weight[:, 4:8].T.double())
    channel = gated.model.embed.conv[2].weight[:, 3].flatten().double()
    assert torch.equal(filters_of(sites["front_end.0"])[3].view(9, -1).T.flatten(), channel)


def test_loudness_is_the_share_of_the_sites_power_and_a_silent_unit_has_none():
    model = encoder()
    with torch.no_grad():
        first = model.encoders[0].feed_forward.w_1
        first.weight[2], first.bias[2] = 0.0, 0.0  # activated, 0 stays 0
    gated = gated_of(model)
    seen = []
    handle = model.encoders[0].feed_forward.w_2.register_forward_pre_hook(
        lambda layer, inputs: seen.append(inputs[0].detach())
    )
    heard = loudness(gated, [gated.site_map.sites[UNITS]], passes_of(gated, 2))[UNITS]
    handle.remove()
    power = sum(x.double().square().sum(dim=(0, 1)) for x in seen)
    assert heard[2] == 0
    assert torch.allclose(heard.square(), power / power.sum(), rtol=1e-5)


def test_nothing_looks_at_a_loss():
    gated = gated_of()
    method = make_method("kcm", target=0.5)
    silent = [lambda run=run: run().mul(torch.nan) for run in passes_of(gated, 2)]
    masks = method.masks(gated, silent)
    assert masks.keys() == method.masks(gated, passes_of(gated, 2)).keys()
    assert float(gated.budget.sparsity(gated.budget.hard(masks))) == pytest.approx(0.5, abs=0.005)


@pytest.mark.parametrize("kernel", [{"width": 0}, {"convergence": 0.9}])
def test_wrong_options_are_named(kernel):
    with pytest.raises(ConfigError, match=f"kernel: {next(iter(kernel))}"):
        make_method("kcm", {"kernel": kernel})
