"""Sites: where a model can be cut, how, and at which cost."""

from espnet_prune.sites.base import KINDS, UNIT_KINDS, Site, SiteMap, count_parameters
from espnet_prune.sites.weights import WEIGHT, weight_sites

__all__ = [
    "KINDS",
    "UNIT_KINDS",
    "WEIGHT",
    "Site",
    "SiteMap",
    "count_parameters",
    "weight_sites",
]
