"""Units ranked by scores from a file: any other tool's measure of importance, on our sites.

The scores decide what goes; budget, cut and finetuning are those of every other method. This is
how `benchmarks/torch_pruning_scores.py` sets Torch-Pruning beside the methods here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from espnet_prune.budget import resolve
from espnet_prune.errors import ConfigError, DataError
from espnet_prune.methods.base import Method, unit_scores
from espnet_prune.methods.options import MethodConfig, UnitsConfig
from espnet_prune.surgery import GatedModel


@dataclass(frozen=True)
class ImportanceConfig:
    """Where the scores are.

    Attributes:
        file: .safetensors with a tensor (units,) by name of site, as seen from where the stages
            run, the folder that holds ``exp``.
    """

    file: str


@dataclass(frozen=True)
class ImportanceMethodConfig(UnitsConfig):
    """Options of scores from a file.

    Attributes:
        importance: where they are; without it, the method has nothing to go by.
    """

    importance: ImportanceConfig | None = None


class Importance(Method):
    """The units of lowest score go, over all scored sites together; other sites stay whole."""

    Config: ClassVar[type[MethodConfig]] = ImportanceMethodConfig

    def masks(self, gated: GatedModel) -> Mapping[str, Tensor]:
        """The resolved masks of all sites.

        Raises:
            ConfigError: no file is named, a score is of no site here, or the scored sites are too
                small for the target.
            DataError: the file is missing or damaged.
        """
        scores, budget = self.order(gated), gated.budget
        nothing = resolve(gated.site_map, {n: torch.zeros(len(s)) for n, s in scores.items()})
        held = float(budget.sparsity(budget.hard(nothing)))
        if held < self.target - self.config.budget.tolerance:
            raise ConfigError(
                f"{self.config.importance.file}: the {len(scores)} scored sites hold only "
                f"{held:.1%} of what is prunable, the target is {self.target:.1%}; score more "
                "sites, or lower it"
            )
        return self._highest(gated, scores)

    def order(self, gated: GatedModel) -> Mapping[str, Tensor]:
        """The file's scores."""
        options = self.config.importance
        if options is None:
            raise ConfigError(
                "importance: file: a method of this name needs a .safetensors with a tensor "
                "(units,) for each scored site; name it in the system's options"
            )
        return read_scores(Path(options.file), gated)


def read_scores(path: Path, gated: GatedModel) -> dict[str, Tensor]:
    """The scores (units,) of a file, checked against a model's sites of units.

    Raises:
        ConfigError: a name or a number of units that isn't this model's.
        DataError: the file is missing, damaged, or has a score that is not a number.
    """
    try:
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: not a readable .safetensors ({error}); make it anew") from error
    units = unit_scores(gated, lambda site: site.units)
    if not found:
        raise ConfigError(f"{path}: holds no scores; expected some of {', '.join(units)}")
    for name, values in found.items():
        if name not in units:
            raise ConfigError(f"{path}: '{name}' is no site here; expected: {', '.join(units)}")
        if values.shape != (units[name],):
            raise ConfigError(
                f"{path}: '{name}' has scores of shape {tuple(values.shape)}, expected one for "
                f"each of its {units[name]} units"
            )
        if not torch.isfinite(values).all():
            raise DataError(f"{path}: '{name}' has a score that is not finite")
    return {name: found[name].double() for name in units if name in found}
