"""inject: gates on every site of a model that a method wants to prune."""

from collections.abc import Sequence
from typing import Protocol

from torch import nn

from espnet_prune.budget import Budget, Controller
from espnet_prune.config import check_choice
from espnet_prune.errors import ConfigError, ModelError
from espnet_prune.gates import Gate
from espnet_prune.models.conformer.front_end import encoder_positions, padding_of
from espnet_prune.models.conformer.sites import (
    FRAMES_PER_SECOND,
    conformer_sites,
    describe_conformer,
)
from espnet_prune.models.espnet.sample_rate import sample_rate_of
from espnet_prune.models.ssl.sites import ssl_encoder_of, ssl_sites
from espnet_prune.models.transformer_decoder.sites import DecoderConfig, decoder_sites, with_decoder
from espnet_prune.models.whisper.sites import is_whisper, whisper_sites
from espnet_prune.sites import KINDS, WEIGHT, Site, SiteMap, weight_sites
from espnet_prune.surgery.gated import GatedModel
from espnet_prune.surgery.plan import plan_of


class GatingMethod(Protocol):
    """What inject asks of a method; it may lack ``decoder``."""

    site_kinds: Sequence[str]
    measure: str
    reference_seconds: float
    seed: int
    decoder: DecoderConfig | None = None

    def make_gate(self, site: Site) -> Gate: ...

    def make_controller(self) -> Controller | None: ...


def sites_of(
    model: nn.Module, reference_seconds: float = 10.0, decoder: DecoderConfig | None = None
) -> SiteMap:
    """The sites of an ESPnet model, its ConformerEncoder, or a model of transformers.

    Args:
        model: an ESPnetASRModel (features' width and frame rate come from its front-end), a
            ConformerEncoder (100 frames a second), or wav2vec 2.0, HuBERT, or Whisper.
        reference_seconds: length of the utterance that MACs are counted for.
        decoder: given, the sites of an ESPnet model's TransformerDecoder are among them.

    Raises:
        ModelError: no rules are known for this model.
    """
    encoder = _encoder_of(model)
    other = is_whisper(encoder) or encoder is ssl_encoder_of(model)
    if decoder is not None and other:
        raise ModelError(
            f"decoder: of {type(encoder).__name__} there is none to be chosen (Whisper's is always "
            "pruned with its encoder); leave the method's key `decoder` out"
        )
    if is_whisper(encoder):
        return whisper_sites(encoder, reference_seconds)
    if other:
        return ssl_sites(encoder, reference_seconds)
    rate, bins = _features_of(model)
    site_map = conformer_sites(encoder, reference_seconds, rate, bins)
    if decoder is None:
        return site_map
    positions = encoder_positions(round(reference_seconds * rate), padding_of(encoder.embed))
    found = getattr(model, "decoder", None)
    blocks = len(encoder.encoders)
    own = decoder_sites(found, decoder, reference_seconds, positions, blocks)
    return with_decoder(site_map, own)


def _features_of(model: nn.Module) -> tuple[float, int | None]:
    """Frames a second and width of an ESPnet model's features; None where no front-end tells."""
    frontend = getattr(model, "frontend", None)
    if frontend is None or not hasattr(frontend, "hop_length"):
        return FRAMES_PER_SECOND, None
    rate = sample_rate_of(getattr(model, "espnet_prune_config", None))
    return rate / frontend.hop_length, frontend.output_size()


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


def _refuse_cut_or_gated(model: nn.Module) -> None:
    """ModelError for a model whose gates are on, which would stay beside the new ones.

    And for one that was cut, whose next plan would count the wrong units.
    """
    hooks = (hook for m in model.modules() for hook in m._forward_pre_hooks.values())
    if any(isinstance(getattr(hook, "__self__", None), GatedModel) for hook in hooks):
        raise ModelError(
            f"{type(model).__name__}: a model that is already gated can't be gated; take its gates "
            "off by gated.release() first"
        )
    if plan_of(model) is not None:
        raise ModelError(
            f"{type(model).__name__}: a model that is already cut can't be gated; prune the "
            "dense one"
        )


def inject(model: nn.Module, method: GatingMethod) -> GatedModel:
    """Puts the method's gates on the model's sites; all gates open, nothing changes.

    Args:
        model: one that ``sites_of`` takes; it is wrapped, not copied.
        method: says which sites, which gate and which budget.

    Returns:
        The gated model; train it, then ``cut`` it.

    Raises:
        ModelError: no rules are known for this model, or it is already cut or gated.
        ConfigError: an unknown kind of site or measure, or a decoder whose single weights should
            be pruned.
    """
    _refuse_cut_or_gated(model)
    decoder = getattr(method, "decoder", None)
    if tuple(method.site_kinds) == (WEIGHT,):
        if decoder is not None:
            raise ConfigError(
                "decoder: this method zeroes single weights, which is known for encoders alone; "
                "leave the key out, or choose a method that prunes units"
            )
        site_map = weight_sites(_encoder_of(model), method.reference_seconds)
    else:
        for kind in method.site_kinds:
            check_choice("sites", kind, KINDS)
        site_map = sites_of(model, method.reference_seconds, decoder)
    gated = site_map.of_kinds(method.site_kinds)
    gates = {site.name: method.make_gate(site) for site in gated}
    if not gates:
        raise ModelError(f"sites {list(method.site_kinds)}: the model has none of them")
    budget = Budget(site_map, list(gates), method.measure)
    if hasattr(model, "encoders"):
        model.espnet_prune_config = describe_conformer(model)
    device = next(model.parameters()).device
    wrapped = GatedModel(model, site_map, gates, budget, method.make_controller(), method.seed)
    return wrapped.to(device)
