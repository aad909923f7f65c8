"""What the parts of an export are made of: a copy of the model, in evaluation mode and float32."""

from contextlib import nullcontext

import pytest
import torch
from tiny_models import ENCODER, encoder

from espnet_prune.errors import ModelError
from espnet_prune.export import onnx
from espnet_prune.export.onnx import export_onnx, graphs_of
from espnet_prune.models.espnet.encoder_graphs import ComputedPositions


def modes(model) -> list[bool]:
    return [module.training for module in model.modules()]


@pytest.mark.parametrize("difference", [0.0, 1.0], ids=["exported", "refused"])
def test_an_export_leaves_every_module_in_its_mode(difference, tmp_path, monkeypatch):
    model = encoder(dropout_rate=0.5).train()
    model.encoders[0].eval()
    before = modes(model)
    monkeypatch.setattr(onnx, "_export", lambda *unused: None)
    monkeypatch.setattr(onnx, "_compare", lambda *unused: {"model.onnx 120": difference})
    with pytest.raises(ModelError, match="differ by") if difference else nullcontext():
        export_onnx(model, tmp_path / "onnx")
    assert modes(model) == before


def test_a_model_in_training_gives_the_parts_of_evaluation():
    model = encoder(dropout_rate=0.5).train()
    model(torch.randn(1, 120, 80), torch.tensor([120]))[0].sum().backward()
    (part,) = graphs_of(model)
    inputs = part.example(57)
    with torch.no_grad():
        assert torch.equal(part.expected(*inputs)[0], part.expected(*inputs)[0])
    assert not any(modes(part.graph))


def test_a_graph_is_compared_with_the_model_as_it_is(monkeypatch):
    model = encoder()

    def nowhere(self, x):
        return x * self.scale, torch.zeros(1, 2 * x.shape[1] - 1, x.shape[2])

    monkeypatch.setattr(ComputedPositions, "forward", nowhere)
    (part,) = graphs_of(model)
    feats = part.example(57)
    with torch.no_grad():
        own = model(*feats, torch.tensor([57]))[0]
        assert torch.equal(part.expected(*feats)[0], own)
        assert float((part.graph(*feats) - own).abs().max()) > part.tolerance


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_another_precision_is_refused_with_the_remedy(precision):
    with pytest.raises(ModelError, match=r"embed.*torch\.\w*float.*call model\.float\(\)"):
        graphs_of(encoder().to(precision))


def test_an_encoder_of_which_the_width_of_features_is_not_known_is_refused(tmp_path):
    from espnet2.asr.encoder.conformer_encoder import ConformerEncoder

    model = ConformerEncoder(40, **ENCODER).eval()
    with pytest.raises(ModelError, match=r"39 to 42 values.*encoder\.input_size"):
        graphs_of(model)
    model.input_size = 40
    (part,) = graphs_of(model)
    assert part.example(57)[0].shape == (1, 57, 40)
