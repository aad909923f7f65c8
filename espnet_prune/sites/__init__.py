"""Sites: where a model can be cut, how, and at which cost."""

from espnet_prune.sites.base import KINDS, UNIT_KINDS, Site, SiteMap, count_parameters
from espnet_prune.sites.conformer import FRAMES_PER_SECOND, conformer_sites, describe_conformer
from espnet_prune.sites.front_end import encoder_positions, hears_nothing, padding_of
from espnet_prune.sites.ssl import ssl_encoder_of, ssl_sites
from espnet_prune.sites.transformer_decoder import (
    DECODER,
    DecoderConfig,
    decoder_sites,
    is_transformer_decoder,
    with_decoder,
)
from espnet_prune.sites.weights import WEIGHT, weight_sites
from espnet_prune.sites.whisper import is_whisper, whisper_sites

__all__ = [
    "DECODER",
    "FRAMES_PER_SECOND",
    "KINDS",
    "UNIT_KINDS",
    "WEIGHT",
    "DecoderConfig",
    "Site",
    "SiteMap",
    "conformer_sites",
    "count_parameters",
    "decoder_sites",
    "describe_conformer",
    "encoder_positions",
    "hears_nothing",
    "is_transformer_decoder",
    "is_whisper",
    "padding_of",
    "ssl_encoder_of",
    "ssl_sites",
    "weight_sites",
    "whisper_sites",
    "with_decoder",
]
