"""The expected size of a model whose gates are independent, in a few operations on all of them.

The expectation is hierarchical, as in CoFi (arXiv 2204.00408): P(block) P(branch) sum of P(unit)
cost(unit). A branch with gated units is there while each of its sites has one. What one other
site alone reads is there while that one has a unit left; where both are factors of one cost, this
follows by itself. Of factors in one branch, the first counts that the branch is open.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from espnet_prune.budget.structure import BLOCK, BRANCH, CostTerm, Structure

DEPTH = 3  # a unit in a branch in a block


class ExpectedSize:
    """Places and costs of a structure as tables of indices, made once.

    Args:
        structure: the model's sites.
        gated: names of the sites that have a gate.
        terms: the costs to add up.
        sizes: sizes of each term, in the measure that is counted.
    """

    def __init__(
        self,
        structure: Structure,
        gated: Sequence[str],
        terms: Sequence[CostTerm],
        sizes: Sequence[int],
    ) -> None:
        self.gated = list(gated)
        sites = list(structure.sites.values())
        place = {site.name: index for index, site in enumerate(sites)}
        one = len(sites)  # behind every site's number stands a 1, for what is missing
        with_gate = set(self.gated)
        self.tables = {
            "upper": torch.tensor([site.kind in (BRANCH, BLOCK) for site in sites]),
            "gated": torch.tensor([site.name in with_gate for site in sites]),
            "units": torch.tensor([float(site.units) for site in sites], dtype=torch.float64),
            "parents": torch.tensor([place.get(site.parent, one) for site in sites]),
            "readers": torch.tensor([place.get(site.reader, one) for site in sites]),
            "children": _rows([_children(structure, site, place) for site in sites], one),
            "factors": _rows([_factors(structure, term, place) for term in terms], one),
            "sizes": torch.tensor(sizes, dtype=torch.float64),
        }
        # products over a site's units, which cost more than its sum, are made where they are read
        read = {*self.tables["readers"].tolist(), *self.tables["children"].flatten().tolist()}
        self.emptied = [name for name in self.gated if place[name] in read]
        wholes = {name for term in terms if term.whole for name in term.factors}
        self.wholes = [name for name in self.gated if name in wholes]
        for key, names in (("emptied", self.emptied), ("wholes", self.wholes), ("own", self.gated)):
            self.tables[key] = torch.tensor([place[name] for name in names], dtype=torch.long)

    def __call__(self, probabilities: Mapping[str, Tensor]) -> Tensor:
        """Expected kept size, differentiable, float64 ().

        Args:
            probabilities: P(mask != 0), shape (units,), for each gated site.
        """
        sums = torch.stack([probabilities[name].sum(dtype=torch.float64) for name in self.gated])
        tables = self._on(sums.device)
        one = sums.new_ones(1)
        is_gated, is_upper = tables["gated"], tables["upper"]
        number = tables["units"].index_copy(0, tables["own"], sums)
        gone = _products([1 - probabilities[n].double() for n in self.emptied], sums)
        empty = torch.cat([torch.zeros_like(number).index_copy(0, tables["emptied"], gone), one])
        own = torch.where(is_upper & is_gated, number, 1.0)
        opened = torch.ones_like(number)
        for _ in range(DEPTH):
            opened = own * torch.cat([opened, one])[tables["parents"]]
        inside = tables["children"] < len(number)
        alive = torch.where(inside, 1 - empty[tables["children"]], 1.0).prod(dim=1)
        units = number * opened
        read = torch.where(tables["readers"] < len(number), 1 - empty[tables["readers"]], 1.0)
        counts = torch.where(is_upper, opened * alive, units * read)
        all_of = _products([probabilities[name] for name in self.wholes], sums)
        whole = torch.ones_like(number).index_copy(0, tables["wholes"], all_of)
        known = torch.cat([counts, one, units, one, number, one, whole])
        return (tables["sizes"] * known[tables["factors"]].prod(dim=1)).sum()

    def _on(self, device: torch.device) -> dict[str, Tensor]:
        if self.tables["sizes"].device != device:
            self.tables = {name: table.to(device) for name, table in self.tables.items()}
        return self.tables


def _products(values: Sequence[Tensor], like: Tensor) -> Tensor:
    """The product of each, (number,) in the precision and on the device of ``like``."""
    if not values:
        return like.new_empty(0)
    return nn.utils.rnn.pad_sequence([v.to(like) for v in values], True, 1.0).prod(dim=1)


def _rows(rows: Sequence[Sequence[int]], missing: int) -> Tensor:
    """Rows of indices as one table, filled up by ``missing``."""
    width = max(1, *(len(row) for row in rows)) if rows else 1
    return torch.tensor([[*row, *[missing] * (width - len(row))] for row in rows]).view(-1, width)


def _children(structure: Structure, site, place: Mapping[str, int]) -> list[int]:
    """Places of the sites that a branch is empty without."""
    names = structure.children[site.name] if site.kind == BRANCH else []
    return [place[name] for name in names]


def _factors(structure: Structure, term: CostTerm, place: Mapping[str, int]) -> list[int]:
    """Places of a term's factors in four tables, one behind the other.

    The second is for a factor whose reader is a factor too; the third for one whose branch or block
    another has counted already, of which the number alone counts; the last for whole sites.
    """
    behind = len(place) + 1
    if term.whole:
        return [place[name] + 3 * behind for name in term.factors]
    found, parents = [], set()
    for name in term.factors:
        site = structure.sites[name]
        table = 1 if site.reader in term.factors else 0
        if site.parent is not None and site.parent in parents:
            table = 2
        parents.add(site.parent)
        found.append(place[name] + table * behind)
    return found
