"""Folding: clusters as they must be, equal units merged without loss, for every kind of site."""

import pytest
import torch
from tiny_models import AllSites, encoder, features

from espnet_prune.sites import UNIT_KINDS
from espnet_prune.surgery import cut, inject
from espnet_prune.surgery.fold import clusters_of, fold
from espnet_prune.surgery.holding import holding

TOLERANCE = 1e-5


def gated_with_twins(kinds=UNIT_KINDS, noise: float = 0.0):
    """Every second unit is made as the one before it is; only the columns that read it differ."""
    gated = inject(encoder(), AllSites(kinds, learned=False)).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for site in gated.site_map.of_kinds(kinds):
            for rows in site.unit_rows():
                rows[1::2] = rows[0::2]
                rows += noise * rows.std() * torch.randn(rows.shape, generator=generator)
            weight = site.consumer.weight
            even, odd = (site.columns(torch.arange(i, site.units, 2)) for i in (0, 1))
            weight[:, odd] = 1.1 * weight[:, even]
    return gated


def folded_masks(gated, kinds=UNIT_KINDS, merge: bool = True) -> dict:
    """Every site folded to half of its units; the masks that keep the first of each cluster."""
    masks = {name: torch.ones(site.units) for name, site in gated.site_map.sites.items()}
    sites = gated.site_map.of_kinds(kinds)
    for site, clusters in [(site, clusters_of(site, site.units // 2)) for site in sites]:
        if merge:
            fold(site, clusters)
        masks[site.name] = torch.zeros(site.units)
        masks[site.name][[int(members[0]) for members in clusters]] = 1.0
    return masks


def output(gated, masks) -> torch.Tensor:
    with torch.no_grad(), holding(gated, masks):
        return gated(*features())[0]


@pytest.mark.parametrize("kind", UNIT_KINDS)
def test_equal_units_are_folded_without_loss_for_each_kind(kind):
    gated = gated_with_twins((kind,))
    dense = output(gated, {})
    masks = folded_masks(gated, (kind,))
    assert (output(gated, masks) - dense).abs().max() < TOLERANCE
    with torch.no_grad():
        assert (cut(gated, masks)(*features())[0] - dense).abs().max() < TOLERANCE


def test_equal_units_are_folded_without_loss_in_all_sites_together():
    gated = gated_with_twins()
    dense = output(gated, {})
    masks = folded_masks(gated)
    assert (output(gated, masks) - dense).abs().max() < TOLERANCE
    with torch.no_grad():
        assert (cut(gated, masks)(*features())[0] - dense).abs().max() < TOLERANCE


def test_similar_units_lose_less_merged_than_dropped():
    dense = output(gated_with_twins(noise=0.05), {})
    lost = {}
    for merge in (True, False):
        gated = gated_with_twins(noise=0.05)
        lost[merge] = (output(gated, folded_masks(gated, merge=merge)) - dense).square().mean()
    assert lost[True] < 0.25 * lost[False]


@pytest.mark.parametrize("name", ["block.0.attention.heads", "block.1.convolution.channels"])
@pytest.mark.parametrize("number", [0, 1, 3])
def test_every_unit_is_in_one_of_so_many_clusters(name, number):
    site = gated_with_twins().site_map.sites[name]
    clusters = clusters_of(site, number)
    assert len(clusters) == number
    firsts = [int(members[0]) for members in clusters]
    assert firsts == sorted(firsts)
    members = sorted(torch.cat(clusters).tolist()) if clusters else []
    assert members == (list(range(site.units)) if number else [])


def test_all_units_by_themselves_change_nothing():
    gated = inject(encoder(), AllSites(UNIT_KINDS, learned=False)).eval()
    dense = output(gated, {})
    for site in gated.site_map.of_kinds(UNIT_KINDS):
        fold(site, clusters_of(site, site.units))
    assert torch.equal(output(gated, {}), dense)


def test_columns_alone_can_tell_units_apart():
    gated = gated_with_twins()
    site = gated.site_map.sites["block.0.feed_forward.units"]
    with torch.no_grad():
        for rows in site.unit_rows():
            rows[:] = rows[0]
        weight = site.consumer.weight
        weight[:] = weight[:, :1]
        weight[:, 5:] *= -1
    assert [members.tolist() for members in clusters_of(site, 2)] == [
        list(range(5)),
        list(range(5, site.units)),
    ]
