"""COMP: condition numbers, cosines of blocks and their share of the target."""

import pytest
import torch
from tiny_models import encoder, passes_of

from espnet_prune.methods import make_method
from espnet_prune.methods.comp import block_changes, condition, condition_scores
from espnet_prune.methods.dropping import sparsity_without
from espnet_prune.methods.fisher import unit_costs
from espnet_prune.methods.kcm import loudness
from espnet_prune.surgery import inject

WIDE = {"output_size": 32, "linear_units": 96, "num_blocks": 4}
UNITS = "block.0.feed_forward.units"


def gated_of(method, model=None):
    return inject(model or encoder(**WIDE), method).eval()


def test_the_condition_is_the_ratio_of_singular_values_that_are_not_0():
    matrix = torch.diag(torch.tensor([8.0, 2.0, 0.0])).double()
    assert condition(matrix) == pytest.approx(4.0)
    assert condition(torch.eye(3).double()[:, :2]) == pytest.approx(1.0)


def test_a_score_is_the_bound_of_the_relative_error_for_what_a_unit_costs():
    gated = gated_of(make_method("comp"))
    site, passes = gated.site_map.sites[UNITS], passes_of(gated, 2)
    values = torch.linalg.svdvals(site.consumer.weight.detach().double())
    bound = values[0] / values[-1] * loudness(gated, [site], passes)[UNITS]
    found = condition_scores(gated, passes)[UNITS] * unit_costs(gated.budget, [UNITS])[UNITS]
    assert torch.allclose(found, bound)


def test_a_block_that_changes_nothing_has_the_cosine_1():
    model = encoder(**WIDE)
    block = model.encoders[2]
    with torch.no_grad():
        for last in (
            block.feed_forward.w_2, block.feed_forward_macaron.w_2, block.self_attn.linear_out,
            block.conv_module.pointwise_conv2,
        ):  # fmt: skip
            last.weight.zero_()
            last.bias.zero_()
        block.norm_final = torch.nn.Identity()
    changes = block_changes(gated_of(make_method("comp"), model), passes_of(model, 2))
    assert changes["block.2"] == pytest.approx(0, abs=1e-6)
    assert min(value for name, value in changes.items() if name != "block.2") > 1e-3


@pytest.mark.parametrize("share, blocks", [(0.0, 0), (0.7, 1), (1.0, 2)])
def test_blocks_take_at_most_their_share(share, blocks):
    method = make_method("comp", {"comp": {"layer_share": share}}, target=0.5)
    gated = gated_of(method)
    masks = method.masks(gated, passes_of(gated, 2))
    gone = [n for n in masks if n.count(".") == 1 and n.startswith("block") and not masks[n].any()]
    assert len(gone) == blocks
    assert float(gated.budget.sparsity(gated.budget.hard(masks))) == pytest.approx(0.5, abs=0.005)
    if not blocks:
        assert any(((m != 0) & (m != 1)).any() for m in masks.values()), "masks are tuned"


def test_a_block_that_takes_exactly_the_share_goes():
    gated = gated_of(make_method("comp"))
    changes = block_changes(gated, passes_of(gated, 2))
    first = sparsity_without(gated, [min(changes, key=changes.__getitem__)])
    for target, number in ((first, 1), (first - 1e-6, 0)):
        method = make_method("comp", {"comp": {"layer_share": 1.0}}, target=target)
        gated = gated_of(method)
        masks = method.masks(gated, passes_of(gated, 2))
        assert sum(not masks[name].any() for name in changes) == number
