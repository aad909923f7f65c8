"""Gates: masks from parameters. No models and no losses here."""

from espnet_prune.gates.base import Gate
from espnet_prune.gates.fixed import FixedGate
from espnet_prune.gates.hard_concrete import HardConcreteConfig, HardConcreteGate
from espnet_prune.gates.retention import RetentionConfig, RetentionGate
from espnet_prune.gates.self_pinching import SelfPinchingConfig, SelfPinchingGate
from espnet_prune.gates.straight_through import StraightThroughGate
from espnet_prune.gates.width_choice import WidthChoiceConfig, WidthChoiceGate

__all__ = [
    "FixedGate",
    "Gate",
    "HardConcreteConfig",
    "HardConcreteGate",
    "RetentionConfig",
    "RetentionGate",
    "SelfPinchingConfig",
    "SelfPinchingGate",
    "StraightThroughGate",
    "WidthChoiceConfig",
    "WidthChoiceGate",
]
