"""ONNX Runtime gives torch's outputs, dense and cut, whatever kind of site was cut."""

import json
import math
import shutil

import numpy
import pytest
import torch
from tiny_models import AllSites, encoder

from espnet_prune.errors import ConfigError, EnvironmentProblem, ModelError
from espnet_prune.export import folder as exported_folder
from espnet_prune.export import onnx
from espnet_prune.export.folder import DESCRIPTION, GRAPH, others_than_export
from espnet_prune.export.int8 import quantise
from espnet_prune.export.onnx import export_onnx, open_session
from espnet_prune.io_atomic import new_folder
from espnet_prune.models.espnet.encoder_graphs import (
    ComputedPositions,
    RelPositionalEncoding,
    checked_frames,
)
from espnet_prune.sites import KINDS, RANK
from espnet_prune.surgery import cut, inject

pytestmark = pytest.mark.timeout(300)
TOLERANCE = 2e-5
UNIT_KINDS = tuple(kind for kind in KINDS if kind not in ("branch", "block"))
# Together, they make every group of units and every branch go once, and each front-end channel.
# An export takes seconds, so each cut has several groups, in blocks that don't hide one another.
GONE = (
    ("block.0.attention.heads", "block.0.convolution", "block.1.macaron.units", "front_end.0"),
    ("block.0.macaron", "block.0.feed_forward.units", "block.1.attention", "front_end.1"),
    ("block.0.convolution.channels", "block.0.feed_forward", "block.1"),
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


def without(names):
    """An encoder without the units, branches and blocks of these sites."""
    return cut_with(lambda s: torch.zeros(s.units) if s.name in names else torch.ones(s.units))


def check(model, folder) -> None:
    differences = export_onnx(model, folder)
    assert list(differences) == [f"model.onnx {length}" for length in checked_frames(model)]
    assert max(differences.values()) < TOLERANCE
    session = open_session(folder / GRAPH)
    feats = torch.randn(1, 200, 80)
    with torch.no_grad():
        expected = model(feats, torch.tensor([200]))[0]
    found = session.run(None, {"feats": feats.numpy()})[0]
    assert numpy.abs(found - expected.numpy()).max(initial=0) < TOLERANCE


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    """A dense encoder's export."""
    folder = tmp_path_factory.mktemp("dense") / "onnx"
    check(encoder(), folder)
    return folder


@pytest.fixture
def exporting(dense, monkeypatch):
    """Every export gives the dense encoder's graph, at once."""
    monkeypatch.setattr(onnx, "_export", lambda *a: shutil.copyfile(dense / GRAPH, a[-1]))


def test_dense(dense):
    description = json.loads((dense / DESCRIPTION).read_text())
    assert description["kind"] == "conformer_encoder" and len(description["max_difference"]) == 3
    assert {path.name for path in dense.iterdir()} == {GRAPH, DESCRIPTION}


@pytest.mark.parametrize("frames", [1, 2, 7, 1000])
def test_positions_are_computed_as_they_stand_in_the_table(frames):
    table = RelPositionalEncoding(12, 0.1).eval()
    x = torch.randn(1, frames, 12)
    for found, expected in zip(ComputedPositions(table)(x), table(x), strict=True):
        assert torch.equal(found, expected)


def test_all_kinds_of_units_cut_softly(tmp_path):
    check(cut_with(some, UNIT_KINDS), tmp_path)


@pytest.mark.parametrize("names", GONE, ids="+".join)
def test_units_branches_and_blocks_gone(names, tmp_path):
    check(without(names), tmp_path)


def test_matrices_that_became_two(tmp_path):
    gated = inject(encoder(), AllSites((RANK,), learned=False)).eval()
    for name in gated.gate_names():
        units = gated.site_map.sites[name].units
        gone = name == "block.0.feed_forward.w_1"
        gated.gate(name).set((torch.arange(units) < (0 if gone else units // 2)).float())
    check(cut(gated), tmp_path)


def test_everything_gone(tmp_path):
    check(cut_with(lambda site: torch.zeros(site.units)), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_site_alone(kind, tmp_path):
    check(cut_with(some, (kind,)), tmp_path)


@pytest.mark.slow
def test_weights_beside_the_graph_come_along(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx, "INT32_MAX", 10)  # every model is then too large for one file
    check(encoder(), tmp_path / "onnx")
    data = tmp_path / "onnx" / (GRAPH + exported_folder.BESIDE)
    before = data.stat().st_size
    quantise(tmp_path / "onnx" / GRAPH)
    assert 0 < data.stat().st_size < before
    assert open_session(tmp_path / "onnx" / GRAPH).get_inputs()[0].name == "feats"


def test_outputs_that_differ_leave_nothing(exporting, tmp_path):
    with pytest.raises(ModelError, match=r"differ by \d.*nothing was written"):
        export_onnx(encoder(seed=1), tmp_path / "onnx")
    assert list(tmp_path.iterdir()) == []


def test_outputs_that_differ_leave_an_earlier_export(exporting, dense, tmp_path):
    shutil.copytree(dense, tmp_path / "onnx")
    with pytest.raises(ModelError, match="nothing was written"):
        export_onnx(encoder(seed=1), tmp_path / "onnx")
    assert (tmp_path / "onnx" / GRAPH).read_bytes() == (dense / GRAPH).read_bytes()
    export_onnx(encoder(), tmp_path / "onnx")  # and an export that is right replaces it


def test_not_a_number_at_a_later_length_is_refused(exporting, tmp_path, monkeypatch):
    monkeypatch.setattr(
        onnx,
        "_compare",
        lambda *unused: {f"{GRAPH} {n}": v for n, v in ((120, 1e-6), (57, math.nan))},
    )
    with pytest.raises(ModelError, match="differ by nan"):
        export_onnx(encoder(), tmp_path / "onnx")


def test_an_export_removes_no_other_files(exporting, tmp_path):
    (tmp_path / "thesis.tex").write_text("all of it")
    with pytest.raises(ConfigError, match="thesis.tex.*choose another folder"):
        export_onnx(encoder(), tmp_path)
    with pytest.raises(ConfigError, match="is a file; a folder was expected"):
        export_onnx(encoder(), tmp_path / "thesis.tex")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_full_disk_leaves_nothing(tmp_path):
    with (
        pytest.raises(EnvironmentProblem, match="no space left"),
        new_folder(tmp_path / "onnx", others_than_export, "an export"),
    ):
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_an_encoder_conditioned_on_a_ctc_that_is_not_there_is_refused():
    model = encoder(interctc_layer_idx=[1], interctc_use_conditioning=True)
    with pytest.raises(ModelError, match="interctc_use_conditioning: .*export the whole model"):
        export_onnx(model, "nowhere")
