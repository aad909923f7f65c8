"""The one definition of size and sparsity: what is kept, expected or hard, and of which whole.

sparsity = 1 - kept / prunable, where *prunable* counts everything that the gated sites can
remove, in parameters or in multiply-accumulates (MACs) of a reference utterance.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor

from espnet_prune.budget.expected import ExpectedSize
from espnet_prune.budget.structure import BLOCK, BRANCH, CostTerm, Structure
from espnet_prune.config import check_choice

COUNTED, BOTH = ("parameters", "macs"), "parameters_and_macs"
MEASURES = (*COUNTED, BOTH)  # BOTH by ``budget.joint``


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
        check_choice("budget: measure", measure, COUNTED)
        self.structure = structure
        self.measure = measure
        self.gated = set(gated)
        reachable = _reachable(structure, self.gated)
        self.terms = [t for t in structure.terms if reachable.intersection(t.factors)]
        everything = {name: site.units for name, site in structure.sites.items()}
        self.prunable = int(self.count(everything))
        sizes = [t.parameters if measure == "parameters" else t.macs for t in self.terms]
        self.expected_size = ExpectedSize(structure, gated, self.terms, sizes)
        self.total = sum(self._term_size(t, everything) for t in structure.terms)

    def count(self, kept: Mapping) -> Tensor | int:
        """Size of what is kept, from the kept units of each site (numbers or tensors)."""
        return sum(self._term_size(term, kept) for term in self.terms)

    def expected(self, probabilities: Mapping[str, Tensor]) -> Tensor:
        """Expected kept size, differentiable, float64 ().

        Args:
            probabilities: P(mask != 0), shape (units,), for each gated site.
        """
        return self.expected_size(probabilities)

    def hard(self, masks: Mapping[str, Tensor]) -> int:
        """Kept size under resolved hard masks (units,), one for every site."""
        return int(self.count({name: int((mask != 0).sum()) for name, mask in masks.items()}))

    def sparsity(self, kept: Tensor | float) -> Tensor | float:
        """1 - kept / prunable."""
        return 1 - kept / self.prunable

    def _term_size(self, term: CostTerm, kept: Mapping) -> Tensor | int:
        size = term.parameters if self.measure == "parameters" else term.macs
        for name in term.factors:
            all_units = self.structure.sites[name].units
            size = size * ((kept[name] == all_units) if term.whole else kept[name])
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
