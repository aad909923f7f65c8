"""A graph that a model is exported as, with inputs to try it and what torch makes of them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from espnet_prune.models.graph_names import GRAPH

TOLERANCE = 1e-4  # of outputs of the order of 1, as for masked and cut models
CHECKED_TOKENS = (5, 3, 12)
Inputs = tuple[Tensor, ...]


@dataclass(frozen=True)
class Graph:
    """One graph.

    Attributes:
        file: its name in the folder.
        graph: what is exported, in evaluation mode.
        inputs: names of its inputs.
        outputs: names of its outputs.
        shapes: shapes of each input, the size of a dimension that varies.
        tried: lengths at which outputs are compared; at the first it is exported.
        example: inputs of such a length.
        expected: what the model itself makes of inputs.
        tolerance: largest difference of an output that is allowed.
    """

    file: str
    graph: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    shapes: tuple[dict, ...]
    tried: tuple[int, ...]
    example: Callable[[int], Inputs]
    expected: Callable[..., Inputs]
    tolerance: float = TOLERANCE


class Output(nn.Module):
    """One output of a model of transformers.

    Args:
        model: it.
        name: name of the output.
    """

    def __init__(self, model: nn.Module, name: str) -> None:
        super().__init__()
        self.model = model
        self.name = name

    def forward(self, values: Tensor) -> Tensor:
        """As the model's."""
        return self.model(values)[self.name]


def transformers_graph(
    model: nn.Module,
    reads: str,
    tried: tuple[int, ...],
    longest: int,
    example: Callable[[int], Inputs],
    gives: str | None = None,
) -> Graph:
    """transformers' own input to scores, or hidden states, of one of its models.

    Args:
        model: it.
        reads: name of its input.
        tried: lengths at which outputs are compared, the shortest last.
        longest: the largest length.
        example: an input of such a length.
        gives: what the graph calls its output; by default as the model does.
    """
    name = "logits" if type(model).__name__.endswith("ForCTC") else "last_hidden_state"

    def expected(values: Tensor) -> Inputs:
        return (model(values)[name],)

    shapes = ({1: length_dimension(tried[-1], longest)},)
    graph = Output(model, name).eval()
    return Graph(GRAPH, graph, (reads,), (gives or name,), shapes, tried, example, expected)


def length_dimension(least: int, most: int):
    """A dimension that varies, for ``Graph.shapes``."""
    return torch.export.Dim("length", min=least, max=most)


def noise(seed: int) -> torch.Generator:
    """What example inputs are drawn from."""
    return torch.Generator().manual_seed(seed)


def example_speech(samples: int) -> Inputs:
    """Noise, (1, samples)."""
    return (0.1 * torch.randn(1, samples, generator=noise(samples)),)
