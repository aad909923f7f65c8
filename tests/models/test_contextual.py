"""Streaming encoders of ESPnet: cut and fed piece by piece, as masked and fed at once."""

import pytest
import torch
from random_structures import gate, random_structure
from tiny_encoders import tiny_encoder

from espnet_prune.errors import ModelError
from espnet_prune.export.onnx import export_onnx
from espnet_prune.models.contextual.blocks import in_time, segments
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


def test_an_export_is_refused_by_name():
    with pytest.raises(ModelError, match="contextual blocks can't be exported yet; use .*--model"):
        export_onnx(tiny_encoder("contextual_conformer"), "nowhere")
