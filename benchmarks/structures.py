"""Dense Conformer encoders of random weights, and cuts: halved, uniform, of blocks alone, learned.

The learned shape is that of an earlier ``l0_50`` of the recipe egs/an4/l0_conformer1: the share of
units that each site kept, stretched over the depth. One number, added to all shares, brings it to
another size. What it has of a learned shape is what costs speed: branches that are gone, widths
that differ from block to block, odd widths.
"""

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

UNIFORM, LEARNED = "uniform", "learned"
LEARNED_SHARES = {  # kept share of units by kind of site, the blocks from first to last
    "front_end": (0.96, 0.35),
    "attention": (0.0, 1.0, 0.0, 1.0, 1.0, 1.0),
    "convolution": (0.81, 0.99, 1.0, 1.0, 1.0, 1.0),
    "feed_forward": (0.0, 0.47, 0.0, 0.0, 0.68, 0.87),
    "macaron": (0.0, 0.57, 0.0, 0.56, 0.64, 0.79),
}
HEAD_WIDTH = 64
BINS, FRAMES_PER_SECOND = 80, 100


@dataclass(frozen=True)
class Structure:
    """A cut encoder and what it is.

    Attributes:
        encoder: the cut encoder, in evaluation mode.
        name: such as ``uniform, 50% of parameters``.
        parameters: its parameters.
        macs: multiply-accumulates of one recording.
    """

    encoder: nn.Module
    name: str
    parameters: int
    macs: int


def dense_encoder(size: int, blocks: int, kernel: int = 31) -> nn.Module:
    """A Conformer encoder of LibriSpeech's proportions: heads of 64, feed-forwards four times."""
    from espnet2.asr.encoder.conformer_encoder import ConformerEncoder

    torch.manual_seed(0)
    return ConformerEncoder(
        BINS,
        output_size=size,
        attention_heads=max(1, size // HEAD_WIDTH),
        linear_units=4 * size,
        num_blocks=blocks,
        macaron_style=True,
        rel_pos_type="latest",
        cnn_module_kernel=kernel,
    ).eval()


def features(seconds: float) -> tuple[Tensor, Tensor]:
    """Random features (1, T, 80) of a recording, and its length (1,)."""
    frames = round(seconds * FRAMES_PER_SECOND)
    generator = torch.Generator().manual_seed(1)
    return torch.randn(1, frames, BINS, generator=generator), torch.tensor([frames])


def cut_encoder(
    dense: nn.Module, shape: str, target: float, measure: str, seconds: float, align: int = 1
) -> Structure:
    """A cut of an encoder, which stays as it is.

    Args:
        dense: the encoder.
        shape: ``uniform`` or ``learned``.
        target: sparsity, of all that the sites can remove, the front-end's channels too.
        measure: ``parameters`` or ``macs``.
        seconds: length of the recording for which MACs are counted.
        align: multiple that widths are brought to.
    """
    from espnet_prune.methods import make_method

    config = _config(measure, seconds, align)
    method = make_method("uniform_magnitude", target=target, config=config)
    gated = _gated(dense, method)
    masks = method.masks(gated) if shape == UNIFORM else _learned(gated, target)
    aligned = f", multiples of {align}" if align > 1 else ""
    name = f"{shape}, -{100 * target:.0f}% of {measure}{aligned}"
    return _cut(gated, method.aligned(gated, masks), name)


def halved_encoder(dense: nn.Module, seconds: float) -> Structure:
    """A cut of half of every width: heads, feed-forward units and all channels."""
    from espnet_prune.methods import make_method

    config = _config("parameters", seconds)
    gated = _gated(dense, make_method("uniform_magnitude", config=config))
    units = {name: site.units for name, site in gated.site_map.sites.items()}  # a branch has 1
    masks = {name: (torch.arange(n) < (n + 1) // 2).float() for name, n in units.items()}
    return _cut(gated, masks, "half of every width")


def whole_front_end(dense: nn.Module, seconds: float, target: float = 0.5) -> Structure:
    """A uniform cut that leaves the front-end: ``target`` of the parameters of all other sites."""
    from espnet_prune.methods import make_method

    config = _config("parameters", seconds, front_end=False)
    method = make_method("uniform_magnitude", target=target, config=config)
    gated = _gated(dense, method)
    name = f"blocks alone, -{100 * target:.0f}% of parameters"
    return _cut(gated, method.masks(gated), name)


def _config(measure: str, seconds: float, align: int = 1, front_end: bool = True):
    from espnet_prune.methods.options import BudgetConfig, UnitsConfig

    budget = BudgetConfig(measure=measure, reference_seconds=seconds, align=align)
    config = UnitsConfig(budget=budget)
    if front_end:
        return config
    return replace(config, sites=tuple(k for k in config.sites if k != "front_end_channel"))


def _gated(dense: nn.Module, method) -> nn.Module:
    import espnet_prune

    return espnet_prune.inject(copy.deepcopy(dense), method).eval()


def _cut(gated, masks: dict[str, Tensor], name: str) -> Structure:
    import espnet_prune
    from espnet_prune.budget import Budget

    small = espnet_prune.cut(gated, masks).eval()
    macs = Budget(gated.site_map, gated.gate_names(), "macs")
    parameters = sum(p.numel() for p in small.parameters())
    return Structure(small, name, parameters, macs.total - macs.prunable + macs.hard(masks))


def dense_macs(dense: nn.Module, seconds: float) -> int:
    """Multiply-accumulates of the whole encoder for one recording."""
    from espnet_prune.budget import Budget
    from espnet_prune.surgery import sites_of

    site_map = sites_of(dense, seconds)
    return Budget(site_map, list(site_map.sites), "macs").total


def _learned(gated, target: float) -> dict[str, Tensor]:
    """Masks of the learned shape, its shares shifted alike to the target."""
    from espnet_prune.budget import masks_at_sparsity
    from espnet_prune.sites import UNIT_KINDS

    sites = [site for site in gated.site_map.of_kinds(UNIT_KINDS)]
    blocks = 1 + max(site.block for site in sites if site.block is not None)

    def share(name: str, block: int | None) -> float:
        if block is None:
            return LEARNED_SHARES["front_end"][int(name[-1])]
        shares = LEARNED_SHARES[name.split(".")[2]]
        return shares[block * len(shares) // blocks]

    def make(shift: float) -> dict[str, Tensor]:
        masks = {}
        for site in sites:
            position = (torch.arange(site.units) + 0.5) / site.units
            masks[site.name] = (position < share(site.name, site.block) + shift).float()
        return masks

    return masks_at_sparsity(make, gated.budget, target, -1.0, 1.0)[0]
