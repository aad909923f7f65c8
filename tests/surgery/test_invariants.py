"""What must hold for every kind of site: masked == cut, sizes exact, saved == loaded."""

import copy

import pytest
import torch
from tiny_models import AllSites, encoder, features, random_mask, saturate
from torch.utils.flop_counter import FlopCounterMode

from espnet_prune.budget import Budget
from espnet_prune.sites import KINDS
from espnet_prune.surgery import cut, cut_to_plan, inject, load, plan_of, save
from espnet_prune.surgery.plan import Plan

TOLERANCE = 5e-6
GROUPS = (
    "attention.heads",
    "macaron.units",
    "feed_forward.units",
    "convolution.channels",
    "block.0.attention",
    "block.0.macaron",
    "block.0.convolution",
    "block.0.feed_forward",
    "front_end.0",
    "front_end.1",
    "block.1",
)


def gated_with(setter, kinds=KINDS):
    """A gated encoder whose fixed masks are ``setter(site)``, a tensor (units,)."""
    gated = inject(encoder(), AllSites(kinds, learned=False)).eval()
    for name in gated.gate_names():
        gated.gate(name).set(setter(gated.site_map.sites[name]))
    return gated


def check(gated) -> torch.nn.Module:
    """Masked equals cut; parameters and MACs are exactly what the budget says."""
    with torch.no_grad():
        masked = gated(*features())[0]
        small = cut(gated)
        difference = (masked - small(*features())[0]).abs().max()
    assert float(difference) < TOLERANCE
    masks = gated.hard_masks()
    kept = sum(p.numel() for p in small.parameters())
    assert kept == gated.budget.total - gated.budget.prunable + gated.budget.hard(masks)
    macs = Budget(gated.site_map, gated.gate_names(), "macs")
    frames = round(gated.site_map.reference_seconds * 100)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        small(torch.zeros(1, frames, 80), torch.tensor([frames]))
    assert counter.get_total_flops() // 2 == macs.total - macs.prunable + macs.hard(masks)
    return small


def test_open_gates_change_nothing_bit_for_bit():
    with torch.no_grad():
        stock = encoder()(*features())[0]
        gated = gated_with(lambda site: torch.ones(site.units))
        assert torch.equal(gated(*features())[0], stock)
    assert set(gated.model.state_dict()) == set(encoder().state_dict())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_masked_equals_cut_for_each_kind(kind, soft):
    if kind in ("branch", "block"):
        value = 0.4 if soft and kind == "branch" else 0.0
        chosen = ("block.0.attention", "block.1")
        gated = gated_with(lambda s: torch.full((1,), value if s.name in chosen else 1.0), (kind,))
    else:
        gated = gated_with(lambda site: random_mask(site, soft), (kind,))
    check(gated)


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_masked_equals_cut_for_all_kinds_together(soft):
    check(gated_with(lambda site: random_mask(site, soft)))


@pytest.mark.parametrize("group", GROUPS)
def test_masked_equals_cut_with_a_whole_group_gone(group):
    def setter(site):
        gone = site.name == group or (group.count(".") == 1 and site.name.endswith(f".{group}"))
        return torch.zeros(site.units) if gone else torch.ones(site.units)

    gated = gated_with(setter)
    assert gated.hard_sparsity() > 0
    check(gated)


def test_everything_gone_still_runs():
    small = check(gated_with(lambda site: torch.zeros(site.units)))
    assert len(small.encoders) == 0


def test_a_branch_without_units_equals_a_branch_that_is_gone():
    empty = gated_with(
        lambda s: (
            torch.zeros(s.units) if s.name == "block.0.attention.heads" else torch.ones(s.units)
        )
    )
    gone = gated_with(
        lambda s: torch.zeros(1) if s.name == "block.0.attention" else torch.ones(s.units)
    )
    with torch.no_grad():
        assert torch.equal(empty(*features())[0], gone(*features())[0])
    assert empty.hard_sparsity() == gone.hard_sparsity()


def test_expected_size_equals_hard_size_when_gates_saturate():
    gated = inject(encoder(), AllSites()).eval()
    saturate(gated)
    with torch.no_grad():
        assert float(gated.expected_sparsity()) == pytest.approx(gated.hard_sparsity(), abs=1e-9)
    assert 0.2 < gated.hard_sparsity() < 1


def test_saved_and_loaded_strictly_gives_equal_outputs(tmp_path):
    small = check(gated_with(lambda site: random_mask(site, True)))
    loaded = load(save(small, tmp_path / "small"))
    with torch.no_grad():
        assert torch.equal(loaded(*features())[0], small(*features())[0])
    assert plan_of(loaded) == plan_of(small)


def test_a_plan_rebuilds_the_shape():
    small = check(gated_with(lambda site: random_mask(site, False)))
    plan = Plan.from_json(plan_of(small).to_json())
    rebuilt = cut_to_plan(encoder(seed=5), plan).eval()
    rebuilt.load_state_dict(small.state_dict())
    with torch.no_grad():
        assert torch.equal(rebuilt(*features())[0], small(*features())[0])


def test_cutting_leaves_the_gated_model_as_it_was():
    gated = gated_with(lambda site: random_mask(site, True))
    before = copy.deepcopy(gated.state_dict())
    cut(gated)
    assert all(torch.equal(value, before[name]) for name, value in gated.state_dict().items())


def test_releasing_gives_back_the_stock_model():
    gated = gated_with(lambda site: random_mask(site, True))
    model = gated.release()
    with torch.no_grad():
        assert torch.equal(model(*features())[0], encoder()(*features())[0])
    assert type(model.encoders[0].feed_forward.w_2) is torch.nn.Linear


def test_training_masks_are_repeatable_and_differ_by_update_and_rank():
    gated = inject(encoder(), AllSites()).train()
    with torch.no_grad():
        for gate in gated.gates.values():
            gate.log_alpha.zero_()
    first = torch.cat(list(gated.masks().values()))
    assert torch.equal(torch.cat(list(gated.masks().values())), first)
    gated.rank = 1
    assert not torch.equal(torch.cat(list(gated.masks().values())), first)
    gated.rank = 0
    gated.after_update()
    assert not torch.equal(torch.cat(list(gated.masks().values())), first)


def test_training_step_reaches_weights_and_gates():
    gated = inject(encoder(), AllSites()).train()
    with torch.no_grad():
        for gate in gated.gates.values():
            gate.log_alpha.zero_()
    gated(*features())[0].pow(2).mean().backward()
    reached = [n for n in gated.gate_names() if gated.gate(n).log_alpha.grad.abs().sum() > 0]
    assert len(reached) > len(gated.gate_names()) // 2
    assert gated.model.encoders[0].feed_forward.w_1.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("kinds", [("block",), ("block", "head"), ("block", "branch")])
def test_in_training_a_closed_block_does_not_attend(kinds):
    gated = inject(encoder(), AllSites(kinds)).train()
    with torch.no_grad():
        for name in gated.gate_names():
            gated.gate(name).log_alpha.fill_(-60.0 if name == "block.0" else 60.0)
    gated(*features())
    assert gated.open_attention == [1]
