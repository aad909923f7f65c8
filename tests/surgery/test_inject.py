"""What inject refuses: a model whose gates are still on."""

import pytest
import torch
from tiny_models import AllSites, encoder, features

from espnet_prune.errors import ModelError
from espnet_prune.surgery import inject


def test_a_gated_model_is_not_gated_again():
    model = encoder()
    gated = inject(model, AllSites(("convolution_channel",)))
    for again in (model, gated):
        with pytest.raises(ModelError, match=r"already gated.*gated\.release\(\)"):
            inject(again, AllSites(("head",)))


def test_a_released_model_is_gated_by_the_second_method_alone():
    model = encoder()
    first = inject(model, AllSites(("convolution_channel",))).train()
    with torch.no_grad():
        for gate in first.gates.values():
            gate.log_alpha.fill_(-60.0)
    second = inject(first.release(), AllSites(("head",), learned=False)).eval()
    with torch.no_grad():
        assert torch.equal(second(*features())[0], encoder()(*features())[0])
