"""Folding: similar units of a site become one that stands for all of them, without any data.

After "Forget the Data and Fine-Tuning! Just Fold the Network to Compress", Wang et al. 2025
(arXiv 2502.10216; code nanguoyu/model-folding-universal). A unit is described by what makes it
(rows of the layers before, biases) and by the columns that read it. Units of one cluster are
replaced by the mean of what makes them, read by the sum of their columns; where they are equal,
nothing is lost. The paper clusters by k-means, the code hierarchically by Ward's criterion; so
does this, since it has no random start.

Ours: the norm statistics of a convolution's channel belong to what makes it, and are averaged too;
every tensor is divided by its root mean square before distances are taken, so that statistics
don't outweigh weights. The norm's variance is repaired in ``surgery.repair``, if at all.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from espnet_prune.sites.base import ConsumedSite

TINY = 1e-12


@torch.no_grad()
def clusters_of(site: ConsumedSite, number: int) -> list[Tensor]:
    """The site's units in ``number`` clusters.

    Args:
        site: units of one kind.
        number: number of clusters, at most the number of units; 0 gives none.

    Returns:
        Ascending indices of each cluster's units, ordered by their first ones.
    """
    from scipy.cluster.hierarchy import linkage

    if number in (0, site.units):
        return [torch.tensor([unit]) for unit in range(number)]
    merges = linkage(_described(site).cpu().numpy(), method="ward")[: site.units - number, :2]
    members = {unit: [unit] for unit in range(site.units)}
    for step, (a, b) in enumerate(merges.astype(int).tolist()):
        members[site.units + step] = members.pop(a) + members.pop(b)
    return [torch.tensor(units) for units in sorted(map(sorted, members.values()))]


@torch.no_grad()
def fold(site: ConsumedSite, clusters: Sequence[Tensor]) -> None:
    """Lets the first unit of each cluster stand for all of it, in place; the others are to be cut.

    Args:
        site: units of one kind.
        clusters: indices of units.
    """
    weight = site.consumer.weight.detach()
    for members in clusters:
        for rows in site.unit_rows():
            rows[members[0]] = rows[members].mean(dim=0)
        columns = site.columns(members).view(len(members), site.width)
        weight[:, columns[0]] = weight[:, columns].sum(dim=1)


def _described(site: ConsumedSite) -> Tensor:
    """(units, numbers): rows and columns of each unit, float64."""
    columns = site.read_weights().detach()
    parts = [part.reshape(site.units, -1).double() for part in (*site.unit_rows(), columns)]
    return torch.cat([part / part.square().mean().sqrt().clamp_min(TINY) for part in parts], dim=1)
