"""What a budget must know of a model: places with units, who contains whom, and what units cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

BRANCH = "branch"
BLOCK = "block"


@dataclass(frozen=True)
class CostTerm:
    """``parameters`` and ``macs`` times the product of the kept units of ``factors``.

    Attributes:
        parameters: parameters per combination of units.
        macs: multiply-accumulates per combination, for the reference utterance.
        factors: names of sites; a branch or block counts 1 while it is there, else 0.
    """

    parameters: int
    macs: int
    factors: tuple[str, ...]


class Place(Protocol):
    """One site as the budget sees it."""

    name: str
    kind: str
    units: int
    parent: str | None


class Structure(Protocol):
    """All sites of a model as the budget sees them.

    Attributes:
        sites: by name.
        children: names of the sites that each site contains.
        terms: what combinations of units cost.
    """

    sites: Mapping[str, Place]
    children: Mapping[str, Sequence[str]]
    terms: Sequence[CostTerm]
