"""Options of single methods, read with all others from a recipe's ``method:`` keys."""

from dataclasses import dataclass

from espnet_prune.config import check_choice, check_range

ORDERS = ("loss", "spaced")
ERRORS = ("loss", "wer")


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
