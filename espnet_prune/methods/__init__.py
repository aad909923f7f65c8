"""Methods: one file a published recipe, by name."""

from collections.abc import Mapping

from espnet_prune.config import check_choice
from espnet_prune.methods.base import Method, MethodConfig
from espnet_prune.methods.fisher import FisherMask
from espnet_prune.methods.folding import Folding
from espnet_prune.methods.importance import Importance
from espnet_prune.methods.l0_distill import L0, L0Distill
from espnet_prune.methods.layer_drop import LayerDrop
from espnet_prune.methods.magnitude import (
    Magnitude,
    UniformMagnitude,
    UniformMagnitudeWeights,
)
from espnet_prune.methods.module_error import ModuleError
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
    "unpruned": Unpruned,
}


def make_method(name: str, **options) -> Method:
    """A method by its name.

    Raises:
        ConfigError: no such method; names the nearest.
    """
    check_choice("method", name, METHODS)
    return METHODS[name](**options)


__all__ = [
    "L0",
    "METHODS",
    "FisherMask",
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
    "make_method",
]
