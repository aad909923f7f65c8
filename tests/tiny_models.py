"""Small models and helpers that several tests share."""

from functools import partial

import torch

from espnet_prune.gates import FixedGate, HardConcreteGate
from espnet_prune.sites import KINDS

FRAMES = 120
ENCODER = {
    "output_size": 16,
    "attention_heads": 4,
    "linear_units": 24,
    "num_blocks": 2,
    "macaron_style": True,
    "rel_pos_type": "latest",
    "cnn_module_kernel": 7,
    "dropout_rate": 0.0,
    "positional_dropout_rate": 0.0,
}


def encoder(seed: int = 0, **options) -> torch.nn.Module:
    """A tiny ConformerEncoder whose norms are not what they are at the start."""
    from espnet2.asr.encoder.conformer_encoder import ConformerEncoder

    torch.manual_seed(seed)
    return randomise(ConformerEncoder(80, **{**ENCODER, **options})).eval()


def randomise(model: torch.nn.Module) -> torch.nn.Module:
    """Gives norms and biases values that they don't have at the start."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
            torch.nn.init.normal_(module.weight, 1.0, 0.3)
            torch.nn.init.normal_(module.bias)
        if isinstance(module, (torch.nn.Linear, torch.nn.LayerNorm)) and module.bias is not None:
            torch.nn.init.normal_(module.bias, 0.0, 0.3)
    return model


def features(batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Random features (B, T, 80) and lengths of which one is shorter."""
    generator = torch.Generator().manual_seed(7)
    lengths = torch.full((batch,), FRAMES)
    lengths[-1] = FRAMES * 3 // 4
    return torch.randn(batch, FRAMES, 80, generator=generator), lengths


def passes_of(gated, utterances: int = 6) -> list:
    """Passes of single utterances of noise, whose loss is the distance from a constant."""
    generator = torch.Generator().manual_seed(11)

    def run(feats: torch.Tensor) -> torch.Tensor:
        lengths = torch.tensor([feats.shape[1]])
        return (gated(feats, lengths)[0] - 0.5).square().mean()

    noise = torch.randn(utterances, FRAMES, 80, generator=generator)
    return [partial(run, feats[None, : FRAMES - 8 * i]) for i, feats in enumerate(noise)]


def random_mask(site, soft: bool, branch: float = 1.0, first_stays: bool = False) -> torch.Tensor:
    """A site's mask (units,), six of ten units open, the same one for each name.

    Args:
        site: the site.
        soft: whether open units have values from 0.2 to 1.
        branch: the soft value of a site of one unit.
        first_stays: whether the first unit is open in any case.
    """
    if site.units == 1:
        return torch.full((1,), branch if soft else 1.0)
    generator = torch.Generator().manual_seed(sum(map(ord, site.name)))
    mask = (torch.rand(site.units, generator=generator) < 0.6).float()
    if first_stays:
        mask[0] = 1.0
    return mask * (torch.rand(site.units, generator=generator) * 0.8 + 0.2) if soft else mask


def saturate(gated) -> None:
    """Opens seven of ten learned gates and closes the others, all for certain."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name in gated.gate_names():
            gate = gated.gate(name)
            is_open = torch.rand(gate.units, generator=generator) < 0.7
            gate.log_alpha.copy_(torch.where(is_open, 60.0, -60.0))


class AllSites:
    """A method of tests: a gate on every site of the given kinds."""

    reference_seconds = FRAMES / 100
    seed = 0

    def __init__(self, kinds=KINDS, measure: str = "parameters", learned: bool = True) -> None:
        self.site_kinds = kinds
        self.measure = measure
        self.learned = learned

    def make_gate(self, site):
        if not self.learned:
            return FixedGate(site.units)
        return HardConcreteGate(site.units, binary=site.kind == "block")

    def make_controller(self):
        return None
