"""Refitting: what it leaves alone, what it recovers, and that it is the least squares."""

import contextlib
import copy

import pytest
import torch
from tiny_encoders import tiny_encoder
from tiny_models import AllSites, encoder, features

from espnet_prune.budget import resolve
from espnet_prune.errors import ModelError
from espnet_prune.sites import UNIT_KINDS
from espnet_prune.sites.base import CONVOLUTION_CHANNEL, FEED_FORWARD_UNIT
from espnet_prune.surgery import cut, inject
from espnet_prune.surgery.holding import holding
from espnet_prune.surgery.refit import refit
from espnet_prune.surgery.sparse import mark_sparse
from espnet_prune.surgery.surgeon import choose_units


class Model(torch.nn.Module):
    """An encoder within a model, as a recogniser has it."""

    def __init__(self, part: torch.nn.Module) -> None:
        super().__init__()
        self.encoder = part

    def forward(self, *inputs):
        return self.encoder(*inputs)


def runs(utterances: int = 4) -> list:
    """Each runs a model on an utterance of noise of its own length."""
    noise = torch.randn(utterances, 120, 80, generator=torch.Generator().manual_seed(3))

    def run_of(feats):
        return lambda model: model(feats, torch.tensor([feats.shape[1]]))

    return [run_of(feats[None, : 120 - 8 * i]) for i, feats in enumerate(noise)]


def gated_and_teacher(kinds=UNIT_KINDS, family=None, **options):
    teacher = encoder(**options) if family is None else tiny_encoder(family, **options)
    gated = inject(copy.deepcopy(teacher), AllSites(kinds, learned=False)).eval()
    return gated, teacher


def masks_of(gated, kept: float = 0.5, kinds=UNIT_KINDS) -> dict:
    masks = {name: torch.ones(site.units) for name, site in gated.site_map.sites.items()}
    generator = torch.Generator().manual_seed(1)
    for site in gated.site_map.of_kinds(kinds):
        gone = torch.randperm(site.units, generator=generator)[: int(site.units * (1 - kept))]
        masks[site.name][gone] = 0.0
    return masks


@torch.no_grad()
def gap(gated, teacher, masks, of=runs) -> float:
    """Mean square of what the output lost."""
    with holding(gated, masks):
        return sum(float((run(gated)[0] - run(teacher)[0]).square().mean()) for run in of())


def test_where_nothing_is_cut_weights_stay():
    gated, teacher = gated_and_teacher()
    refit(gated, teacher, masks_of(gated, 1.0), runs(), choose=False)
    for (name, found), expected in zip(
        gated.model.named_parameters(), teacher.parameters(), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        *((kind, {}) for kind in UNIT_KINDS),
        (FEED_FORWARD_UNIT, {"positionwise_layer_type": "conv1d"}),
        (CONVOLUTION_CHANNEL, {"family": "e_branchformer"}),
    ],
)
def test_a_unit_that_others_make_up_for_is_recovered(kind, options):
    """Every second unit is made as the one before it; without it the same output can be given."""
    gated, teacher = gated_and_teacher((kind,), **options)
    masks = masks_of(gated, 1.0)
    with torch.no_grad():
        for model in (gated, inject(teacher, AllSites((kind,), learned=False))):
            for site in model.site_map.of_kinds((kind,)):
                for rows in site.unit_rows():
                    rows[1::2] = rows[0::2]
                masks[site.name][1::2] = 0.0
    assert gap(gated, teacher, masks) > 1e-4
    refit(gated, teacher, masks, runs(12), damping=1e-9, choose=False)
    assert gap(gated, teacher, masks) < 1e-7
    small = cut(gated, masks)
    with torch.no_grad():
        assert (small(*features(1))[0] - teacher(*features(1))[0]).abs().max() < 1e-2


@pytest.mark.parametrize("lost", ["block.0", "block.1", "front_end.1"])
def test_a_model_that_was_cut_before_is_refitted_to_what_it_was_cut_from(lost):
    """A block went before, or half of the channels of a convolution."""
    teacher = encoder(num_blocks=3)
    first = inject(copy.deepcopy(teacher), AllSites((*UNIT_KINDS, "block"), learned=False)).eval()
    before = masks_of(first, 1.0)
    for name, mask in before.items():
        if name == lost or name.startswith(f"{lost}."):
            mask[::2] = 0.0
    gated = inject(cut(first, resolve(first.site_map, before)), AllSites(UNIT_KINDS, learned=False))
    masks = masks_of(gated.eval())
    worse = gap(gated, teacher, masks)
    refit(gated, teacher, masks, runs(12), damping=0.1, choose=False)
    assert gap(gated, teacher, masks) < 0.05 * worse


def test_a_model_of_few_single_weights_is_not_filled_again():
    gated, teacher = gated_and_teacher()
    weight = gated.model.encoders[0].feed_forward.w_2.weight
    weight.data[::2] = 0.0
    mark_sparse(gated.model, [weight])
    with pytest.raises(ModelError, match="block.0.feed_forward.units: single weights .*out"):
        refit(gated, teacher, masks_of(gated), runs())
    assert weight[::2].eq(0).all()


def test_one_layer_is_numpys_least_squares():
    """The first feed-forward of a block hears what the teacher's hears, whatever comes later."""
    gated, teacher = gated_and_teacher(("feed_forward_unit",), num_blocks=1)
    masks = masks_of(gated, 0.25, ("feed_forward_unit",))
    part = teacher.encoders[0].feed_forward_macaron
    heard, said = [], []
    handle = part.w_2.register_forward_hook(
        lambda _, inputs, output: (heard.append(inputs[0][0]), said.append(output[0])) and None
    )
    with torch.no_grad():
        for run in runs():
            run(teacher)
    handle.remove()
    kept = masks["block.0.macaron.units"].nonzero()[:, 0]
    rows = torch.cat(heard)[:, kept].double()
    rows = torch.cat([rows, torch.ones(len(rows), 1)], dim=1)
    expected = torch.linalg.lstsq(rows, torch.cat(said).double()).solution.float()
    refit(gated, teacher, masks, runs(), damping=1e-9, choose=False)
    found = gated.model.encoders[0].feed_forward_macaron.w_2
    torch.testing.assert_close(found.weight[:, kept], expected[:-1].T, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found.bias.data, expected[-1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"macaron_style": False, "positionwise_layer_type": "conv1d"},
        {"family": "e_branchformer"},
        {"family": "branchformer"},
        {"family": "transformer", "input_layer": "conv1d2"},
    ],
    ids=["macaron", "convolutions", "e_branchformer", "branchformer", "convolutions over time"],
)
def test_less_is_lost_on_what_it_has_seen_and_on_what_not(options):
    gated, teacher = gated_and_teacher(**options)
    masks = masks_of(gated)
    before = gap(gated, teacher, masks), gap(gated, teacher, masks, lambda: runs(9)[4:])
    refit(gated, teacher, masks, runs(9)[:4], damping=0.01, choose=False)
    assert gap(gated, teacher, masks) < 0.5 * before[0]
    assert gap(gated, teacher, masks, lambda: runs(9)[4:]) < before[1]


@pytest.mark.parametrize(("units", "width"), [(7, 1), (5, 3)])
def test_the_unit_goes_whose_loss_the_others_best_make_good(units, width):
    generator = torch.Generator().manual_seed(2)
    mixed = torch.randn(units * width, units * width, generator=generator)
    heard = (torch.randn(60, units * width, generator=generator) @ mixed).double()
    said = heard @ torch.randn(units * width, 4, generator=generator).double()
    left = list(range(units))
    for number in range(units - 1, 0, -1):  # one after the other, each solved anew in full
        errors = {}
        for unit in left:
            kept = [u * width + place for u in left if u != unit for place in range(width)]
            solved = torch.linalg.lstsq(heard[:, kept], said).solution
            errors[unit] = float((heard[:, kept] @ solved - said).square().sum())
        left.remove(min(errors, key=errors.__getitem__))
        found = choose_units(heard.T @ heard, heard.T @ said, [units], [number])
        assert found.tolist() == left


def test_of_two_sites_each_keeps_as_many_units_as_it_shall():
    """The first site's units say almost nothing; still no more of them go than are asked for."""
    heard = torch.randn(60, 7, generator=torch.Generator().manual_seed(2)).double()
    heard[:, :4] *= 1e-3
    said = heard.sum(dim=1, keepdim=True)
    found = choose_units(heard.T @ heard, heard.T @ said, [4, 3], [3, 1])
    assert (found < 4).sum() == 3 and (found >= 4).sum() == 1


@pytest.mark.parametrize(
    ("family", "kind"),
    [*((None, kind) for kind in UNIT_KINDS), ("e_branchformer", CONVOLUTION_CHANNEL)],
)
def test_as_many_units_are_chosen_anew_and_less_is_lost(family, kind):
    gated, teacher = gated_and_teacher((kind,), family)
    masks = masks_of(gated, 0.5, (kind,))
    plain = copy.deepcopy(gated)
    refit(plain, teacher, masks, runs(), choose=False)
    chosen = refit(gated, teacher, masks, runs(), choose=True)
    numbers = {name: int(mask.sum()) for name, mask in chosen.items()}
    assert numbers == {name: int(mask.sum()) for name, mask in masks.items()}
    assert any(not torch.equal(chosen[name], masks[name]) for name in masks)
    assert gap(gated, teacher, chosen) < gap(plain, teacher, masks)
    small = cut(gated, chosen)
    with torch.no_grad(), holding(gated, chosen):
        whole = gated(*features(1))[0]
        torch.testing.assert_close(small(*features(1))[0], whole, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def heard_and_said(model, masked, layer: str, norm: str) -> tuple:
    """Inputs and outputs (positions, ...) of a layer of the last block, and what its norm reads."""
    block, seen = (model.model if masked else model).encoders[-1], {layer: [], norm: []}
    handles = [
        block.get_submodule(name).register_forward_hook(
            lambda _, inputs, output, name=name: seen[name].append((inputs[0][0], output[0]))
        )
        for name in (layer, norm)
    ]
    with holding(model, masked) if masked else contextlib.nullcontext():
        for run in runs(12):
            run(model)
    for handle in handles:
        handle.remove()
    heard, said = (torch.cat(parts).double() for parts in zip(*seen[layer], strict=True))
    return heard, said, torch.cat([stream for stream, _ in seen[norm]]).double()


MERGED = {"layer": "merge_proj", "norm": "norm_mha"}
AVERAGED = {"layer": "attn.linear_out", "norm": "norm_mha"}


@pytest.mark.parametrize(
    ("family", "options", "place", "added"),
    [
        ("e_branchformer", {}, MERGED, True),
        ("branchformer", {}, MERGED, True),
        ("branchformer", {"merge_method": "fixed_ave"}, AVERAGED, False),
        ("branchformer", {"merge_method": "learned_ave"}, AVERAGED, False),
    ],
)
@pytest.mark.parametrize("branch", [1.0, 0.5])
def test_one_solve_of_all_that_a_layer_reads_is_numpys_least_squares(
    family, options, place, added, branch
):
    """Of two merged branches, too; the stream is made up for where a layer adds to it as it is."""
    gated, teacher = gated_and_teacher(family=family, **options)
    masks = masks_of(gated, 0.4)
    masks["block.1.attention"][:] = branch
    refit(gated, teacher, masks, runs(12), damping=1e-9, choose=False)
    heard, found, ours = heard_and_said(gated, masks, **place)
    _, said, theirs = heard_and_said(teacher, {}, **place)
    wanted = said + (theirs - ours if added else 0.0)
    consumer = gated.model.encoders[1].get_submodule(place["layer"])
    sites = [
        site
        for site in gated.site_map.sites.values()
        if getattr(site, "consumer", None) is consumer and site.kind != "branch"
    ]
    assert len(sites) == (2 if added else 1)
    kept = torch.cat([site.columns(masks[site.name].nonzero()[:, 0]) for site in sites])
    rows = torch.cat([heard[:, kept], torch.ones(len(heard), 1).double()], dim=1)
    # few heads are left of attention, so that its channels aren't independent
    solved = torch.linalg.lstsq(rows, wanted, rcond=1e-5, driver="gelsd").solution
    torch.testing.assert_close(found, rows @ solved, rtol=1e-3, atol=1e-3)


def test_a_layer_that_is_added_by_half_makes_up_for_twice_what_the_stream_has_lost():
    gated, teacher = gated_and_teacher((FEED_FORWARD_UNIT,))
    masks = masks_of(gated, 0.4, (FEED_FORWARD_UNIT,))
    refit(gated, teacher, masks, runs(12), damping=1e-9, choose=False)
    place = {"layer": "feed_forward_macaron.w_2", "norm": "norm_ff_macaron"}
    heard, found, ours = heard_and_said(gated, masks, **place)
    _, said, theirs = heard_and_said(teacher, {}, **place)
    kept = masks["block.1.macaron.units"].nonzero()[:, 0]
    rows = torch.cat([heard[:, kept], torch.ones(len(heard), 1).double()], dim=1)
    solved = torch.linalg.lstsq(rows, said + 2 * (theirs - ours)).solution
    torch.testing.assert_close(found, rows @ solved, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("damping", "gone"), [(1e-9, None), (10.0, None), (0.1, "attention"), (0.1, "gating")]
)
def test_a_merge_never_loses_more_than_the_plain_cut(damping, gone):
    """Nothing before the merge is cut, so both hear what the teacher hears."""
    for seed in range(3):
        gated, teacher = gated_and_teacher(family="e_branchformer", num_blocks=1)
        masks = masks_of(gated, 1.0)
        merged = [name for name in masks if name.endswith(".merged")]
        for name in merged:
            draw = torch.rand(len(masks[name]), generator=torch.Generator().manual_seed(seed))
            masks[name] = (draw > 0.5).float()
        if gone:
            masks |= {n: 0.0 * m for n, m in masks.items() if n.startswith(f"block.0.{gone}")}
        _, plain, _ = heard_and_said(gated, masks, **MERGED)
        refit(gated, teacher, masks, runs(12), damping=damping, choose=False)
        _, refitted, _ = heard_and_said(gated, masks, **MERGED)
        _, said, _ = heard_and_said(teacher, {}, **MERGED)
        before, after = ((x - said).square().sum() for x in (plain, refitted))
        assert after < before


def test_a_branch_makes_up_for_what_the_stream_has_lost():
    """A block of which nothing is cut is solved, too, where the block before it has lost units."""
    gated, teacher = gated_and_teacher()
    masks = masks_of(gated, 1.0)
    masks["block.0.feed_forward.units"][1:] = 0.0
    before = gated.model.encoders[1].feed_forward_macaron.w_2.weight.clone()
    refit(gated, teacher, masks, runs(), choose=False)
    assert not torch.allclose(gated.model.encoders[1].feed_forward_macaron.w_2.weight, before)


def test_values_of_masks_are_kept_as_factors():
    """Masks of other values than 1 are folded in by the cut, and must not count twice."""
    gated, teacher = gated_and_teacher()
    ones = masks_of(gated)
    twin = copy.deepcopy(gated)
    halves = {name: mask * (0.5 if ".units" in name else 1.0) for name, mask in ones.items()}
    refit(gated, teacher, ones, runs(), damping=1e-9, choose=False)
    refit(twin, teacher, halves, runs(), damping=1e-9, choose=False)
    assert abs(gap(gated, teacher, ones) - gap(twin, teacher, halves)) < 1e-3


def test_removed_branches_and_soft_gates_pass():
    gated, teacher = gated_and_teacher()
    masks = masks_of(gated)
    masks["block.1.attention"][:] = 0.0
    masks["block.1.attention.heads"][:] = 0.0
    masks["block.0.attention"][:] = 0.5
    before = gap(gated, teacher, masks)
    refit(gated, teacher, masks, runs(), choose=False)
    assert gap(gated, teacher, masks) < before


def test_a_stack_that_is_no_chain_is_refused():
    gated, teacher = gated_and_teacher()
    gated.model.encoders[1].register_forward_pre_hook(
        lambda _, inputs: ((inputs[0][0] + 1.0, inputs[0][1]), *inputs[1:])
    )
    layers = gated.model.encoders
    real = layers.forward
    layers.forward = lambda x, masks: real((x[0] * 1.5, x[1]), masks)
    last = layers[-1]
    calls = []

    def odd(_, inputs, output):  # every second pass is another's
        calls.append(1)
        (x, position), padding = output
        return ((x + len(calls), position), padding)

    last.register_forward_hook(odd)
    with pytest.raises(ModelError, match="don't simply follow each other"):
        refit(gated, teacher, masks_of(gated), runs(), choose=False)
