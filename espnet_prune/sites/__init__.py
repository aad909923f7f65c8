"""Sites: where a model can be cut, how, and at which cost."""

from espnet_prune.sites.base import KINDS, UNIT_KINDS, Site, SiteMap
from espnet_prune.sites.conformer import conformer_sites, describe_conformer
from espnet_prune.sites.ssl import ssl_encoder_of, ssl_sites
from espnet_prune.sites.weights import WEIGHT, weight_sites
from espnet_prune.sites.whisper import is_whisper, whisper_sites

__all__ = [
    "KINDS",
    "UNIT_KINDS",
    "WEIGHT",
    "Site",
    "SiteMap",
    "conformer_sites",
    "describe_conformer",
    "is_whisper",
    "ssl_encoder_of",
    "ssl_sites",
    "weight_sites",
    "whisper_sites",
]
