"""Single weights of an encoder's attention and feed-forward matrices: one site a matrix.

The mask multiplies the weight, element by element. The cut leaves zeros where weights were, in
tensors of the same shape: smaller on disk (``surgery.sparse``), no faster, so a weight costs one
parameter and no multiply-accumulate. These sites stand alone: they are not mixed with others.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from espnet_prune.budget.structure import CostTerm
from espnet_prune.sites import masked
from espnet_prune.sites.base import Site, SiteMap, count_parameters
from espnet_prune.sites.unfit import refuse_tied

WEIGHT = "weight"

# attribute of a layer: attributes of its linears
CONFORMER_MATRICES = {
    "self_attn": ("linear_q", "linear_k", "linear_v", "linear_pos", "linear_out"),
    "feed_forward_macaron": ("w_1", "w_2"),
    "feed_forward": ("w_1", "w_2"),
}
SSL_MATRICES = {
    "attention": ("q_proj", "k_proj", "v_proj", "out_proj"),
    "feed_forward": ("intermediate_dense", "output_dense"),
}


class WeightSite(Site):
    """All weights of one linear layer; its bias stays."""

    def __init__(self, layer: nn.Linear, name: str, block: int) -> None:
        super().__init__(name, WEIGHT, layer.weight.numel(), block)
        self.layer = layer

    def attach(self) -> None:
        masked.attach(self.layer)

    def apply(self, mask: Tensor) -> None:
        self.layer.weight_mask = mask.view_as(self.layer.weight)

    def clear(self) -> None:
        if isinstance(self.layer, masked._Masked):
            masked.clear(self.layer)

    def detach(self) -> None:
        masked.detach(self.layer)

    def layers(self) -> list[nn.Module]:
        return [self.layer]

    def unit_weights(self) -> list[Tensor]:
        return [self.layer.weight.reshape(-1, 1)]

    def mean_squares(self) -> Tensor:
        return self.layer.weight.flatten() ** 2

    @torch.no_grad()
    def cut(self, kept: Tensor, values: Tensor) -> None:
        """Multiplies the weights ``kept`` by their ``values`` and puts zeros for the others."""
        factors = torch.zeros(self.units)
        factors[kept] = values.to(factors)
        self.layer.weight.mul_(factors.to(self.layer.weight).view_as(self.layer.weight))


def weight_sites(encoder: nn.Module, reference_seconds: float) -> SiteMap:
    """A site for every linear weight of attention and feed-forward, in all blocks.

    Args:
        encoder: an ESPnet ConformerEncoder, or a whole wav2vec 2.0, HuBERT or Whisper model.
        reference_seconds: passed on; single weights save no MACs.

    Raises:
        ModelError: not such an encoder, float16, or a matrix that two layers share.
    """
    from espnet_prune.models.whisper.sites import is_whisper, whisper_entries, whisper_linears

    whisper = is_whisper(encoder)
    linears = whisper_linears(encoder) if whisper else _linears(encoder)
    sites = {name: WeightSite(linear, name, block) for name, block, linear in linears}
    refuse_tied(encoder, sites.values())
    terms = [CostTerm(1, 0, (name,)) for name in sites]
    rest = count_parameters(encoder) - sum(s.units for s in sites.values())
    terms.append(CostTerm(rest, 0, ()))
    entries = whisper_entries(encoder) if whisper else ()
    return SiteMap(sites, terms, encoder, reference_seconds, entries)


def _layout(encoder: nn.Module) -> tuple[nn.ModuleList, dict[str, tuple[str, ...]]]:
    from espnet_prune.models.conformer.sites import check_conformer
    from espnet_prune.models.ssl.sites import check_ssl

    if hasattr(encoder, "feature_extractor"):
        check_ssl(encoder)
        return encoder.encoder.layers, SSL_MATRICES
    check_conformer(encoder)
    return encoder.encoders, CONFORMER_MATRICES


def _linears(encoder: nn.Module) -> Iterator[tuple[str, int, nn.Linear]]:
    layers, matrices = _layout(encoder)
    for block, parent in enumerate(layers):
        for attribute, names in matrices.items():
            module = getattr(parent, attribute)
            for name in names if module is not None else ():
                yield f"block.{block}.{attribute}.{name}", block, getattr(module, name)
