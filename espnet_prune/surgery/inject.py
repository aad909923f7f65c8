"""inject: gates on every site of a model that a method wants to prune."""

from collections.abc import Sequence
from typing import Protocol

from torch import nn

from espnet_prune.budget import Controller, budget_of
from espnet_prune.config import check_choice
from espnet_prune.errors import ConfigError, ModelError
from espnet_prune.gates import Gate
from espnet_prune.sites import (
    KINDS,
    RANK,
    SOFTMAX,
    WEIGHT,
    DecoderConfig,
    Site,
    SiteMap,
    rank_sites,
    softmax_sites,
    weight_sites,
)
from espnet_prune.surgery.families import family_of, formats
from espnet_prune.surgery.gated import GatedModel
from espnet_prune.surgery.plan import plan_of

ALONE = {WEIGHT: weight_sites, RANK: rank_sites, SOFTMAX: softmax_sites}  # not mixed with others


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
    """The sites of a model of a known family, or of an ESPnet model with such an encoder.

    Args:
        model: the model; nothing in it is changed.
        reference_seconds: length of the utterance that MACs are counted for.
        decoder: given, the sites of its attention decoder are among them.

    Raises:
        ModelError: no rules are known for this model.
    """
    return family_of(model).sites(model, reference_seconds, decoder)


def _site_map(model: nn.Module, method: GatingMethod) -> SiteMap:
    decoder = getattr(method, "decoder", None)
    kind = method.site_kinds[0] if len(method.site_kinds) == 1 else ""
    if kind not in ALONE:
        for kind in method.site_kinds:
            check_choice("sites", kind, KINDS)
        return sites_of(model, method.reference_seconds, decoder)
    if decoder is not None:
        raise ConfigError(
            f"decoder: this method prunes each {kind}, which is known for encoders alone; leave "
            "the key out, or choose a method that prunes units"
        )
    family = family_of(model)
    found = family.attentions(model) if kind == SOFTMAX else family.matrices(model)
    return ALONE[kind](found.model, found.layers, method.reference_seconds, found.entries)


def _refuse_cut_or_gated(model: nn.Module, kinds: Sequence[str]) -> None:
    """ModelError for a model whose gates are on, which would stay beside the new ones.

    And for one that was cut, whose next plan would count the wrong units; ranks may be cut after
    units.
    """
    hooks = (hook for m in model.modules() for hook in m._forward_pre_hooks.values())
    if any(isinstance(getattr(hook, "__self__", None), GatedModel) for hook in hooks):
        raise ModelError(
            f"{type(model).__name__}: a model that is already gated can't be gated; take its gates "
            "off by gated.release() first"
        )
    plan = plan_of(model)
    if plan is None or plan.is_whole:
        return
    if tuple(kinds) != (RANK,) or RANK in {site.kind for site in plan.sites.values()}:
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
    _refuse_cut_or_gated(model, method.site_kinds)
    site_map = _site_map(model, method)
    gated = site_map.of_kinds(method.site_kinds)
    gates = {site.name: method.make_gate(site) for site in gated}
    if not gates:
        raise ModelError(f"sites {list(method.site_kinds)}: the model has none of them")
    budget = budget_of(site_map, list(gates), method.measure)
    for form in formats().values():
        if form.owns(model):
            form.remember(model)
    device = next(model.parameters()).device
    wrapped = GatedModel(model, site_map, gates, budget, method.make_controller(), method.seed)
    return wrapped.to(device)
