"""ONNX Runtime gives torch's outputs for every kind of ESPnet's encoders, cut at random."""

import numpy
import pytest
import torch
from random_structures import encoded, gate, random_structure
from tiny_encoders import tiny_encoder

from espnet_prune.export.folder import GRAPH
from espnet_prune.export.onnx import export_onnx, open_session
from espnet_prune.surgery import cut

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore"),  # of torch's exporter, at constants
]
TOLERANCE = 1e-4  # what an export allows
FRAMES = 173
ABSOLUTE = {"pos_enc_layer_type": "abs_pos"}
EACH = [
    ("conformer", {"input_layer": "conv2d8", "normalize_before": False}),
    ("conformer", {**ABSOLUTE, "selfattention_layer_type": "selfattn", "macaron_style": False}),
    ("conformer", {"input_layer": "linear", "interctc_layer_idx": [1], "use_cnn_module": False}),
    ("transformer", {"input_layer": "conv1d2", "positionwise_layer_type": "conv1d"}),
    ("branchformer", {"merge_method": "learned_ave"}),
    ("branchformer", {"input_layer": "conv2d6", "use_linear_after_conv": True}),
    ("e_branchformer", {"rel_pos_type": "legacy"}),
    ("e_branchformer", {"input_layer": "conv1d3"}),
    ("multiconvformer", {"multicgmlp_type": "concat_fusion"}),
    ("multiconvformer", {"multicgmlp_type": "weighted_sum"}),
]


def cases() -> list:
    """All of them; those that differ least from another one are slow."""
    slow = (EACH[2], EACH[5], EACH[6], EACH[9])
    return [pytest.param(*c, marks=pytest.mark.slow) if c in slow else c for c in EACH]


@pytest.mark.parametrize(("family", "options"), cases())
@torch.no_grad()
def test_a_cut_encoder_runs_in_onnx_runtime(family, options, tmp_path):
    gated = gate(tiny_encoder(family, **options))
    small = cut(gated, random_structure(gated, seed=1)).eval()
    assert max(export_onnx(small, tmp_path / "onnx").values()) < TOLERANCE
    feats = torch.randn(1, FRAMES, 80)
    (found,) = open_session(tmp_path / "onnx" / GRAPH).run(None, {"feats": feats.numpy()})
    expected = encoded(small, feats, torch.tensor([FRAMES])).numpy()
    assert numpy.abs(found - expected).max() < TOLERANCE
