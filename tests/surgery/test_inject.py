"""What inject refuses, a model whose gates are still on; and training that the masks don't see."""

import pytest
import torch
from tiny_models import AllSites, encoder, features

from espnet_prune.errors import ModelError
from espnet_prune.methods import make_method
from espnet_prune.surgery import inject
from espnet_prune.surgery.gated import UNFELT_LIMIT


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


def test_an_update_without_a_masked_pass_is_an_error():
    gated = inject(encoder(), make_method("l0", updates=100)).train()
    with pytest.raises(ModelError, match="after_update: no forward pass was masked.*own forward"):
        gated.after_update()


def test_masks_that_feel_nothing_of_the_loss_so_many_times_in_a_row_are_an_error():
    gated = inject(encoder(), make_method("l0", updates=100)).train()

    def update(felt: bool = False) -> None:
        outputs = gated(*features())[0]
        if felt:
            outputs.square().mean().backward()
        gated.after_update()

    for _ in range(2):
        for _ in range(UNFELT_LIMIT - 1):
            update()
        update(felt=True)
    for _ in range(UNFELT_LIMIT - 1):
        update()
    with pytest.raises(ModelError, match=f"no gradient in {UNFELT_LIMIT} updates"):
        update()


def test_a_step_is_the_mean_of_what_moved_since_the_masked_pass():
    gated = inject(encoder(), make_method("l0", updates=100)).train()
    assert gated.mean_step() == 0.0
    gated(*features())[0].square().mean().backward()
    first, second = [g for g in gated.gates.values() if any(True for _ in g.parameters())][:2]
    with torch.no_grad():
        first.log_alpha += 0.25
        second.log_alpha -= 0.5
    moved = 0.25 * first.units + 0.5 * second.units
    number = sum(p.numel() for p in gated.gates.parameters())
    assert gated.mean_step() == pytest.approx(moved / number, rel=1e-4)
    gated.after_update()
    assert gated.mean_step() == 0.0
