"""Plan: the shape of a cut model, kept units by site, as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from espnet_prune.errors import ModelError
from espnet_prune.sites import SiteMap

SCHEMA = 1
PLAN_ATTRIBUTE = "espnet_prune_plan"


@dataclass(frozen=True)
class SitePlan:
    """What is kept of one site.

    Attributes:
        kind: the site's kind.
        block: index of its block, None for the front-end.
        units: number of units before the cut.
        kept: indices of the kept units, ascending.
        lender: name of the site whose weight is shared, where one is.
    """

    kind: str
    block: int | None
    units: int
    kept: tuple[int, ...]
    lender: str | None = None

    def to_json(self) -> dict:
        """A dictionary for JSON or YAML."""
        entry = {"kind": self.kind, "block": self.block, "units": self.units}
        lender = {} if self.lender is None else {"lender": self.lender}
        return {**entry, "kept": list(self.kept), **lender}


@dataclass(frozen=True)
class Plan:
    """Kept units of every site; with the weights, enough to rebuild the model."""

    sites: Mapping[str, SitePlan]

    @classmethod
    def from_masks(cls, site_map: SiteMap, masks: Mapping[str, Tensor]) -> "Plan":
        """The plan of resolved hard masks, one (units,) for every site."""
        sites = {
            name: SitePlan(
                site.kind,
                site.block,
                site.units,
                tuple(masks[name].nonzero()[:, 0].tolist()),
                None if site.lender is None else site.lender.name,
            )
            for name, site in site_map.sites.items()
        }
        return cls(sites)

    def to_json(self) -> dict:
        """A dictionary for JSON or YAML."""
        sites = {name: site.to_json() for name, site in self.sites.items()}
        return {"schema": SCHEMA, "sites": sites}

    @classmethod
    def from_json(cls, value: Mapping, where: str = "plan") -> "Plan":
        """Reads what ``to_json`` wrote.

        Raises:
            ModelError: another schema, a missing key, or indices that can't be.
        """
        if not isinstance(value, Mapping) or value.get("schema") != SCHEMA:
            raise ModelError(
                f"{where}: schema {SCHEMA} was expected; was it made by a newer version?"
            )
        found = value.get("sites", {})
        if not isinstance(found, Mapping):
            raise ModelError(
                f"{where}: sites: a mapping of names was expected; cut the model again"
            )
        return cls(
            {name: _read_site(entry, f"{where}: site '{name}'") for name, entry in found.items()}
        )

    @property
    def is_whole(self) -> bool:
        """Whether nothing was cut, as of a model that was only trained on."""
        return all(len(site.kept) == site.units for site in self.sites.values())

    def of_kinds(self, kinds: Sequence[str], others: bool = False) -> "Plan | None":
        """The plan of the sites of these kinds, or of all others; None of none."""
        sites = {n: site for n, site in self.sites.items() if (site.kind in kinds) != others}
        return Plan(sites) if sites else None

    def part(self, prefix: str) -> "Plan | None":
        """The plan of the sites whose names begin so; None where there are none."""
        sites = {name: site for name, site in self.sites.items() if name.startswith(prefix)}
        return Plan(sites) if sites else None

    def without(self, prefix: str) -> "Plan":
        """The plan of the other sites."""
        return Plan({n: site for n, site in self.sites.items() if not n.startswith(prefix)})

    def kept_blocks(self) -> list[int]:
        """Original indices of the blocks that are still there, ascending."""
        gone = {s.block for s in self.sites.values() if s.kind == "block" and not s.kept}
        blocks = {s.block for s in self.sites.values() if s.block is not None}
        return sorted(blocks - gone)

    def attending_blocks(self) -> list[int | None] | None:
        """Original indices of the blocks that still attend; None where no branch can close."""
        branches = {n: s for n, s in self.sites.items() if n.endswith(".attention")}
        if not branches:
            return None
        gone = {name for name, site in self.sites.items() if not site.kept}
        return [
            site.block
            for name, site in branches.items()
            if not {name, name.rpartition(".")[0]} & gone
        ]


def _read_site(entry: Any, where: str) -> SitePlan:
    try:
        kind, kept = str(entry["kind"]), tuple(entry["kept"])
        site = SitePlan(kind, entry["block"], entry["units"], kept, entry.get("lender"))
    except (AttributeError, KeyError, TypeError) as error:
        raise ModelError(f"{where} is malformed ({error}); cut the model again") from error
    numbers = [site.units, *site.kept, *([] if site.block is None else [site.block])]
    if any(type(number) is not int for number in numbers):  # True is an int too
        raise ModelError(
            f"{where}: units, kept and block must be whole numbers; cut the model again"
        )
    increasing = all(a < b for a, b in zip(site.kept, site.kept[1:], strict=False))
    if not increasing or any(not 0 <= k < site.units for k in site.kept):
        raise ModelError(f"{where}: kept must be ascending indices below {site.units}")
    return site


def plan_of(model: nn.Module) -> Plan | None:
    """The plan of a cut model, None for one that was never cut.

    An ESPnet model that was loaded has it in parts, its encoder's and, if that was cut, its
    decoder's.
    """
    plan = getattr(model, PLAN_ATTRIBUTE, None)
    if plan is not None:
        return plan
    modules = (getattr(model, name, None) for name in ("encoder", "decoder"))
    parts = [getattr(module, PLAN_ATTRIBUTE, None) for module in modules]
    sites = {n: site for part in parts if part is not None for n, site in part.sites.items()}
    return Plan(sites) if sites else None
