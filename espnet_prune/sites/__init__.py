"""Sites: where a model can be cut, how, and at which cost."""

from espnet_prune.sites.base import KINDS, UNIT_KINDS, CostTerm, Site, SiteMap
from espnet_prune.sites.conformer import conformer_sites
from espnet_prune.sites.hierarchy import close_empty_branches, resolve

__all__ = [
    "KINDS",
    "UNIT_KINDS",
    "CostTerm",
    "Site",
    "SiteMap",
    "close_empty_branches",
    "conformer_sites",
    "resolve",
]
