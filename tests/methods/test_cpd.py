"""Comb, prune, distill: what belongs to a unit is summed before it is squared, round by round."""

import pytest
import torch
from tiny_models import encoder, passes_of

from espnet_prune.errors import TrainingError
from espnet_prune.methods import make_method
from espnet_prune.methods.cpd import coupled_scores
from espnet_prune.methods.fisher import unit_costs
from espnet_prune.surgery import inject

UNITS = "block.0.feed_forward.units"
CHANNELS = "block.1.convolution.channels"


def gated_of(**options):
    return inject(encoder(output_size=32, linear_units=96), make_method("cpd", options)).eval()


def by_unit(parameter: torch.Tensor, units: int) -> torch.Tensor:
    """Sums of gradient times weight over what belongs to each unit, along the first dimension."""
    return (parameter * parameter.grad).reshape(-1, units, parameter[0].numel()).sum(dim=(0, 2))


def read_by_unit(weight: torch.Tensor) -> torch.Tensor:
    """The same along the second dimension, the columns that read a unit."""
    return (weight * weight.grad).transpose(0, 1).flatten(1).sum(dim=1)


def test_a_score_is_the_squared_sum_over_all_that_belongs_to_a_unit():
    gated = gated_of()
    passes = passes_of(gated, 2)
    found = coupled_scores(gated, {}, passes)
    units, channels = torch.zeros(96), torch.zeros(32)
    for run in passes:
        gated.zero_grad()
        run().backward()
        part = gated.model.encoders[0].feed_forward
        made = by_unit(part.w_1.weight, 96) + by_unit(part.w_1.bias, 96)
        units += (made + read_by_unit(part.w_2.weight)).square()
        part = gated.model.encoders[1].conv_module
        gated_pair = (part.pointwise_conv1.weight, part.pointwise_conv1.bias)  # 64 rows, c and c+32
        single = (*part.depthwise_conv.parameters(), *part.norm.parameters())
        made = sum(by_unit(parameter, 32) for parameter in (*gated_pair, *single))
        channels += (made + read_by_unit(part.pointwise_conv2.weight)).square()
    costs = unit_costs(gated.budget, [UNITS, CHANNELS])
    for name, expected in ((UNITS, units), (CHANNELS, channels)):
        assert torch.allclose(found[name].float(), expected / costs[name], rtol=1e-3, atol=1e-12)


def test_units_that_are_gone_stay_gone_and_the_others_are_measured_without_them():
    gated = gated_of()
    passes = passes_of(gated, 2)
    mask = torch.ones(96)
    mask[:5] = 0.0
    scores = coupled_scores(gated, {UNITS: mask}, passes)
    assert (scores[UNITS][:5] == -1).all() and (scores[UNITS][5:] >= 0).all()
    assert not torch.allclose(scores[CHANNELS], coupled_scores(gated, {}, passes)[CHANNELS])


def test_rounds_reach_the_target_and_choose_otherwise_than_one():
    def masks(rounds: int):
        method = make_method("cpd", {"rounds": rounds}, target=0.6)
        gated = inject(encoder(output_size=32, linear_units=96), method).eval()
        found = method.masks(gated, passes_of(gated, 2))
        reached = float(gated.budget.sparsity(gated.budget.hard(found)))
        assert reached == pytest.approx(0.6, abs=0.005)
        return torch.cat(list(found.values()))

    assert not torch.equal(masks(1), masks(3))


def test_a_gradient_that_is_not_finite_is_named():
    gated = gated_of()
    run = passes_of(gated, 1)[0]
    with pytest.raises(TrainingError, match="not finite"):
        coupled_scores(gated, {}, [lambda: run() * torch.inf])
