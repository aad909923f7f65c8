"""Sites: the kinds of places where models can be cut, how, and what they hold; no model's own."""

from espnet_prune.sites.base import KINDS, UNIT_KINDS, Site, SiteMap, count_parameters
from espnet_prune.sites.decoder import DECODER, DecoderConfig
from espnet_prune.sites.linear_attention import SOFTMAX, softmax_sites
from espnet_prune.sites.low_rank import RANK, rank_sites
from espnet_prune.sites.weights import WEIGHT, weight_sites

__all__ = [
    "DECODER",
    "KINDS",
    "RANK",
    "SOFTMAX",
    "UNIT_KINDS",
    "WEIGHT",
    "DecoderConfig",
    "Site",
    "SiteMap",
    "count_parameters",
    "rank_sites",
    "softmax_sites",
    "weight_sites",
]
