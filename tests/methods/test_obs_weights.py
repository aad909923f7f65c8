"""Optimal brain surgeon on single weights: mask, solution and shares against other ways to them."""

import copy

import pytest
import torch
from tiny_models import encoder, passes_of

from espnet_prune.errors import ModelError, TrainingError
from espnet_prune.methods import make_method
from espnet_prune.methods.obs_weights import moments, shares_of, weight_costs
from espnet_prune.sites import WEIGHT
from espnet_prune.surgery import cut, inject, surgeon
from espnet_prune.surgery.surgeon import (
    DAMPINGS,
    HELD_OUT,
    USUAL_DAMPING,
    Sums,
    choose_mask,
    of_weights,
    prune_layer,
    solve_kept,
)


def problem(inputs: int = 12, outputs: int = 5, rows: int = 60):
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(inputs, inputs, generator=generator).double()
    heard = torch.randn(rows, inputs, generator=generator).double() @ mixed
    return heard, torch.randn(rows, outputs, generator=generator).double()


def gated_of(target: float = 0.5, **options):
    return inject(encoder(), make_method("obs_weights", options, target=target)).eval()


def test_the_kept_weights_are_the_least_squares_of_their_mask():
    heard, said = problem()
    mask = (torch.rand(5, 12, generator=torch.Generator().manual_seed(1)) > 0.5).double()
    found = solve_kept(heard.T @ heard, heard.T @ said, mask, torch.zeros(5, 12).double())
    for row, kept in enumerate(mask.bool()):
        expected = torch.linalg.lstsq(heard[:, kept], said[:, row]).solution
        assert torch.allclose(found[row, kept], expected, rtol=1e-2, atol=1e-3)
        assert not found[row, ~kept].any()


def test_the_first_weight_to_go_is_the_surgeons():
    heard, said = problem(outputs=1)
    hessian, right = heard.T @ heard, heard.T @ said
    mask, _ = choose_mask(hessian, right, 1 / 12)
    best = torch.linalg.solve(hessian, right)[:, 0]
    costs = [  # only the columns behind it make good what a column loses
        float(best[j] ** 2 / torch.linalg.inv(hessian[j:, j:])[0, 0]) for j in range(12)
    ]
    assert mask.sum() == 11 and int((mask[0] == 0).nonzero()) == costs.index(min(costs))


def test_later_columns_make_good_what_earlier_ones_lose_in_this_block_and_the_next(monkeypatch):
    monkeypatch.setattr(surgeon, "BLOCK", 4)
    heard, said = problem(outputs=1)
    hessian, right = heard.T @ heard, (heard.T @ said)[:, 0]
    weight, expected = torch.linalg.solve(hessian, right), torch.ones(12).double()
    for begin in (0, 4, 8):
        own = [float(torch.linalg.inv(hessian[j:, j:])[0, 0]) for j in range(begin, begin + 4)]
        gone = begin + int((weight[begin : begin + 4] ** 2 / torch.tensor(own)).argmin())
        expected[gone] = weight[gone] = 0.0
        known, later = slice(gone + 1), slice(gone + 1, None)
        left = right[later] - hessian[later, known] @ weight[known]
        weight[later] = torch.linalg.solve(hessian[later, later], left)
    mask, start = choose_mask(hessian, right[:, None], 1 / 4)
    assert torch.equal(mask[0], expected)
    assert torch.allclose(start[0], weight)


@pytest.mark.parametrize("biased", [True, False])
def test_a_layer_is_solved_with_one_of_the_dampings(biased):
    heard, said = problem()
    rows, sums = torch.cat([heard, torch.ones(60, 1)], dim=1), Sums()
    for part, target in zip(rows.split(6), said.split(6), strict=True):
        sums.add(part.T @ part, part.T @ target)
    start = torch.nn.Linear(12, 5, bias=biased).double().requires_grad_(False)

    def solved(damping):
        layer = copy.deepcopy(start)
        prune_layer(layer, sums, 0.5, damping)
        return layer.weight

    found = solved(None)
    assert sum(torch.equal(found, solved(damping)) for damping in DAMPINGS) == 1


def test_a_layer_and_its_bias_come_nearest_to_what_is_wanted():
    heard, said = problem()
    layer = torch.nn.Linear(12, 5).double().requires_grad_(False)
    rows = torch.cat([heard, torch.ones(60, 1)], dim=1)
    sums = Sums()
    sums.add(rows.T @ rows, rows.T @ said)
    mask = prune_layer(layer, sums, 0.5, 1e-9)
    assert (layer.weight == 0).sum() == 30 and torch.equal(layer.weight != 0, mask != 0)
    for row, kept in enumerate(mask.bool()):
        columns = torch.cat([kept, torch.tensor([True])])
        expected = torch.linalg.lstsq(rows[:, columns], said[:, row]).solution
        assert torch.allclose(layer.weight[row, kept], expected[:-1], rtol=1e-2, atol=1e-3)
        assert torch.allclose(layer.bias[row], expected[-1], rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(("frames", "noise"), [(3, 2.0), (400, 0.01)], ids=["little", "much"])
def test_the_damping_is_what_suits_the_utterances_that_were_held_out(frames, noise):
    generator = torch.Generator().manual_seed(0)
    before = torch.randn(12, 5, generator=generator).double()
    sums, heard, said = Sums(), [], []
    for _ in range(2 * HELD_OUT):
        heard.append(torch.randn(frames, 12, generator=generator).double())
        said.append(heard[-1] @ before + noise * torch.randn(frames, 5, generator=generator))
        sums.add(heard[-1].T @ heard[-1], heard[-1].T @ said[-1])

    def solve(equations, damping):
        return torch.linalg.solve(*of_weights(equations, 0.9 * before, damping, biased=False))

    apart = [HELD_OUT - 1, 2 * HELD_OUT - 1]
    fitted = [u for u in range(2 * HELD_OUT) if u not in apart]
    rows, targets = torch.cat([heard[u] for u in fitted]), torch.cat([said[u] for u in fitted])
    errors = {}
    for damping in DAMPINGS:
        found = solve((rows.T @ rows, rows.T @ targets), damping)
        errors[damping] = sum(float((heard[u] @ found - said[u]).square().sum()) for u in apart)
    chosen = sums.damping(solve)
    assert chosen == min(errors, key=errors.__getitem__)
    assert chosen > 0.1 if noise > 1 else chosen < 0.1
    torch.testing.assert_close(sums.all()[1], torch.cat(heard).T @ torch.cat(said))


def test_with_too_few_utterances_the_damping_is_the_usual_one():
    sums = Sums()
    sums.add(torch.eye(2), torch.eye(2))
    assert sums.damping(lambda *_: pytest.fail("nothing to choose by")) == USUAL_DAMPING


def test_shares_rank_all_weights_together_up_to_the_most():
    costs = {"a": torch.arange(10.0), "b": torch.arange(10.0) + 5, "c": torch.arange(10.0) + 100}
    assert shares_of(costs, 0.5, 1.0) == {"a": 1.0, "b": 0.5, "c": 0.0}
    assert shares_of(costs, 0.5, 0.8) == {"a": 0.8, "b": 0.7, "c": 0.0}
    assert shares_of(costs, 0.5, 0.5) == dict.fromkeys(costs, 0.5)
    assert shares_of(costs, 0.0, 0.5) == dict.fromkeys(costs, 0.0)


def test_a_weights_cost_is_that_of_the_factored_fisher_information():
    gated = gated_of()
    sites, passes = gated.site_map.of_kinds((WEIGHT,)), passes_of(gated, 2)
    site = sites[-1]
    hessians, squares = moments(gated, [site], passes, damping=1e-6)
    heard, felt = [], []

    def hook(layer, inputs, output):
        heard.append(inputs[0].detach().flatten(0, -2).double())
        output.register_hook(lambda gradient: felt.append(gradient.flatten(0, -2).double()))

    handle = site.layer.register_forward_hook(hook)
    for run in passes:
        run().backward()
    handle.remove()
    rows, gradients = torch.cat(heard), torch.cat(felt)
    own = rows.T @ rows / len(rows)
    fisher = torch.kron(torch.diag(gradients.square().mean(dim=0)), own)
    fisher += (
        1e-6
        * own.diagonal().mean()
        * torch.kron(torch.diag(gradients.square().mean(dim=0)), torch.eye(len(own)).double())
    )
    expected = site.layer.weight.detach().double().flatten().square()
    expected = expected / torch.linalg.pinv(fisher, rtol=1e-14).diagonal()
    costs = weight_costs(site, hessians[site.name], squares[site.name])
    there = squares[site.name].repeat_interleave(len(own)) > 1e-12
    assert torch.allclose(costs[there], expected[there], rtol=1e-3)


@pytest.mark.parametrize("most", [0.5, 0.95])
def test_the_target_is_hit_and_beats_zeros_alone(most):
    teacher = encoder()
    gated = gated_of(surgeon={"most": most})
    passes = passes_of(gated, 4)
    method = make_method("obs_weights", {"surgeon": {"most": most}}, target=0.5)
    before = copy.deepcopy(gated.model.state_dict())
    masks = method.masks(gated, passes)
    total = sum(mask.numel() for mask in masks.values())
    assert abs(sum(int((m == 0).sum()) for m in masks.values()) / total - 0.5) < 0.005
    site = gated.site_map.sites[next(iter(masks))]
    assert not site.layer.weight.flatten()[masks[site.name] == 0].any()
    small = cut(gated, masks)
    zeros = copy.deepcopy(teacher)
    for name, value in zeros.named_parameters():
        if before[name].shape == value.shape and name.endswith("weight"):
            kept = small.state_dict()[name] != 0
            value.data = before[name] * kept
    speech = torch.randn(1, 100, 80, generator=torch.Generator().manual_seed(9))
    lengths = torch.tensor([100])
    wanted, solved, plain = (m.eval()(speech, lengths)[0] for m in (teacher, small, zeros))
    assert (solved - wanted).square().mean() < 0.7 * (plain - wanted).square().mean()


def test_a_loss_that_is_not_finite_is_named():
    gated = gated_of()
    with pytest.raises(TrainingError, match="not finite"):
        passes = [lambda run=run: run() * torch.nan for run in passes_of(gated, 1)]
        make_method("obs_weights", {}, target=0.5).masks(gated, passes)


def test_two_stacks_are_refused_by_name():
    pytest.importorskip("transformers")
    from tiny_whisper import batch, whisper

    method = make_method("obs_weights", {}, target=0.5)
    gated = inject(whisper(), method).eval()
    with pytest.raises(ModelError, match="decoder.*choose another method"):
        method.masks(gated, [lambda: gated(**batch()).loss])
