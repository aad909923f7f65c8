"""Weights in few bits are so in a graph's file, and the same numbers for anyone who runs it."""

import numpy
import pytest
import torch
from tiny_encoders import tiny_encoder
from tiny_models import encoder, features

from espnet_prune.export.folder import GRAPH
from espnet_prune.export.onnx import export_onnx
from espnet_prune.surgery.few_bits import round_weights

pytestmark = pytest.mark.timeout(300)
WIDE = {"output_size": 64, "linear_units": 256}


@pytest.fixture(scope="module", params=[4, 8])
def rounded(request, tmp_path_factory):
    """A model that is rounded to so many bits, and its export."""
    model = encoder(**WIDE)
    round_weights(model, request.param, [lambda: model(*features())] if request.param == 4 else ())
    folder = tmp_path_factory.mktemp("rounded") / "onnx"
    assert max(export_onnx(model, folder).values()) < 2e-5
    return request.param, model, folder


def test_matrices_and_convolutions_take_so_many_bits(rounded):
    import onnx

    bits, model, folder = rounded
    graph = onnx.load(folder / GRAPH).graph
    kind = {4: onnx.TensorProto.INT4, 8: onnx.TensorProto.INT8}[bits]
    stored = [each for each in graph.initializer if each.data_type == kind]
    numbers = sum(int(numpy.prod(each.dims)) for each in stored)
    weights = [p.numel() for p in model.parameters() if p.dim() > 1]
    norms = sum(block.conv_module.depthwise_conv.weight.numel() for block in model.encoders)
    assert numbers >= sum(weights) - norms - 512 * len(weights)  # folded with a norm, or small
    left = [each for each in graph.initializer if each.data_type == onnx.TensorProto.FLOAT]
    largest = max(int(numpy.prod(each.dims)) for each in left)
    assert largest < 64 * 64, "no matrix is there in floating point, nor a table of positions"


def test_any_session_gives_the_numbers_that_the_model_has(rounded):
    import onnxruntime

    _, model, folder = rounded
    feats, lengths = torch.randn(1, 150, 80), torch.tensor([150])
    stock = onnxruntime.InferenceSession(folder / GRAPH, providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = model(feats, lengths)[0].numpy()
    assert numpy.abs(stock.run(None, {"feats": feats.numpy()})[0] - expected).max() < 2e-5


def test_both_ways_of_a_streaming_encoder_have_the_same_weights(tmp_path):
    import onnx

    model = tiny_encoder("contextual_transformer", **WIDE, num_blocks=1)
    round_weights(model, 4)
    differences = export_onnx(model, tmp_path / "onnx")
    assert max(differences.values()) < 2e-5 and len(differences) == 5
    graph = onnx.load(tmp_path / "onnx" / GRAPH).graph
    assert "If" in {node.op_type for node in graph.node}
    levels = [each for each in graph.initializer if each.data_type == onnx.TensorProto.INT4]
    stored = sum(int(numpy.prod(each.dims)) for each in levels)
    weights = [p.numel() for p in model.parameters() if p.dim() > 1 and p.numel() >= 512]
    assert stored >= sum(weights), "the exporter may have turned one for one of the ways"


def test_dynamic_int8_takes_the_weights_as_numbers(tmp_path):
    import onnx

    model = encoder(**WIDE)
    round_weights(model, 8)
    export_onnx(model, tmp_path / "onnx", int8=True)
    graph = onnx.load(tmp_path / "onnx" / GRAPH).graph
    assert "MatMulInteger" in {node.op_type for node in graph.node}
    assert not [each.name for each in graph.initializer if each.name.endswith(".levels")]
