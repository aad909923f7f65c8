"""inject: gates on every site of a model that a method wants to prune."""

from collections.abc import Sequence
from typing import Protocol

from torch import nn

from espnet_prune.budget import Budget, Controller
from espnet_prune.config import check_choice
from espnet_prune.errors import ModelError
from espnet_prune.gates import Gate
from espnet_prune.sites import (
    KINDS,
    WEIGHT,
    Site,
    SiteMap,
    conformer_sites,
    describe_conformer,
    is_whisper,
    ssl_encoder_of,
    ssl_sites,
    weight_sites,
    whisper_sites,
)
from espnet_prune.surgery.gated import GatedModel

SAMPLE_RATE = 16000


class GatingMethod(Protocol):
    """What inject asks of a method."""

    site_kinds: Sequence[str]
    measure: str
    reference_seconds: float
    seed: int

    def make_gate(self, site: Site) -> Gate: ...

    def make_controller(self) -> Controller | None: ...


def sites_of(model: nn.Module, reference_seconds: float = 10.0) -> SiteMap:
    """The sites of an ESPnet model, its ConformerEncoder, or a model of transformers.

    Args:
        model: an ESPnetASRModel (features' width and frame rate come from its front-end), a
            ConformerEncoder (100 frames a second), or wav2vec 2.0, HuBERT, or Whisper.
        reference_seconds: length of the utterance that MACs are counted for.

    Raises:
        ModelError: no rules are known for this model.
    """
    encoder = _encoder_of(model)
    if is_whisper(encoder):
        return whisper_sites(encoder, reference_seconds)
    if encoder is ssl_encoder_of(model):
        return ssl_sites(encoder, reference_seconds)
    frontend = getattr(model, "frontend", None)
    if frontend is None or not hasattr(frontend, "hop_length"):
        return conformer_sites(encoder, reference_seconds)
    config = getattr(model, "espnet_prune_config", {})
    rate = (config.get("frontend_conf") or {}).get("fs", SAMPLE_RATE)
    rate = SAMPLE_RATE if isinstance(rate, str) else rate
    per_second = rate / frontend.hop_length
    return conformer_sites(encoder, reference_seconds, per_second, frontend.output_size())


def _encoder_of(model: nn.Module) -> nn.Module:
    whole = getattr(model, "whisper", model)  # of an ESPnet model with Whisper's parts
    if is_whisper(whole):
        return whole
    ssl = ssl_encoder_of(model)
    if ssl is not None:
        return ssl
    encoder = model if hasattr(model, "encoders") else getattr(model, "encoder", None)
    if encoder is None or not hasattr(encoder, "encoders"):
        raise ModelError(
            f"{type(model).__name__}: can't be pruned; expected an ESPnet model with a "
            "ConformerEncoder, the encoder itself, or a model of transformers: wav2vec 2.0, "
            "HuBERT, or WhisperForConditionalGeneration"
        )
    return encoder


def inject(model: nn.Module, method: GatingMethod) -> GatedModel:
    """Puts the method's gates on the model's sites; all gates open, nothing changes.

    Args:
        model: one that ``sites_of`` takes; it is wrapped, not copied.
        method: says which sites, which gate and which budget.

    Returns:
        The gated model; train it, then ``cut`` it.

    Raises:
        ModelError: no rules are known for this model.
        ConfigError: an unknown kind of site or measure.
    """
    if tuple(method.site_kinds) == (WEIGHT,):
        site_map = weight_sites(_encoder_of(model), method.reference_seconds)
    else:
        for kind in method.site_kinds:
            check_choice("sites", kind, KINDS)
        site_map = sites_of(model, method.reference_seconds)
    gated = site_map.of_kinds(method.site_kinds)
    gates = {site.name: method.make_gate(site) for site in gated}
    if not gates:
        raise ModelError(f"sites {list(method.site_kinds)}: the model has none of them")
    budget = Budget(site_map, list(gates), method.measure)
    if hasattr(model, "encoders") and not hasattr(model, "espnet_prune_config"):
        model.espnet_prune_config = describe_conformer(model)
    device = next(model.parameters()).device
    wrapped = GatedModel(model, site_map, gates, budget, method.make_controller(), method.seed)
    return wrapped.to(device)
