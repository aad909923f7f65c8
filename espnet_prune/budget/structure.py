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
        factors: names of sites; a branch or block counts 1 while it is there, else 0. None at
            all for what is always there.
        whole: whether a factor counts 1 while all of its units are there, else 0.
    """

    parameters: int
    macs: int
    factors: tuple[str, ...]
    whole: bool = False


class Place(Protocol):
    """One site as the budget sees it.

    Attributes:
        parent: the branch or block that contains it.
        reader: the site that alone reads its units; once that one is empty, nothing of this
            one is kept either.
    """

    name: str
    kind: str
    units: int
    parent: str | None
    reader: str | None


class Structure(Protocol):
    """All sites of a model as the budget sees them.

    Attributes:
        sites: by name.
        children: names of the sites that each site contains.
        terms: what combinations of units cost.
    """

    @property
    def sites(self) -> Mapping[str, Place]: ...

    @property
    def children(self) -> Mapping[str, Sequence[str]]: ...

    @property
    def terms(self) -> Sequence[CostTerm]: ...
