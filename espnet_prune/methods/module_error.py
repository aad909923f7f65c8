"""Module-wise pruning error: what the task loses without a module decides what stays.

"MoPE-CLIP: Structured Pruning for Efficient Vision-Language Models with Module-wise Pruning Error
Metric", Lin et al. 2024 (arXiv 2403.07839): the importance of a head, a group of units or a layer
is the loss of the task's metric once it is masked. Here the errors are those of
``espnet-prune sensitivity``, and what goes first is what hurts least for each parameter (or
MAC) that it costs. Differences: the groups are the measured shares of a site's units, in the order
of their magnitudes; a group that hurts less than the one before it is joined with that, since they
were measured one on top of the other; widths alone are chosen, and a branch goes with the last of
its units, where the paper drops whole layers afterwards.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from espnet_prune.budget import resolve
from espnet_prune.config import check_choice
from espnet_prune.errors import ConfigError, DataError
from espnet_prune.io_atomic import read_json
from espnet_prune.methods.base import Method, unit_scores
from espnet_prune.methods.options import MethodConfig, UnitsConfig
from espnet_prune.sites import DECODER, Site
from espnet_prune.surgery import GatedModel

COMMAND = "espnet-prune sensitivity"
SAME = 1e-4  # relative difference of magnitudes that another machine's sums may make


ERRORS = ("loss", "wer")


@dataclass(frozen=True)
class ModuleErrorConfig:
    """Where the errors are, and which of them count.

    Attributes:
        file: ``sensitivity.json`` of the teacher, as seen from where the stages run, the folder
            that holds ``exp``.
        measure: ``loss`` or ``wer``; on few utterances the loss tells more apart.
    """

    file: str
    measure: str = "loss"

    def __post_init__(self) -> None:
        check_choice("module_error: measure", self.measure, ERRORS)


@dataclass(frozen=True)
class ModuleErrorMethodConfig(UnitsConfig):
    """Options of the module-wise pruning error.

    Attributes:
        module_error: where the errors are; without it, the method has nothing to go by.
    """

    module_error: ModuleErrorConfig | None = None


class ModuleError(Method):
    """Units are ranked by the measured error of their group for each parameter that it costs."""

    Config: ClassVar[type[MethodConfig]] = ModuleErrorMethodConfig

    def masks(self, gated: GatedModel) -> Mapping[str, Tensor]:
        """The resolved masks of all sites.

        Raises:
            ConfigError: no file of errors is named, or it is of another model or other sites.
            DataError: the file is missing or damaged.
        """
        return self._highest(gated, self.order(gated))

    def order(self, gated: GatedModel) -> Mapping[str, Tensor]:
        """Each unit's place by its group's error for what it costs."""
        options = self.config.module_error
        if options is None:
            raise ConfigError(
                f"module_error: file: a method of this name needs the errors of `{COMMAND}`; name "
                "its sensitivity.json in the system's options"
            )
        return module_scores(gated, Path(options.file), f"{options.measure}_change")


def module_scores(gated: GatedModel, path: Path, key: str) -> dict[str, Tensor]:
    """Each unit's place among all units, float64 (units,): 0 for the one that goes first.

    Args:
        gated: the gated model.
        path: path of ``sensitivity.json``.
        key: ``loss_change`` or ``wer_change``.

    Raises:
        ConfigError: the errors are of another model or other sites.
        DataError: the file is missing or damaged.
    """
    result = read_json(path)
    if not isinstance(result, dict) or "sites" not in result:
        raise DataError(f"{path}: the result of `{COMMAND}` was expected; make it anew")
    orders = unit_scores(gated, lambda site: torch.argsort(site.magnitudes(), stable=True))
    units = []
    for name, order in orders.items():
        site = gated.site_map.sites[name]
        measured = _checked(result["sites"].get(name), site, path)
        removed = [removal["removed"] for removal in measured]
        saved = [_saved(gated, name, order[:number]) for number in removed]
        slopes = rising_slopes(removed, saved, [removal[key] for removal in measured])
        units += [(slope, place, name, unit) for place, (slope, unit)
                  in enumerate(zip(slopes, order.tolist(), strict=True))]  # fmt: skip
    scores = {name: torch.zeros(len(order), dtype=torch.float64) for name, order in orders.items()}
    for rank, (_, _, name, unit) in enumerate(sorted(units)):
        scores[name][unit] = rank
    return scores


def rising_slopes(
    removed: Sequence[int], saved: Sequence[float], errors: Sequence[float]
) -> list[float]:
    """Error for each saved parameter, of every unit in the order of removal.

    Args:
        removed: numbers of units, rising, the last one all of them.
        saved: what each number saves.
        errors: what each number costs.

    Returns:
        The slopes of the lower convex envelope of the errors over what is saved: never falling, so
        that units go in the order in which they were measured.
    """
    groups: list[tuple[int, float, float]] = []  # units, saved, error
    before = (0, 0.0, 0.0)
    for point in zip(removed, saved, errors, strict=True):
        groups.append(tuple(new - old for new, old in zip(point, before, strict=True)))
        before = point
        while len(groups) > 1 and _slope(groups[-2]) >= _slope(groups[-1]):
            last = groups.pop()
            groups[-1] = tuple(a + b for a, b in zip(groups[-1], last, strict=True))
    return [_slope(group) for group in groups for _ in range(group[0])]


def _slope(group: tuple[int, float, float]) -> float:
    return group[2] / group[1]


def _saved(gated: GatedModel, name: str, gone: Tensor) -> int:
    """What the budget's measure saves without some units of a site."""
    mask = torch.ones(gated.site_map.sites[name].units)
    mask[gone.cpu()] = 0.0
    budget = gated.budget
    return budget.prunable - budget.hard(resolve(gated.site_map, {name: mask}))


def _checked(measured: Mapping | None, site: Site, path: Path) -> Sequence[Mapping]:
    """A site's removals, if they are of this model's site and end with all of its units."""
    if measured is None:
        also = " and with --decoder" if site.name.startswith(DECODER) else ""
        raise ConfigError(
            f"{path}: nothing was measured of '{site.name}'; repeat `{COMMAND}` with "
            f"`{site.kind}` among its --sites{also}"
        )
    here = float(site.magnitudes().mean())
    there = measured["mean_magnitude"]
    same = site.units == 1 or (there is not None and abs(there - here) <= SAME * here)
    if measured["units"] != site.units or not same:
        raise ConfigError(
            f"{path}: '{site.name}' was measured on another model ({measured['units']} units of "
            f"mean magnitude {there}, here {site.units} of {here:.6g}); repeat `{COMMAND}`"
        )
    if measured["removals"][-1]["removed"] != site.units:
        raise ConfigError(
            f"{path}: '{site.name}' was never removed as a whole; repeat `{COMMAND}` with 1 among "
            "its --fractions"
        )
    return measured["removals"]
