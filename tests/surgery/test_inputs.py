"""Which columns of a layer a unit is read by: those that its mask scales, in all encoders."""

import pytest
import torch
from tiny_encoders import tiny_encoder
from tiny_models import AllSites

from espnet_prune.sites import UNIT_KINDS
from espnet_prune.surgery import inject
from espnet_prune.surgery.inputs import by_unit, columns_of, weight_of


@pytest.mark.parametrize("name", ["conformer", "transformer", "branchformer", "multiconvformer"])
def test_a_unit_s_columns_are_those_that_its_mask_scales(name):
    gated = inject(tiny_encoder(name), AllSites(UNIT_KINDS, learned=False))
    for site in gated.site_map.of_kinds(UNIT_KINDS):
        unit = torch.tensor([site.units - 1])
        mask = torch.ones(site.units)
        mask[unit] = 0.0
        site.apply(mask)
        scaled = site.consumer.scaled()[0].detach().flatten(1)
        site.clear()
        gone = (scaled == 0).all(dim=0).nonzero()[:, 0]
        assert gone.tolist() == sorted(columns_of(site, unit).tolist()), site.name
        rows = by_unit(site, weight_of(site))[unit].flatten(0, 1)
        assert torch.equal(rows, weight_of(site)[columns_of(site, unit)])
