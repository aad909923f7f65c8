"""ONNX Runtime gives torch's outputs, dense and cut, whatever kind of site was cut."""

import json

import numpy
import pytest
import torch
from models import AllSites, encoder

from espnet_prune.errors import ModelError
from espnet_prune.export import onnx
from espnet_prune.export.onnx import CHECKED_FRAMES, export_onnx, open_session
from espnet_prune.sites import KINDS
from espnet_prune.surgery import cut, inject

pytestmark = pytest.mark.timeout(300)
TOLERANCE = 2e-5
GROUPS = (
    ("attention.heads", "macaron.units"),
    ("feed_forward.units", "convolution.channels"),
    ("block.0.attention", "block.1.macaron"),
    ("block.0.convolution", "block.1.feed_forward"),
    ("front_end.0",),
    ("front_end.1", "block.1"),
)


def cut_with(setter, kinds=KINDS):
    """An encoder cut by the masks ``setter(site)``, (units,)."""
    gated = inject(encoder(), AllSites(kinds, learned=False)).eval()
    for name in gated.gate_names():
        gated.gate(name).set(setter(gated.site_map.sites[name]))
    assert gated.hard_sparsity() > 0
    return cut(gated)


def some(site) -> torch.Tensor:
    """Some units kept, with soft values; the second block and the first attention go."""
    if site.units == 1:
        return torch.zeros(1) if site.name in ("block.0.attention", "block.1") else torch.ones(1)
    generator = torch.Generator().manual_seed(sum(map(ord, site.name)))
    kept = (torch.rand(site.units, generator=generator) < 0.6).float()
    kept[0] = 0.0
    return kept * (torch.rand(site.units, generator=generator) * 0.8 + 0.2)


def check(model, folder) -> None:
    differences = export_onnx(model, folder)
    assert list(differences) == list(CHECKED_FRAMES)
    assert max(differences.values()) < TOLERANCE
    session = open_session(folder / onnx.GRAPH)
    feats = torch.randn(1, 200, 80)
    with torch.no_grad():
        expected = model(feats, torch.tensor([200]))[0]
    found = session.run(None, {"feats": feats.numpy()})[0]
    assert numpy.abs(found - expected.numpy()).max(initial=0) < TOLERANCE


def test_dense(tmp_path):
    check(encoder(), tmp_path / "onnx")
    description = json.loads((tmp_path / "onnx/model.json").read_text())
    assert description["kind"] == "conformer_encoder" and len(description["max_difference"]) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_site(kind, tmp_path):
    check(cut_with(some, (kind,)), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("groups", GROUPS, ids="+".join)
def test_whole_groups_gone(groups, tmp_path):
    def setter(site):
        gone = any(site.name == g or site.name.endswith(f".{g}") for g in groups)
        return torch.zeros(site.units) if gone else torch.ones(site.units)

    check(cut_with(setter), tmp_path)


def test_everything_gone(tmp_path):
    check(cut_with(lambda site: torch.zeros(site.units)), tmp_path)


def test_outputs_that_differ_leave_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(
        onnx, "_stock", lambda model, inputs: (model(inputs, torch.tensor([9]))[0],)
    )
    monkeypatch.setattr(onnx, "_compare", lambda *unused: {120: 0.5})
    with pytest.raises(ModelError, match=r"differ by 0\.5 .*nothing was written"):
        export_onnx(encoder(), tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()


def test_intermediate_ctc_is_refused():
    with pytest.raises(ModelError, match="interctc_layer_idx"):
        export_onnx(encoder(interctc_layer_idx=[1]), "nowhere")
