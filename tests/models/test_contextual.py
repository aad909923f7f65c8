"""Streaming encoders of ESPnet: cut and fed piece by piece, as masked and fed at once."""

from copy import deepcopy

import onnx
import pytest
import torch
from random_structures import gate, random_structure
from tiny_encoders import tiny_encoder

from espnet_prune.budget import resolve
from espnet_prune.export.onnx import export_onnx
from espnet_prune.models.contextual.blocks import CONTEXTS, in_time, segments
from espnet_prune.models.contextual.graph import ContextualGraph
from espnet_prune.surgery import cut

FAMILIES = ("contextual_conformer", "contextual_transformer")
FRAMES = 250
PIECE = 52  # frames that come at a time


def streamed(encoder: torch.nn.Module, feats: torch.Tensor) -> torch.Tensor:
    """What an encoder gives of (1, T, F) that comes piece by piece."""
    states, found = None, []
    pieces = feats.split(PIECE, dim=1)
    for number, piece in enumerate(pieces, 1):
        encoded, _, states = encoder(
            piece,
            torch.tensor([piece.shape[1]]),
            prev_states=states,
            is_final=number == len(pieces),
            infer_mode=True,
        )
        found.append(encoded)
    return torch.cat(found, dim=1)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("seed", range(4))
@torch.no_grad()
def test_cut_and_streamed_is_masked_and_whole(family, seed):
    gated = gate(tiny_encoder(family, num_blocks=4))
    masks = random_structure(gated, seed)
    for name in ("front_end.0", "front_end.1"):
        masks[name][0] = 1.0
    for name in gated.gate_names():
        gated.gate(name).set(masks[name])
    feats = torch.randn(1, FRAMES, 80, generator=torch.Generator().manual_seed(seed))
    whole = gated.eval()(feats, torch.tensor([FRAMES]))[0]
    found = streamed(cut(gated, masks).eval(), feats)
    assert found.shape == whole.shape
    assert torch.allclose(found, whole, atol=1e-5)


@pytest.mark.parametrize("frames", [20, 39, 40, 41, 55, 56, 57, 200])
@torch.no_grad()
def test_a_layer_s_outputs_are_put_in_time_as_the_encoder_s_own(frames):
    model = tiny_encoder("contextual_transformer", input_layer="linear", num_blocks=1)
    last = []
    handle = model.encoders[0].register_forward_hook(lambda *call: last.append(call[2][0]))
    expected, _, _ = model(torch.randn(1, frames, 80), torch.tensor([frames]))
    handle.remove()
    length, number = segments(model, frames)
    assert last[0].shape[-2] == length and last[0].numel() == length * number * 16
    assert torch.equal(model.after_norm(in_time(model, last[0], frames)), expected)


def front_and_one_block_less(family: str) -> torch.nn.Module:
    """Cut: without one channel, one head and the first block."""
    gated = gate(tiny_encoder(family, num_blocks=3))
    masks = {name: torch.ones(site.units) for name, site in gated.site_map.sites.items()}
    for name in ("front_end.0", "block.1.attention.heads"):
        masks[name][-1] = 0.0
    masks["block.0"][0] = 0.0
    small = cut(gated.eval(), resolve(gated.site_map, masks)).eval()
    small.input_size = 80
    return small


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_its_graph_says_what_the_encoder_says_on_both_sides_of_a_segment(family):
    encoder = front_and_one_block_less(family)
    graph = ContextualGraph(deepcopy(encoder), encoder.block_size + CONTEXTS).eval()
    lengths = [4 * n + 3 for n in (3, 8, 9, 10, 11, 12, 13, 14, 60)]  # segments of 8 positions
    for frames in lengths:
        feats = torch.randn(1, frames, 80, generator=torch.Generator().manual_seed(frames))
        expected = encoder(feats, torch.tensor([frames]))[0]
        found = graph(feats)
        assert found.shape == expected.shape
        assert torch.allclose(found, expected, atol=1e-5)


def test_exported_in_int8_both_ways_are_quantised(tmp_path):
    encoder = front_and_one_block_less("contextual_conformer")
    differences = export_onnx(encoder, tmp_path / "onnx", int8=True)
    lengths = sorted(int(key.split()[1]) for key in differences)
    positions = [encoder.embed(torch.zeros(1, n, 80), None)[0].shape[1] for n in lengths]
    assert positions[0] <= encoder.block_size < positions[-1]
    assert max(differences.values()) < 1e-4
    (choice,) = [n for n in onnx.load(tmp_path / "onnx/model.onnx").graph.node if n.op_type == "If"]
    for way in choice.attribute:
        kinds = [node.op_type for node in way.g.node]
        assert kinds.count("MatMulInteger") > 2 * kinds.count("MatMul") > 0


def test_an_export_holds_no_path_of_this_machine(tmp_path):
    export_onnx(front_and_one_block_less("contextual_transformer"), tmp_path / "onnx")
    content = (tmp_path / "onnx/model.onnx").read_bytes()
    assert b".py" not in content and str(tmp_path).encode() not in content
