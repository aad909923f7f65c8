"""Fisher mask search on a small Conformer, each of its three steps by a closed form."""

import itertools

import pytest
import torch
from tiny_models import encoder, features, passes_of

from espnet_prune.errors import ConfigError, TrainingError
from espnet_prune.methods import make_method
from espnet_prune.methods.fisher import fisher_scores, mask_gradients, rearranged, unit_costs
from espnet_prune.surgery import cut, inject
from espnet_prune.surgery.holding import holding
from espnet_prune.surgery.rescale import rescale

UNITS = "block.0.feed_forward.units"


def method_of(target: float = 0.5, measure: str = "parameters", **fisher):
    options = {"fisher": fisher, "budget": {"measure": measure}}
    return make_method("fisher", options, target=target)


def gated_of(method=None, model=None):
    return inject(model or encoder(), method or method_of()).eval()


def ones(gated) -> dict:
    return {name: torch.ones(site.units) for name, site in gated.site_map.sites.items()}


def output(gated, masks) -> torch.Tensor:
    with torch.no_grad(), holding(gated, masks):
        return gated(*features())[0]


def test_a_mask_s_gradient_is_the_product_of_weights_and_their_gradients():
    gated = gated_of()
    passes = passes_of(gated, 3)
    found = mask_gradients(gated, passes)
    block = gated.model.encoders[0]
    for column, run in enumerate(passes):
        gated.zero_grad()
        run().backward()
        w_2, out = block.feed_forward.w_2.weight, block.self_attn.linear_out.weight
        heads = (out * out.grad).sum(dim=0).view(block.self_attn.h, -1).sum(dim=1)
        for name, expected in (
            (UNITS, (w_2 * w_2.grad).sum(dim=0)),
            ("block.0.attention.heads", heads),
        ):
            assert torch.allclose(found[name][:, column].float(), expected, rtol=1e-3, atol=1e-7)


def test_a_gradient_that_is_not_finite_is_named():
    gated = gated_of()
    run = passes_of(gated, 1)[0]
    with pytest.raises(TrainingError, match=r"front_end\.0.*not finite"):
        mask_gradients(gated, [lambda: run() * torch.inf])


@pytest.mark.parametrize("name", [UNITS, "block.1.convolution.channels", "front_end.0"])
def test_a_unit_costs_what_the_cut_saves(name):
    gated = gated_of()
    masks = ones(gated)
    masks[name][0] = 0.0
    saved = sum(p.numel() for p in gated.model.parameters()) - sum(
        p.numel() for p in cut(gated, masks).parameters()
    )
    assert unit_costs(gated.budget, [name]) == {name: saved}


@pytest.mark.parametrize("measure", ["parameters", "macs"])
def test_a_score_is_the_sum_of_squares_for_what_a_unit_costs(measure):
    gated = gated_of(method_of(measure=measure))
    names = [UNITS, "block.0.attention.heads"]
    costs = unit_costs(gated.budget, names)
    assert costs[UNITS] != costs[names[1]] and min(costs.values()) > 1
    units = gated.site_map.sites
    gradients = {name: torch.tensor([[1.0, -2.0]] * units[name].units) for name in names}
    for name, found in fisher_scores(gated, gradients).items():
        assert torch.allclose(found, torch.full((units[name].units,), 5 / costs[name]))


def test_units_whose_gradients_cancel_go_together():
    gradients = torch.tensor([[1.0, 0.5], [-1.0, -0.5], [0.9, 0.4], [3.0, 3.0]])
    diagonal = torch.tensor([1.0, 0.0, 0.0, 1.0])
    assert rearranged(diagonal, gradients).tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("mask", [[0.0, 1.0], [1.0, 0.0]])
def test_units_that_are_worth_the_same_stay_where_they_are(mask):
    assert rearranged(torch.tensor(mask), torch.ones(2, 1)).tolist() == mask


def test_rearranging_is_never_worse_and_on_average_nearer_the_best_of_all_choices():
    generator = torch.Generator().manual_seed(0)
    diagonal, found, best = [], [], []
    for _ in range(20):
        gradients = torch.randn(8, 5, generator=generator)

        def information(gone, gradients=gradients) -> float:
            return float(gradients[list(gone)].sum(dim=0).square().sum())

        removed = torch.argsort(gradients.square().sum(dim=1))[:4]
        mask = rearranged(torch.ones(8).index_fill(0, removed, 0.0), gradients)
        assert int(mask.sum()) == 4
        diagonal.append(information(removed.tolist()))
        found.append(information((mask == 0).nonzero()[:, 0].tolist()))
        best.append(min(map(information, itertools.combinations(range(8), 4))))
        assert best[-1] - 1e-5 <= found[-1] <= diagonal[-1] + 1e-5
    assert sum(found) - sum(best) < 0.5 * (sum(diagonal) - sum(best))


@pytest.mark.parametrize("mask", [torch.zeros(3), torch.ones(3)])
def test_nothing_or_all_removed_stays_so(mask):
    assert torch.equal(rearranged(mask, torch.randn(3, 2)), mask)


def twin_units() -> torch.nn.Module:
    """A model whose unit 1 of block 0's last feed-forward does what its unit 0 does."""
    model = encoder()
    module = model.encoders[0].feed_forward
    with torch.no_grad():
        module.w_1.weight[1], module.w_1.bias[1] = module.w_1.weight[0], module.w_1.bias[0]
        module.w_2.weight[:, 1] = module.w_2.weight[:, 0]
    return model


def test_the_twin_of_a_removed_unit_counts_twice_and_nothing_is_lost():
    gated = gated_of(model=twin_units())
    masks = ones(gated)
    masks[UNITS][1] = 0.0
    scaled = rescale(gated, masks, passes_of(gated), damping=1e-7)
    expected = masks[UNITS].clone()
    expected[0] = 2.0
    assert torch.allclose(scaled[UNITS], expected, atol=1e-3)
    dense = output(gated, {})
    lost = (output(gated, masks) - dense).abs().max()
    assert (output(gated, scaled) - dense).abs().max() < 0.01 * lost


def test_strong_damping_leaves_the_factors_at_one():
    gated = gated_of(model=twin_units())
    masks = ones(gated)
    masks[UNITS][1] = 0.0
    scaled = rescale(gated, masks, passes_of(gated), damping=1e8)
    assert all(torch.allclose(mask, scaled[name], atol=1e-4) for name, mask in masks.items())


def test_factors_that_are_too_large_are_refused(caplog):
    model = twin_units()
    with torch.no_grad():
        model.encoders[0].feed_forward.w_2.weight[:, 1] *= 50
    gated = gated_of(model=model)
    masks = ones(gated)
    masks[UNITS][1] = 0.0
    scaled = rescale(gated, masks, passes_of(gated), damping=1e-7)
    assert torch.equal(scaled[UNITS], masks[UNITS])
    assert UNITS in caplog.text


@pytest.mark.parametrize("measure", ["parameters", "macs"])
def test_masks_reach_the_target_and_cut_as_they_mask(measure):
    method = method_of(0.5, measure)
    gated = gated_of(method, encoder(output_size=32, linear_units=96))
    masks = method.masks(gated, passes_of(gated))
    reached = float(gated.budget.sparsity(gated.budget.hard(masks)))
    assert reached == pytest.approx(0.5, abs=method.config.budget.tolerance)
    assert any(((mask != 0) & (mask != 1)).any() for mask in masks.values())
    small = cut(gated, masks)
    with torch.no_grad():
        difference = (output(gated, masks) - small(*features())[0]).abs().max()
    assert float(difference) < 1e-5


def test_every_step_can_be_left_out():
    def masks(**fisher):
        method = method_of(0.5, **fisher)
        gated = gated_of(method)
        return torch.cat(list(method.masks(gated, passes_of(gated)).values()))

    plain = masks(rearrange=False, rescale=False)
    assert set(plain.tolist()) == {0.0, 1.0}
    assert not torch.equal(plain, masks(rearrange=True, rescale=False))
    assert torch.equal(plain != 0, masks(rearrange=False, rescale=True) != 0)


def test_without_data_it_says_what_it_needs():
    method = method_of()
    assert method.calibration_utterances == 256
    with pytest.raises(ConfigError, match="calibration data"):
        method.masks(gated_of(method))


@pytest.mark.parametrize(
    "options, named",
    [
        ({"fisher": {"damping": 0.0}}, "damping"),
        ({"fisher": {"rescale_utterance": 3}}, "rescale_utterances"),
        ({"calibration": {"utterances": 0}}, "calibration: utterances"),
    ],
)
def test_wrong_options_are_named(options, named):
    with pytest.raises(ConfigError, match=named):
        make_method("fisher", options)


def test_gates_may_begin_in_the_order_of_the_fisher_information():
    options = {"gate": {"order": "fisher", "spread": 20.0}}
    method = make_method("l0_distill", options, target=0.5, updates=10)
    gated = inject(encoder(), method).eval()
    assert method.order_utterances == method.config.calibration.utterances
    scores = method.order_scores(gated, passes_of(gated))
    method.begin(gated, scores)
    values = torch.cat([gated.gate(name).log_alpha.detach() for name in scores])
    order = torch.argsort(torch.cat(list(scores.values())))
    assert (values[order].diff() >= 0).all(), "who matters more begins nearer to staying"
    assert float(values.max() - values.min()) == pytest.approx(20.0, abs=1.0)
    assert float(gated.start_sparsity) < 0.01
    half = gated.sparsity_moved(-10.0 - float(values.min()))
    assert half == pytest.approx(0.5, abs=0.15), "a place is a share of the size"
    with pytest.raises(ConfigError, match="order: fisher.*order_scores"):
        method.begin(gated)


@pytest.mark.parametrize("target", [0.3, 0.9])
def test_masks_keep_the_order_however_far_they_are_from_what_was_learned(target):
    method = make_method("l0_distill", {"gate": {"order": "magnitude"}}, target=target, updates=10)
    gated = inject(encoder(), method)
    method.begin(gated)
    masks, shift = gated.eval().hard_masks_at(target)
    assert float(gated.budget.sparsity(gated.budget.hard(masks))) == pytest.approx(target, abs=0.02)
    values = torch.cat([gated.gate(name).log_alpha.detach() for name in method.order(gated)])
    kept = torch.cat([masks[name] for name in method.order(gated)]) != 0
    assert values[kept].min() > -shift - 5 and values[~kept].max() < -shift + 5
    assert -shift > values.min() + 5, "all gates are open at first, in an order"


def test_the_order_by_magnitude_needs_no_data():
    method = make_method("l0_distill", {"gate": {"order": "magnitude"}}, target=0.5, updates=10)
    gated = inject(encoder(), method)
    method.begin(gated)
    site = gated.site_map.sites["block.0.feed_forward.units"]
    order = torch.argsort(site.magnitudes())
    assert (gated.gate(site.name).log_alpha.detach()[order].diff() >= 0).all()
    assert method.order_utterances == 0
