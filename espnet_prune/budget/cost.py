"""The one definition of size and sparsity: what is kept, expected or hard, and of which whole.

sparsity = 1 - kept / prunable, where *prunable* counts everything that the gated sites can
remove, in parameters or in multiply-accumulates (MACs) of a reference utterance. The expectation
is hierarchical, as in CoFi (arXiv 2204.00408): P(block) P(branch) sum of P(unit) cost(unit).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from espnet_prune.budget.structure import BLOCK, BRANCH, CostTerm, Structure
from espnet_prune.config import check_choice

MEASURES = ("parameters", "macs")


class Budget:
    """Adds up what a model keeps.

    Args:
        structure: the model's sites and cost terms.
        gated: names of the sites that have a gate.
        measure: ``parameters`` or ``macs``.

    Attributes:
        prunable: the denominator, an integer: the size of all that the gated sites can remove.
        total: the size of all terms, gated or not: the whole encoder.
    """

    def __init__(
        self, structure: Structure, gated: Sequence[str], measure: str = "parameters"
    ) -> None:
        check_choice("budget: measure", measure, MEASURES)
        self.structure = structure
        self.measure = measure
        self.gated = set(gated)
        reachable = _reachable(structure, self.gated)
        self.terms = [t for t in structure.terms if reachable.intersection(t.factors)]
        everything = {name: site.units for name, site in structure.sites.items()}
        self.prunable = int(self.count(everything))
        self.total = sum(_term_size(t, everything, measure) for t in structure.terms)

    def count(self, kept: Mapping) -> Tensor | int:
        """Size of what is kept, from the kept units of each site (numbers or tensors)."""
        return sum(_term_size(term, kept, self.measure) for term in self.terms)

    def expected(self, probabilities: Mapping[str, Tensor]) -> Tensor:
        """Expected kept size, differentiable, float64 ().

        Args:
            probabilities: P(mask != 0), shape (units,), for each gated site.
        """
        return self.count(expected_counts(self.structure, probabilities))

    def hard(self, masks: Mapping[str, Tensor]) -> int:
        """Kept size under resolved hard masks (units,), one for every site."""
        return int(self.count({name: int((mask != 0).sum()) for name, mask in masks.items()}))

    def sparsity(self, kept: Tensor | float) -> Tensor | float:
        """1 - kept / prunable."""
        return 1 - kept / self.prunable


def _term_size(term: CostTerm, kept: Mapping, measure: str) -> Tensor | int:
    size = term.parameters if measure == "parameters" else term.macs
    for name in term.factors:
        size = size * kept[name]
    return size


def _reachable(structure: Structure, gated: set[str]) -> set[str]:
    """The sites that the gates can empty, directly or through the units of a branch."""
    reachable = set(gated)
    for name, site in structure.sites.items():
        children = structure.children[name]
        if site.kind == BRANCH and reachable.intersection(children):
            reachable.add(name)
    for kind in (BLOCK, BRANCH):  # from the top down
        for name, site in structure.sites.items():
            if site.kind == kind and name in reachable:
                reachable.update(structure.children[name])
    return reachable


def expected_counts(structure: Structure, probabilities: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Expected number of kept units of every site; the gates are independent.

    A branch without gated units is there with its own probability; one with gated units needs one
    of them: P(branch) (1 - product of (1 - P(unit))).
    """
    some = next(iter(probabilities.values()))
    one = torch.ones((), dtype=torch.float64, device=some.device)
    wide = {name: p.double() for name, p in probabilities.items()}

    def open_probability(name: str | None) -> Tensor:
        if name is None:
            return one
        own = wide[name][0] if name in wide else one
        return own * open_probability(structure.sites[name].parent)

    counts = {}
    for name, site in structure.sites.items():
        if site.kind in (BRANCH, BLOCK):
            counts[name] = open_probability(name)
            units = [wide[child] for child in structure.children[name] if child in wide]
            if site.kind == BRANCH and units:
                counts[name] = counts[name] * (1 - torch.prod(1 - torch.cat(units)))
        else:
            own = wide[name].sum() if name in wide else one * site.units
            if site.reader in wide:
                own = own * (1 - torch.prod(1 - wide[site.reader]))
            counts[name] = own * open_probability(site.parent)
    return counts
