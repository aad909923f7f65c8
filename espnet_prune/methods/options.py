"""Options of all methods, as a recipe's ``method:`` has them; a method's own stand in its file."""

from dataclasses import dataclass, field

from espnet_prune.budget import MEASURES
from espnet_prune.config import check_choice, check_range
from espnet_prune.distill import DistillConfig
from espnet_prune.errors import ConfigError
from espnet_prune.sites import KINDS, UNIT_KINDS, DecoderConfig

ALIGNMENTS = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True)
class BudgetConfig:
    """What is counted, and how near the target must be.

    Attributes:
        measure: ``parameters``, ``macs``, or ``parameters_and_macs``, of which both then are at
            the target or beyond.
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


SHARPNESS = ("none", "sam", "cram")


@dataclass(frozen=True)
class SharpnessConfig:
    """Whether updates look for flat minima (``train.sharpness``), which takes a second pass each.

    Attributes:
        kind: ``none``, ``sam`` or ``cram``.
        rho: how far the weights are disturbed (both codes: 0.05).
        sparsities: those of ``cram``; each update draws one (their code: 0.5, 0.7, 0.9).
    """

    kind: str = "none"
    rho: float = 0.05
    sparsities: tuple[float, ...] = (0.5, 0.7, 0.9)

    def __post_init__(self) -> None:
        check_choice("student: sharpness: kind", self.kind, SHARPNESS)
        check_range("student: sharpness: rho", self.rho, 0, 1e3)
        for sparsity in self.sparsities:
            check_range("student: sharpness: sparsities", sparsity, 0, 0.999)
        if not self.sparsities:
            raise ConfigError("student: sharpness: sparsities: at least one was expected")


@dataclass(frozen=True)
class QuantNoiseConfig:
    """Whether updates see some weights in few bits (``train.quant_noise``).

    Attributes:
        bits: 4 or 8; 0 for no such noise.
        share: how many of the blocks are rounded in an update; ours.
        block: how many numbers of a row go together (the paper's blocks: 4 to 16).
    """

    bits: int = 0
    share: float = 0.5
    block: int = 8

    def __post_init__(self) -> None:
        if self.bits not in (0, 4, 8):
            raise ConfigError(
                f"student: quant_noise: bits: {self.bits}; expected 4 or 8, or 0 for none"
            )
        check_range("student: quant_noise: share", self.share, 0, 1)
        check_range("student: quant_noise: block", self.block, 1, 1e6)


GRADIENTS = ("none", "fp16", "powersgd", "topk")


@dataclass(frozen=True)
class GradientsConfig:
    """How gradients travel between the processes of a training (``train.traffic``).

    Attributes:
        kind: ``none``: whole; ``fp16``, ``powersgd`` or ``topk``.
        share: how many numbers ``topk`` keeps (least harmful at 0.1 by Rudakov et al. 2024).
        rank: the rank of ``powersgd``'s factors.
    """

    kind: str = "none"
    share: float = 0.1
    rank: int = 4

    def __post_init__(self) -> None:
        check_choice("student: gradients: kind", self.kind, GRADIENTS)
        check_range("student: gradients: share", self.share, 1e-6, 1)
        check_range("student: gradients: rank", self.rank, 1, 1e6)


@dataclass(frozen=True)
class IntermediateCtcConfig:
    """CTC on the outputs of some blocks as well ("Intermediate Loss Regularization for CTC-based
    Speech Recognition", Lee and Watanabe 2021, arXiv 2102.03216).

    Attributes:
        blocks: how many of them, evenly over the depth; 0 for none.
        weight: weight of their mean loss; the last block's has the rest (the paper: 0.3).
    """

    blocks: int = 0
    weight: float = 0.3

    def __post_init__(self) -> None:
        check_range("student: intermediate_ctc: blocks", self.blocks, 0, 1000)
        check_range("student: intermediate_ctc: weight", self.weight, 0, 1)


NORM_STATISTICS = ("frozen", "updated")


@dataclass(frozen=True)
class StudentConfig:
    """How the student is trained in stages 8 and 10, where that isn't the teacher's own way; ours.

    Attributes:
        norm_statistics: statistics of batch norms: ``frozen`` as the teacher learned them, or
            ``updated`` by each batch, into which ESPnet counts padding, and which few updates never
            settle. Weights that are drawn anew are always trained with ``updated``.
        dropout: rate of all dropout; None for the teacher's rates. A teacher's outputs regularise
            by themselves, and drawing dropout's noise takes a fifth of an update on a CPU.
        spec_augment: whether the teacher's SpecAugment, if it has one, masks what both hear.
        sharpness: whether updates look for flat minima.
        quant_noise: whether updates see some weights in few bits; not both.
        intermediate_ctc: whether blocks before the last one have a CTC loss, too, which lets a
            model lose blocks.
        gradients: how they travel between several processes.
        stochastic_depth: how probably an update goes past a block; None for the teacher's rates.
    """

    norm_statistics: str = "frozen"
    dropout: float | None = 0.0
    spec_augment: bool = True
    sharpness: SharpnessConfig = field(default_factory=SharpnessConfig)
    quant_noise: QuantNoiseConfig = field(default_factory=QuantNoiseConfig)
    intermediate_ctc: IntermediateCtcConfig = field(default_factory=IntermediateCtcConfig)
    gradients: GradientsConfig = field(default_factory=GradientsConfig)
    stochastic_depth: float | None = None

    def __post_init__(self) -> None:
        check_choice("student: norm_statistics", self.norm_statistics, NORM_STATISTICS)
        if self.dropout is not None:
            check_range("student: dropout", self.dropout, 0, 0.99)
        if self.stochastic_depth is not None:
            check_range("student: stochastic_depth", self.stochastic_depth, 0, 0.99)
        if self.sharpness.kind != "none" and self.quant_noise.bits:
            raise ConfigError(
                "student: quant_noise: an update can't look for flat minima at the same time; "
                "leave one of quant_noise and sharpness out"
            )


@dataclass(frozen=True)
class CalibrationConfig:
    """What methods that look at data get to see.

    Attributes:
        utterances: number of utterances of the training set, drawn by the system's seed; all of
            them where there are fewer. The code of Kwon et al. takes 2048 examples of text; speech
            is longer: ours.
    """

    utterances: int = 256

    def __post_init__(self) -> None:
        check_range("calibration: utterances", self.utterances, 1, 1e6)


@dataclass(frozen=True)
class RefitConfig:
    """How the layers that read kept units are solved anew at the cut (``surgery.refit``); ours.

    Attributes:
        utterances: number of utterances of the training set, drawn by the system's seed; their
            labels aren't read.
        damping: pulls the weights to what they are, relative to the mean square of what a layer
            reads; left out, every fifth utterance is held out, and chooses it for each layer.
        choose: whether each layer's units are chosen anew besides, as many as the method keeps of
            them, by the optimal brain surgeon.
    """

    utterances: int = 256
    damping: float | None = None
    choose: bool = True

    def __post_init__(self) -> None:
        check_range("refit: utterances", self.utterances, 1, 1e6)
        if self.damping is not None:
            check_range("refit: damping", self.damping, 1e-9, 1e9)


@dataclass(frozen=True)
class MethodConfig:
    """What every method reads; each method's ``Config`` adds its own.

    Attributes:
        budget: measure and tolerance.
        clip: gradient norms.
        distillation: losses of the pruning stage and of finetuning.
        student: how the student is trained there.
        continue_schedule: whether finetuning's learning rates go on where those of the pruning
            stage would be, instead of warming up anew; so systems that learn masks and those that
            don't, whose updates are all finetuning, see the same rates (ours).
    """

    budget: BudgetConfig = field(default_factory=BudgetConfig)
    clip: ClipConfig = field(default_factory=ClipConfig)
    distillation: DistillConfig = field(default_factory=DistillConfig)
    student: StudentConfig = field(default_factory=StudentConfig)
    continue_schedule: bool = False


@dataclass(frozen=True)
class UnitsConfig(MethodConfig):
    """Where a method that removes whole units finds them.

    Attributes:
        sites: kinds of sites that get a gate; their units are the sparsity's denominator.
        decoder: given (``{}`` is enough), these kinds get gates in the attention decoder too; left
            out, the encoder alone is pruned.
        refit: given (``{}`` is enough), the layers that read what is kept are solved anew at the
            cut, by least squares against the uncompressed model.
    """

    sites: tuple[str, ...] = (*UNIT_KINDS, "branch")
    decoder: DecoderConfig | None = None
    refit: RefitConfig | None = None

    def __post_init__(self) -> None:
        for kind in self.sites:
            check_choice("sites", kind, KINDS)


@dataclass(frozen=True)
class DataConfig(UnitsConfig):
    """Options of a method that looks at data.

    Attributes:
        calibration: what it sees.
    """

    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
