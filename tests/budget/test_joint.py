"""Parameters and MACs held together: whichever is more counts."""

import pytest
import torch
from tiny_models import encoder, features

from espnet_prune.budget import Budget
from espnet_prune.methods import make_method
from espnet_prune.surgery import inject

JOINT = {"budget": {"measure": "parameters_and_macs"}}
KINDS = ("feed_forward_unit", "front_end_channel")


def sparsities(gated, masks) -> dict[str, float]:
    found = {}
    for measure in ("parameters", "macs"):
        budget = Budget(gated.site_map, gated.gate_names(), measure)
        found[measure] = float(budget.sparsity(budget.hard(masks)))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_the_sparsity_is_the_smaller_one(kind):
    """Feed-forwards are many parameters and few MACs, front-ends the other way round."""
    gated = inject(encoder(), make_method("magnitude", JOINT)).eval()
    masks = gated.hard_masks()
    for site in gated.site_map.of_kinds((kind,)):
        masks[site.name] = (torch.arange(site.units) >= site.units // 2).float()
    both = sparsities(gated, masks)
    found = float(gated.budget.sparsity(gated.budget.hard(masks)))
    assert found == pytest.approx(min(both.values()), abs=1e-4)
    assert abs(both["parameters"] - both["macs"]) > 0.02
    probabilities = {n: masks[n].double().clamp(1e-12) for n in gated.gate_names()}
    assert float(gated.budget.sparsity(gated.budget.expected(probabilities))) == pytest.approx(
        found, abs=1e-4
    )
    assert gated.budget.sparsity(gated.budget.hard(inject(encoder(), make_method(
        "magnitude", JOINT)).eval().hard_masks())) == 0  # fmt: skip


@pytest.mark.parametrize("target", [0.3, 0.6])
def test_a_target_is_reached_in_both(target):
    method = make_method("magnitude", JOINT, target=target)
    gated = inject(encoder(output_size=32, linear_units=96), method).eval()
    both = sparsities(gated, method.masks(gated))
    assert min(both.values()) == pytest.approx(target, abs=0.006)


def test_the_exact_controller_holds_the_tighter_one():
    method = make_method("l0", JOINT, target=0.4, updates=4)
    gated = inject(encoder(), method).train()
    optimizer = torch.optim.Adam(method.parameter_groups(gated))
    for _ in range(4):
        loss = gated(*features())[0].square().mean() + method.loss(gated)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        gated.after_update()
    parts = [
        float(part.sparsity(part.expected({n: gated.gate(n).probabilities() for n in
              gated.gate_names()})))
        for part in gated.budget.parts
    ]  # fmt: skip
    target = method.schedule.at(3, float(gated.start_sparsity))
    assert min(parts) == pytest.approx(target, abs=2e-3)
