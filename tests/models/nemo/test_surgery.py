"""A NeMo Conformer is pruned as ESPnet's: masked equals cut, sizes exact, saved, exported."""

import pytest
import tiny_nemo
import torch
from tiny_models import AllSites, random_mask
from torch.utils.flop_counter import FlopCounterMode

import espnet_prune
from espnet_prune.budget import Budget, resolve
from espnet_prune.export.onnx import export_onnx
from espnet_prune.models.conformer import fast_encoder
from espnet_prune.models.origins import open_origin
from espnet_prune.sites import KINDS
from espnet_prune.surgery import cut, inject
from espnet_prune.surgery.holding import holding

FRAMES = 120
GONE = (
    "front_end.0",
    "front_end.1",
    "block.0.attention.heads",
    "block.0.convolution.channels",
    "block.1.macaron",
    "block.1",
)


@pytest.fixture
def model(tmp_path):
    archive = tiny_nemo.write_archive(
        tmp_path / "tiny.nemo", tiny_nemo.configuration(), tiny_nemo.weights()
    )
    with open_origin(str(archive)) as origin:
        origin.write_tokens(tmp_path / "tokens")
        return origin.build(tmp_path / "tokens")


def features() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    feats = torch.randn(2, FRAMES, tiny_nemo.BANDS, generator=generator)
    feats[1, 87:] = 0
    return feats, torch.tensor([FRAMES, 87])


def masks_of(gated, gone: str, seed: int) -> dict[str, torch.Tensor]:
    masks = {n: random_mask(s, seed % 2 == 0) for n, s in gated.site_map.sites.items()}
    if gone:
        masks[gone] = torch.zeros_like(masks[gone])
    return resolve(gated.site_map, masks)


@pytest.mark.parametrize("seed, gone", list(enumerate(("", "", *GONE))))
def test_masked_equals_cut_and_costs_are_counted(model, seed, gone):
    gated = inject(model, AllSites(KINDS, learned=False)).eval()
    masks = masks_of(gated, gone, seed)
    small = cut(gated, masks)
    with torch.no_grad(), holding(gated, masks):
        masked, lengths, _ = gated.model.encoder(*features())
    with torch.no_grad():
        found, _, _ = small.encoder(*features())
    inside = torch.arange(masked.shape[1]) < lengths[:, None]
    assert float((masked - found)[inside].abs().max()) < 1e-5
    kept = sum(p.numel() for p in small.encoder.parameters())
    assert kept == gated.budget.total - gated.budget.prunable + gated.budget.hard(masks)
    macs = Budget(gated.site_map, gated.gate_names(), "macs")
    frames = round(gated.site_map.reference_seconds * 100)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        small.encoder(torch.zeros(1, frames, tiny_nemo.BANDS), torch.tensor([frames]))
    assert counter.get_total_flops() // 2 == macs.total - macs.prunable + macs.hard(masks)


def test_a_cut_one_is_saved_loaded_and_decoded_faster(model, tmp_path):
    gated = inject(model, AllSites(KINDS, learned=False)).eval()
    small = cut(gated, masks_of(gated, "block.1.macaron", 0))
    espnet_prune.save(small, tmp_path / "small")
    again = espnet_prune.load(tmp_path / "small")
    feats = features()[0][:1]
    length = torch.tensor([FRAMES])
    with torch.no_grad():
        expected = small.encoder(feats, length)[0]
        assert torch.equal(again.encoder(feats, length)[0], expected)
        assert fast_encoder.speed_up(again.encoder)
        for frames in (7, 8, 61, FRAMES):
            found = again.encoder(feats[:, :frames], torch.tensor([frames]))[0]
            stock = small.encoder(feats[:, :frames], torch.tensor([frames]))[0]
            assert float((found - stock).abs().max()) < 1e-5


@pytest.mark.parametrize("gone", ["", "front_end.0"])
def test_onnx_gives_the_same(model, tmp_path, gone):
    gated = inject(model, AllSites(KINDS, learned=False)).eval()
    small = cut(gated, masks_of(gated, gone, 0))
    assert max(export_onnx(small, tmp_path / "onnx").values()) < 1e-4
