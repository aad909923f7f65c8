"""Sizes against the published arithmetic, targets, controllers."""

import pytest
import torch
from tiny_models import AllSites, encoder

from espnet_prune.budget import (
    Budget,
    Constraint,
    Lagrangian,
    TargetSchedule,
    fill_to_target,
    keep_highest,
    keep_same_share,
)
from espnet_prune.errors import ConfigError, ModelError
from espnet_prune.surgery import inject, sites_of


def librispeech_block(size: int, heads: int, units: int, kernel: int) -> int:
    model = encoder(
        output_size=size,
        attention_heads=heads,
        linear_units=units,
        cnn_module_kernel=kernel,
        num_blocks=1,
    )
    site_map = sites_of(model)
    counts = {name: site.units for name, site in site_map.sites.items()}
    block = [t for t in site_map.terms if t.factors and t.factors[0].startswith("block.0")]
    return sum(t.parameters * counts[t.factors[0]] for t in block)


@pytest.mark.parametrize(
    "shape, parameters", [((512, 8, 2048, 31), 6_323_712), ((256, 4, 1024, 31), 1_588_992)]
)
def test_block_costs_have_the_known_totals(shape, parameters):
    assert librispeech_block(*shape) == parameters


def test_front_end_cost_has_the_known_total():
    model = encoder(output_size=256, num_blocks=1)
    site_map = sites_of(model)
    front = sum(p.numel() for p in model.embed.parameters())
    assert front == 1_838_080
    budget = Budget(site_map, ["front_end.0", "front_end.1"])
    assert budget.prunable == front - 256  # the last bias stays


def test_denominator_counts_what_the_gates_can_reach():
    model = encoder()
    gated = inject(model, AllSites(("head",)))
    attention = 2 * (4 * (5 * 16 * 4 + 5 * 4) + 16 + 32)
    assert gated.budget.prunable == attention


def test_unknown_measure_is_named():
    with pytest.raises(ConfigError, match="flops.*macs"):
        Budget(sites_of(encoder()), ["block.0"], "flops")


def test_a_model_that_is_no_conformer_is_refused():
    with pytest.raises(ModelError, match="Linear"):
        sites_of(torch.nn.Linear(2, 2))


def test_schedule_starts_at_the_measured_sparsity_and_holds():
    schedule = TargetSchedule(0.5, 100)
    assert schedule.at(0, 0.1) == pytest.approx(0.1)
    assert schedule.at(50, 0.1) == pytest.approx(0.3)
    assert schedule.at(100, 0.1) == schedule.at(1000, 0.1) == 0.5


@pytest.mark.parametrize("target", [0.0, 1.0, 1.5, -0.1])
def test_target_out_of_range(target):
    with pytest.raises(ConfigError, match="target"):
        TargetSchedule(target, 10)


def solve(controller, learning_rate: float, updates: int = 4000) -> float:
    """min (x - 1)^2 / 2 s.t. sparsity s = 1 - x >= 0.6, so x = 0.4 in closed form."""
    x = torch.nn.Parameter(torch.tensor(0.9))
    descend = torch.optim.SGD([x], lr=0.02)
    ascend = torch.optim.SGD(controller.parameters(), lr=learning_rate, maximize=True)
    for _ in range(updates):
        loss = (x - 1) ** 2 / 2 + controller(1 - x, 0.6)
        descend.zero_grad()
        ascend.zero_grad()
        loss.backward()
        descend.step()
        ascend.step()
        controller.project()
    return float(x)


def test_lagrangian_converges_to_the_closed_form_solution():
    controller = Lagrangian()
    assert solve(controller, 0.05) == pytest.approx(0.4, abs=0.01)
    assert float(controller.lambda_linear) == pytest.approx(-0.6, abs=0.05)


def test_constraint_without_restarts_converges_and_its_multiplier_stays_positive():
    controller = Constraint(restart=False)
    assert solve(controller, 0.05) == pytest.approx(0.4, abs=0.01)
    assert float(controller.lambda_linear.detach()) == pytest.approx(0.6, abs=0.05)


def test_constraint_resets_once_met():
    controller = Constraint()
    with torch.no_grad():
        controller.lambda_linear.fill_(3.0)
    controller(torch.tensor(0.7), 0.6)
    controller.project()
    assert float(controller.lambda_linear.detach()) == 0.0


@pytest.mark.parametrize("choose", [keep_highest, keep_same_share])
@pytest.mark.parametrize("target", [0.3, 0.5, 0.7])
def test_selection_hits_the_target(choose, target):
    model = encoder(output_size=32, linear_units=96, num_blocks=3)
    kinds = ("head", "feed_forward_unit", "convolution_channel", "front_end_channel")
    gated = inject(model, AllSites(kinds, learned=False))
    scores = {n: gated.site_map.sites[n].magnitudes() for n in gated.gate_names()}
    masks = choose(scores, gated.budget, target, 0.005)
    reached = gated.budget.sparsity(gated.budget.hard(masks))
    assert reached == pytest.approx(target, abs=0.005)


def test_highest_scores_are_kept():
    gated = inject(encoder(), AllSites(("feed_forward_unit",), learned=False))
    scores = {n: torch.arange(24.0) for n in gated.gate_names()}
    masks = keep_highest(scores, gated.budget, 0.5, 0.005)
    name = "block.0.macaron.units"
    kept = masks[name].nonzero()[:, 0]
    assert kept.tolist() == list(range(24 - len(kept), 24))


@pytest.mark.parametrize("start", [0.45, 0.55])
def test_finer_units_fill_what_a_head_would_overshoot(start):
    """A head of the tiny encoder is several points; feed-forward units are half a point each."""
    gated = inject(encoder(), AllSites(("head", "feed_forward_unit"), learned=False))
    scores = {n: gated.site_map.sites[n].magnitudes() for n in gated.gate_names()}
    scores = {n: s + (0 if n.endswith("units") else 10) for n, s in scores.items()}
    near = keep_highest(scores, gated.budget, start, 1.0)
    filled = fill_to_target(near, scores, gated.budget, 0.5, 0.004)

    def sparsity(masks):
        return gated.budget.sparsity(gated.budget.hard(masks))

    assert abs(sparsity(near) - 0.5) > 0.03
    assert sparsity(filled) == pytest.approx(0.5, abs=0.004)
    again = fill_to_target(filled, scores, gated.budget, 0.5, 0.004)
    assert all(torch.equal(mask, again[name]) for name, mask in filled.items())


def test_budget_in_macs_weighs_the_front_end_more():
    model = encoder()
    parameters = Budget(sites_of(model), ["front_end.1"], "parameters")
    macs = Budget(sites_of(model), ["front_end.1"], "macs")
    assert macs.prunable / macs.total > parameters.prunable / parameters.total
