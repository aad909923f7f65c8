"""Groups of options, some of single methods, read from a recipe's ``method:`` keys."""

from dataclasses import dataclass, field

from espnet_prune.budget import MEASURES, ControllerConfig
from espnet_prune.config import check_choice, check_range
from espnet_prune.errors import ConfigError
from espnet_prune.gates import SelfPinchingConfig

ORDERS = ("loss", "spaced")
ERRORS = ("loss", "wer")
ALIGNMENTS = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True)
class BudgetConfig:
    """What is counted, and how near the target must be.

    Attributes:
        measure: ``parameters`` or ``macs``.
        reference_seconds: length of the utterance that MACs are counted for.
        tolerance: allowed distance of the reached hard sparsity from the target.
        align: widths of feed-forwards and of convolutions, the front-end's too, are multiples of
            this after the cut (or whole); 1 leaves them as learned. Heads have the width d_k each,
            which no cut changes.
    """

    measure: str = "parameters"
    reference_seconds: float = 10.0
    tolerance: float = 0.005
    align: int = 1

    def __post_init__(self) -> None:
        check_choice("budget: measure", self.measure, MEASURES)
        check_range("budget: reference_seconds", self.reference_seconds, 0.5, 600)
        check_range("budget: tolerance", self.tolerance, 0, 1)
        if self.align not in ALIGNMENTS:
            raise ConfigError(
                f"budget: align: {self.align}; expected one of {ALIGNMENTS}, 1 for widths as they "
                "are learned"
            )


@dataclass(frozen=True)
class ClipConfig:
    """Largest gradient norm of each group, each clipped apart from the others."""

    weights: float = 5.0
    gates: float = 1.0
    multipliers: float = 1.0

    def __post_init__(self) -> None:
        for name in ("weights", "gates", "multipliers"):
            check_range(f"clip: {name}", getattr(self, name), 1e-6, 1e9)


NORM_STATISTICS = ("frozen", "updated")


@dataclass(frozen=True)
class StudentConfig:
    """How the student is trained in stages 8 and 10, where that isn't the teacher's own way; ours.

    Attributes:
        norm_statistics: of batch norms: ``frozen`` as the teacher learned them, or ``updated`` by
            each batch, into which ESPnet counts padding, and which few updates never settle.
            Weights that are drawn anew are always trained with ``updated``.
        dropout: rate of all dropout; None for the teacher's rates. A teacher's outputs regularise
            by themselves, and drawing dropout's noise takes a fifth of an update on a CPU.
        spec_augment: whether the teacher's SpecAugment, if it has one, masks what both hear.
    """

    norm_statistics: str = "frozen"
    dropout: float | None = 0.0
    spec_augment: bool = True

    def __post_init__(self) -> None:
        check_choice("student: norm_statistics", self.norm_statistics, NORM_STATISTICS)
        if self.dropout is not None:
            check_range("student: dropout", self.dropout, 0, 0.99)


# A projected constraint never pushes back, and one threshold moves a whole site: it overshoots.
PINCHING_CONTROLLERS = ("band", "lagrangian")


@dataclass(frozen=True)
class PinchingControllerConfig(ControllerConfig):
    """The same options, with the authors' band where no kind is named."""

    kind: str = "band"


@dataclass(frozen=True)
class PinchingConfig:
    """Options of the self-pinching methods alone (Xu et al. 2025).

    Attributes:
        gate: of the thresholds.
        controller: of the size; the authors' ``band`` by default, or ``lagrangian``.
        learning_rate: of the thresholds (code: AdamW, 2e-4 for everything).
        momentum: of the thresholds, Adam's first beta; 0.9 is Adam's own. Less overshoots less,
            which counts where there are few updates (ours).
        distill: whether the uncompressed model teaches too (ours; the authors' code has
            labels alone).
        epochs_from_finetuning: how many epochs the one pass takes over from finetuning. With all of
            them there is no finetuning any more, as in the paper, and the number of updates is
            still that of the other systems.
    """

    gate: SelfPinchingConfig = field(default_factory=SelfPinchingConfig)
    controller: PinchingControllerConfig = field(default_factory=PinchingControllerConfig)
    learning_rate: float = 2e-4
    momentum: float = 0.9
    distill: bool = False
    epochs_from_finetuning: int = 0

    def __post_init__(self) -> None:
        check_choice("pinching: controller: kind", self.controller.kind, PINCHING_CONTROLLERS)
        check_range("pinching: learning_rate", self.learning_rate, 1e-8, 10)
        check_range("pinching: momentum", self.momentum, 0, 0.999)
        check_range("pinching: epochs_from_finetuning", self.epochs_from_finetuning, 0, 1e6)


@dataclass(frozen=True)
class CalibrationConfig:
    """What methods that look at data get to see.

    Attributes:
        utterances: of the training set, drawn by the system's seed; all of them where there are
            fewer. The code of Kwon et al. takes 2048 examples of text; speech is longer: ours.
    """

    utterances: int = 256

    def __post_init__(self) -> None:
        check_range("calibration: utterances", self.utterances, 1, 1e6)


@dataclass(frozen=True)
class FisherConfig:
    """Options of the Fisher mask search alone (Kwon et al. 2022).

    Attributes:
        rearrange: whether units of a site change places, once their number is fixed.
        rescale: whether the kept units are rescaled by least squares.
        rescale_utterances: of the calibration set, for the rescaling, which runs the model twice
            for every block: ours.
        damping: pulls the factors to 1, relative to the mean of the normal equations' diagonal
            (their code damps its solver by 1, not scaled: ours).
    """

    rearrange: bool = True
    rescale: bool = True
    rescale_utterances: int = 32
    damping: float = 0.1

    def __post_init__(self) -> None:
        check_range("fisher: rescale_utterances", self.rescale_utterances, 1, 1e6)
        check_range("fisher: damping", self.damping, 1e-9, 1e9)


@dataclass(frozen=True)
class LayerDropConfig:
    """Options of layer dropping alone.

    Attributes:
        order: ``loss``: one block after the other, each time the one whose loss is the smallest
            without it; ``spaced``: evenly over the depth, with no look at data.
    """

    order: str = "loss"

    def __post_init__(self) -> None:
        check_choice("layer_drop: order", self.order, ORDERS)


@dataclass(frozen=True)
class ImportanceConfig:
    """Options of scores from a file alone.

    Attributes:
        file: .safetensors with a tensor (units,) by name of site, as seen from where the stages
            run, the folder that holds ``exp``.
    """

    file: str


@dataclass(frozen=True)
class ModuleErrorConfig:
    """Options of the module-wise pruning error alone.

    Attributes:
        file: ``sensitivity.json`` of the teacher, as seen from where the stages run, the folder
            that holds ``exp``.
        measure: ``loss`` or ``wer``; on few utterances the loss tells more apart.
    """

    file: str
    measure: str = "loss"

    def __post_init__(self) -> None:
        check_choice("module_error: measure", self.measure, ERRORS)
