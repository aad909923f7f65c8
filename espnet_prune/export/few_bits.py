"""Weights that a model has in few bits, stored so in its graph too: whole numbers and scales.

ONNX Runtime makes of them, once, the very numbers that the model has, in floating point: the file
is small, nothing is faster. They are cast and multiplied; DequantizeLinear, which is made for it,
would be run each time anew, or be replaced by products that round what a layer hears as well.
"""

from collections.abc import Mapping, Sequence

import numpy
import torch
from torch import Tensor, nn

from espnet_prune.surgery.rounding import Rounded, by_number, rounded_weights

OPSET = 21  # whose Cast knows whole numbers of 4 bits


Constant = tuple[bytes, int]  # the numbers of one, and its rows
Known = dict[Constant, tuple[Rounded, Tensor, bool]]  # its weight's (rows, numbers); turned round?


def known_constants(model: nn.Module) -> Known:
    """What a graph's constants are of a model's weights in few bits; empty where it has none."""
    known: Known = {}
    for name, rounded in rounded_weights(model).items():
        rows = model.get_parameter(name).detach().flatten(1)
        for matrix, turned in ((rows, False), (rows.T, True)):
            key = (matrix.contiguous().numpy().tobytes(), len(matrix))
            known[key] = (rounded, rows, turned)
    return known


def store_rounded(graph, known: Known) -> None:
    """Replaces the constants of a graph that are weights in few bits.

    Args:
        graph: an ``onnx_ir.Graph``, of ``OPSET`` where there are such weights.
        known: of the whole model.
    """
    from onnx_ir.convenience import replace_all_uses_with

    places: dict = {}
    first = graph[0]
    for name, value in list(graph.initializers.items()):
        numbers = value.const_value.numpy()
        key = (numbers.tobytes(), len(numbers)) if numbers.ndim > 1 else None
        if key in known:
            nodes = _nodes(name, numbers.shape, *known[key], places)
            del graph.initializers[name]
            for each in (each for node in nodes for each in node.inputs):
                if each.const_value is not None and each.name not in graph.initializers:
                    graph.register_initializer(each)
            graph.insert_before(first, nodes)
            replace_all_uses_with(value, nodes[-1].outputs[0])


def _nodes(
    name: str,
    shape: Sequence[int],
    rounded: Rounded,
    rows: Tensor,
    turned: bool,
    places: dict,
) -> list:
    """What makes a weight of whole numbers.

    Args:
        name: the constant's.
        shape: its shape.
        rounded: how the weight is stored.
        rows: (rows, numbers), its values.
        turned: whether the constant has a row where a column is.
        places: by the numbers of a row: which stretch each is in; others of the graph have it too.
    """
    import ml_dtypes
    import onnx_ir as ir

    levels, scales = rounded.values(rows)[0].numpy(), rounded.scales
    kind = ml_dtypes.int4 if rounded.bits == 4 else numpy.int8
    factors = _constant(f"{name}.scales", scales.numpy())
    whole = _constant(f"{name}.levels", levels.astype(kind))
    cast = _node(name, "Cast", [whole], {"to": ir.DataType.FLOAT})
    nodes = [cast]
    if scales.shape[1] > 1:
        numbers = rows.shape[1]
        if numbers not in places:
            stretches = by_number(torch.arange(scales.shape[1])[None], numbers)[0]
            places[numbers] = _constant(f"stretches.{numbers}", stretches.int().numpy())
        nodes.append(_node(name, "Gather", [factors, places[numbers]], {"axis": 1}))
        factors = nodes[-1].outputs[0]
    nodes.append(_node(name, "Mul", [cast.outputs[0], factors]))
    own = nodes[-1].outputs[0]
    if turned:
        nodes.append(_node(name, "Transpose", [own], {"perm": [1, 0]}))
    elif len(shape) > 2:
        sizes = _constant(f"{name}.shape", numpy.array(shape))
        nodes.append(_node(name, "Reshape", [own, sizes]))
    return nodes


def _node(name: str, kind: str, inputs: Sequence, attributes: Mapping | None = None):
    """A node for the constant ``name``; one without names would get those of a branch's values."""
    import onnx_ir as ir

    made = ir.Value(name=f"{name}.{kind.lower()}")
    return ir.node(kind, inputs, attributes, outputs=[made], name=f"{made.name}.node")


def _constant(name: str, values: numpy.ndarray):
    """A value of a graph with a name."""
    import onnx_ir as ir

    return ir.Value(name=name, const_value=ir.tensor(values, name=name))
