"""Methods: one file a published recipe, by name."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from espnet_prune.config import check_choice, nearest, to_dataclass
from espnet_prune.errors import ConfigError
from espnet_prune.methods.acip import Acip
from espnet_prune.methods.adaptive_dropout import AdaptiveDropout
from espnet_prune.methods.base import Method
from espnet_prune.methods.comp import Comp
from espnet_prune.methods.cpd import Cpd
from espnet_prune.methods.fisher import FisherMask
from espnet_prune.methods.flexigpt import FlexiGpt
from espnet_prune.methods.folding import Folding, FoldingRepaired
from espnet_prune.methods.importance import Importance
from espnet_prune.methods.kcm import Kcm
from espnet_prune.methods.l0_distill import L0, L0Distill
from espnet_prune.methods.layer_drop import LayerDrop
from espnet_prune.methods.ld_pruner import LdPruner
from espnet_prune.methods.low_rank import LowRank
from espnet_prune.methods.magnitude import (
    Magnitude,
    UniformMagnitude,
    UniformMagnitudeWeights,
)
from espnet_prune.methods.module_error import ModuleError
from espnet_prune.methods.numerical import Numerical
from espnet_prune.methods.obs_weights import ObsWeights
from espnet_prune.methods.options import MethodConfig
from espnet_prune.methods.performer import Performer
from espnet_prune.methods.prunenet import PruneNet
from espnet_prune.methods.random_units import RandomUnits
from espnet_prune.methods.self_pinching import SelfPinching, SelfPinchingPublished
from espnet_prune.methods.self_pinching_weights import SelfPinchingWeights
from espnet_prune.methods.small_from_scratch import SmallFromScratch
from espnet_prune.methods.unpruned import Unpruned
from espnet_prune.methods.width_search import WidthSearch

METHODS: Mapping[str, type[Method]] = {
    "l0_distill": L0Distill,
    "l0": L0,
    "nas": WidthSearch,
    "fisher": FisherMask,
    "folding": Folding,
    "layer_drop": LayerDrop,
    "magnitude": Magnitude,
    "uniform_magnitude": UniformMagnitude,
    "uniform_magnitude_weights": UniformMagnitudeWeights,
    "importance": Importance,
    "module_error": ModuleError,
    "random": RandomUnits,
    "self_pinching": SelfPinching,
    "self_pinching_published": SelfPinchingPublished,
    "self_pinching_weights": SelfPinchingWeights,
    "small_from_scratch": SmallFromScratch,
    "acip": Acip,
    "adaptive_dropout": AdaptiveDropout,
    "comp": Comp,
    "cpd": Cpd,
    "flexigpt": FlexiGpt,
    "folding_repaired": FoldingRepaired,
    "kcm": Kcm,
    "ld_pruner": LdPruner,
    "low_rank": LowRank,
    "numerical": Numerical,
    "obs_weights": ObsWeights,
    "performer": Performer,
    "prunenet": PruneNet,
    "unpruned": Unpruned,
}


def make_method(name: str, options: Mapping | None = None, **arguments: Any) -> Method:
    """A method by its name.

    Args:
        name: a key of ``METHODS``.
        options: what its ``Config`` is read from; or give ``config`` itself.
        arguments: arguments of its class, such as ``target``.

    Raises:
        ConfigError: no such method, names the nearest; options that it doesn't read.
    """
    check_choice("method", name, METHODS)
    if options is not None:
        arguments["config"] = method_config(name, options, name)
    return METHODS[name](**arguments)


def method_config(name: str, options: Mapping, where: str) -> MethodConfig:
    """A method's options.

    Args:
        name: name of the method.
        options: by key.
        where: the file or key that errors name.

    Raises:
        ConfigError: no such method; a key that it doesn't read, or a wrong value.
    """
    check_choice(f"{where}: method", name, METHODS)
    return to_dataclass(METHODS[name].Config, options, where)


def options_of(name: str, shared: Mapping) -> dict:
    """What a method reads of options that a recipe gives for all methods."""
    own = {field.name for field in fields(METHODS[name].Config)}
    return {key: value for key, value in shared.items() if key in own}


def check_shared(shared: Mapping, where: str) -> None:
    """ConfigError for options, given for all methods, which none reads or one reads in vain."""
    known = {field.name for method in METHODS.values() for field in fields(method.Config)}
    for key in shared:
        if key not in known:
            raise ConfigError(f"{where}: unknown key '{key}'{nearest(key, known)}")
    for name in METHODS:
        method_config(name, options_of(name, shared), where)


__all__ = [
    "Acip",
    "AdaptiveDropout",
    "LowRank",
    "PruneNet",
    "Numerical",
    "Performer",
    "LdPruner",
    "Kcm",
    "FoldingRepaired",
    "Cpd",
    "Comp",
    "L0",
    "METHODS",
    "FisherMask",
    "FlexiGpt",
    "Folding",
    "Importance",
    "L0Distill",
    "LayerDrop",
    "Magnitude",
    "Method",
    "MethodConfig",
    "ModuleError",
    "RandomUnits",
    "SelfPinching",
    "SelfPinchingPublished",
    "SelfPinchingWeights",
    "SmallFromScratch",
    "UniformMagnitude",
    "UniformMagnitudeWeights",
    "Unpruned",
    "WidthSearch",
    "check_shared",
    "make_method",
    "method_config",
    "options_of",
]
