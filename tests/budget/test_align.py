"""Aligned widths: multiples, the target hit again, the units by their scores."""

import pytest
import torch
from safetensors.torch import save_file
from system_configs import read_system
from tiny_models import encoder, passes_of

from espnet_prune.budget import align_widths
from espnet_prune.config import load_yaml
from espnet_prune.errors import ConfigError, TargetMissedError
from espnet_prune.methods import METHODS, make_method, method_config
from espnet_prune.methods.base import ALIGNED_KINDS
from espnet_prune.methods.fisher import mask_gradients, unit_costs
from espnet_prune.surgery import cut, inject, plan_of

WIDE = {"output_size": 48, "linear_units": 200}
NOT_ALIGNED = {
    "importance",
    "module_error",
    "unpruned",
    "self_pinching_weights",
    "uniform_magnitude_weights",
    "obs_weights",
    "acip",
    "flexigpt",
    "low_rank",
    "performer",
    "prunenet",  # feed-forwards are less than half here
}


def options(align: int, measure: str = "parameters", **budget) -> dict:
    return {"budget": {"align": align, "measure": measure, **budget}}


def widths(masks) -> dict[str, int]:
    return {name: int((mask != 0).sum()) for name, mask in masks.items()}


CASES = [(name, 8, 0.5, "parameters") for name in sorted(set(METHODS) - NOT_ALIGNED)]


@pytest.mark.parametrize(
    ("name", "align", "target", "measure"),
    [*CASES, ("l0", 4, 0.3, "macs"), ("uniform_magnitude", 4, 0.3, "macs")],
)
def test_widths_are_multiples_at_the_target(name, align, target, measure):
    method = make_method(name, target=target, seed=1, options=options(align, measure), updates=10)
    gated = inject(encoder(**WIDE), method).eval()
    found = (
        method.masks(gated, passes_of(gated, 2))
        if method.calibration_utterances
        else method.masks(gated)
    )
    masks = method.aligned(gated, found)
    method.rewrite(gated, masks)
    reached = float(gated.budget.sparsity(gated.budget.hard(masks)))
    assert reached == pytest.approx(target, abs=method.config.budget.tolerance)
    small = cut(gated, masks)
    kept = {site: (plan.kind, len(plan.kept), plan.units) for site, plan in
            plan_of(small).sites.items()}  # fmt: skip
    checked = [v for v in kept.values() if v[0] in ALIGNED_KINDS]
    assert checked and all(number % align == 0 or number == all_ for _, number, all_ in checked)
    unaligned = {name: width for name, width in widths(found).items()}
    heads = [name for name in unaligned if name.endswith("heads")]
    assert all(widths(masks)[name] == unaligned[name] for name in heads)
    assert all((widths(masks)[n] == 0) == (width == 0) for n, width in unaligned.items())


def test_the_lowest_go_the_highest_come_back_and_values_stay():
    method = make_method("magnitude", options(8), target=0.5)
    gated = inject(encoder(**WIDE), method).eval()
    scores = method.order(gated)
    before = {name: 0.5 * mask for name, mask in method.masks(gated).items()}
    after = method.aligned(gated, before)
    changed = 0
    for name, mask in after.items():
        old, new = set(torch.nonzero(before[name])[:, 0].tolist()), set(
            torch.nonzero(mask)[:, 0].tolist()
        )  # fmt: skip
        assert old <= new or new <= old
        if old == new:
            continue
        changed += 1
        assert new == set(torch.topk(scores[name], len(new)).indices.tolist())
        opened = torch.tensor(sorted(new - old), dtype=torch.long)
        assert all(mask[opened] == 1.0)
        assert all(mask[sorted(new & old)] == 0.5)
    assert changed > 2


def open_units(mask: torch.Tensor) -> set[int]:
    return set(torch.nonzero(mask)[:, 0].tolist())


def test_scores_of_a_file_decide_what_closes_and_opens(tmp_path):
    path = tmp_path / "scores.safetensors"
    chosen = {**options(8), "importance": {"file": str(path)}}
    method = make_method("importance", chosen, target=0.5)
    gated = inject(encoder(**WIDE), method).eval()
    scores = {n: -s for n, s in make_method("magnitude").order(gated).items()}
    save_file(scores, path)
    before = method.masks(gated)
    after = method.aligned(gated, before)
    narrower = wider = 0
    for name, score in scores.items():
        old, new = open_units(before[name]), open_units(after[name])
        closed = sorted(old, key=score.tolist().__getitem__)[: len(old - new)]
        assert old - new == set(closed)
        assert new == set(torch.topk(score, len(new)).indices.tolist())
        narrower += len(new) < len(old)
        wider += len(new) > len(old)
    assert narrower and wider


def test_fisher_aligns_by_its_own_scores():
    chosen = {**options(8), "fisher": {"rearrange": False, "rescale": False}}
    method = make_method("fisher", chosen, target=0.5)
    gated = inject(encoder(**WIDE), method).eval()
    passes = passes_of(gated, 2)
    gradients = mask_gradients(gated, passes)
    costs = unit_costs(gated.budget, list(gradients))
    found = method.masks(gated, passes)
    masks = method.aligned(gated, found)
    for name, gradient in gradients.items():
        assert torch.equal(masks[name], found[name])
        kept = open_units(masks[name])
        scores = gradient.square().sum(dim=1) / costs[name]
        assert kept == set(torch.topk(scores, len(kept)).indices.tolist())


def test_one_leaves_the_masks_as_they_are():
    method = make_method("magnitude", options(1), target=0.5)
    gated = inject(encoder(), method).eval()
    masks = method.masks(gated)
    assert method.aligned(gated, masks) is masks


def test_what_cannot_be_aligned_is_an_error():
    with pytest.raises(ConfigError, match=r"budget: align: 12; expected one of \(1, 2"):
        make_method("l0_distill", options(12))
    method = make_method("magnitude", options(32, tolerance=0.001), target=0.5)
    gated = inject(encoder(linear_units=40), method).eval()
    with pytest.raises(TargetMissedError, match="align: with widths of multiples of 32.*smaller"):
        method.aligned(gated, method.masks(gated))
    with pytest.raises(ConfigError, match="align: 8: none of the sites of UniformMagnitudeWeights"):
        make_method("uniform_magnitude_weights", options(8), target=0.5)
    only_scored = {name: s for name, s in method.order(gated).items() if name.endswith("heads")}
    with pytest.raises(ConfigError, match="align: 32: none of the pruned sites"):
        method._aligned(gated, method.masks(gated), only_scored)


def test_a_closed_site_stays_closed_and_a_narrow_one_stays_open():
    method = make_method("magnitude", options(16), target=0.5)
    gated = inject(encoder(**WIDE), method).eval()
    scores = {n: s for n, s in method.order(gated).items() if not n.endswith("heads")}
    masks = {n: torch.ones(site.units) for n, site in gated.site_map.sites.items()}
    first, second = "block.0.macaron.units", "block.1.macaron.units"
    masks[first] = torch.zeros(200)
    masks["block.0.macaron"] = torch.zeros(1)
    masks[second] = (torch.arange(200) < 3).float()
    target = float(gated.budget.sparsity(gated.budget.hard(masks)))
    found = widths(align_widths(masks, scores, gated.budget, target, 0.01, 16))
    assert (found[first], found["block.0.macaron"]) == (0, 0)
    assert found[second] >= 16


def test_the_shared_rows_differ_in_nothing_but_their_widths(repository):
    path = repository / "conf/systems/aligned.yaml"
    names = list(load_yaml(path)["systems"])
    systems = [read_system(path, name) for name in names]
    found = [method_config(s.method, s.options, n) for s, n in zip(systems, names, strict=True)]
    assert [c.budget.align for c in found] == [1, 8, 16]
    assert {(s.method, s.target, s.seed) for s in systems} == {("l0_distill", 0.5, 0)}
    assert all(c == make_method("l0_distill", options(c.budget.align)).config for c in found)


class Priced:
    """A budget of a price for each unit of a site of 12."""

    def __init__(self, prices: dict[str, int]) -> None:
        self.prices = prices

    def count(self, kept) -> int:
        return sum(price * kept[name] for name, price in self.prices.items())

    def sparsity(self, kept: int) -> float:
        return 1 - kept / (12 * sum(self.prices.values()))


def test_the_coarsest_comes_as_near_as_it_can_and_the_others_fill_up():
    """8 + 3 * 8 shall become 24: 3 * 4 leaves 12 for the other; had that gone first, it'd be 28."""
    mask = (torch.arange(12) < 8).float()
    scores = {"a": torch.arange(12.0), "b": torch.arange(12.0)}
    budget = Priced({"a": 1, "b": 3})
    found = align_widths({"a": mask, "b": mask}, scores, budget, 0.5, 0.01, 4)
    assert found["a"].nonzero()[:, 0].tolist() == list(range(12))
    assert found["b"].nonzero()[:, 0].tolist() == [4, 5, 6, 7], (
        "the highest of those that were open"
    )
