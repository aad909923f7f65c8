"""What must hold for every encoder: masked == cut on random structures, with exact sizes."""

from collections.abc import Callable

import torch
from tiny_models import AllSites, features
from torch.utils.flop_counter import FlopCounterMode

from espnet_prune.budget import Budget, resolve
from espnet_prune.budget.structure import BLOCK, BRANCH
from espnet_prune.score.profile import eager_attention
from espnet_prune.surgery import GatedModel, cut, inject

TOLERANCE = 1e-5
Run = Callable[[torch.nn.Module, torch.Tensor, torch.Tensor], torch.Tensor]


def encoded(model: torch.nn.Module, feats: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """An encoder's output (B, T, D), without what intermediate CTC hears."""
    found = model(feats, lengths)[0]
    return found[0] if isinstance(found, tuple) else found


def random_structure(gated: GatedModel, seed: int) -> dict[str, torch.Tensor]:
    """Resolved masks; soft ones for odd seeds, in which branches and whole sites go as well."""
    generator = torch.Generator().manual_seed(seed)

    def draw(number: int) -> torch.Tensor:
        return torch.rand(number, generator=generator)

    masks = {}
    for name, site in gated.site_map.sites.items():
        kept = 0.85 if site.kind in (BRANCH, BLOCK) else float(draw(1)) * 1.2
        mask = (draw(site.units) < kept).float()
        if seed % 2 and site.kind != BLOCK:
            mask = mask * (0.2 + 0.8 * draw(site.units))
        masks[name] = mask
    return resolve(gated.site_map, masks)


@torch.no_grad()
def check(gated: GatedModel, masks: dict, run: Run = encoded) -> torch.nn.Module:
    """Masked equals cut; parameters and MACs are exactly what the budget says."""
    for name in gated.gate_names():
        gated.gate(name).set(masks[name])
    gated.eval()
    small = cut(gated, masks)
    masked = run(gated.model, *features())
    difference = (masked - run(small, *features())).abs().max()
    assert float(difference) < TOLERANCE * max(1.0, float(masked.abs().max()))
    budgets = {m: Budget(gated.site_map, gated.gate_names(), m) for m in ("parameters", "macs")}
    expected = {
        name: budget.total - budget.prunable + budget.hard(masks)
        for name, budget in budgets.items()
    }
    assert sum(p.numel() for p in small.parameters()) == expected["parameters"]
    frames = round(gated.site_map.reference_seconds * 100)
    with eager_attention(small), FlopCounterMode(display=False) as counter:
        run(small, torch.zeros(1, frames, 80), torch.tensor([frames]))
    assert counter.get_total_flops() // 2 == expected["macs"]
    return small


def gate(model: torch.nn.Module) -> GatedModel:
    """Gates that only hold masks, on every site."""
    return inject(model, AllSites(learned=False)).eval()


def check_random_structures(
    model: torch.nn.Module, number: int = 20, run: Run = encoded
) -> torch.nn.Module:
    """Open gates change nothing bit for bit, and ``number`` random structures are as they say.

    Returns:
        The last one, cut.
    """
    with torch.no_grad():
        stock = run(model, *features())
        gated = gate(model)
        assert torch.equal(run(gated.model, *features()), stock)
    for seed in range(number):
        small = check(gated, random_structure(gated, seed), run)
    return small
