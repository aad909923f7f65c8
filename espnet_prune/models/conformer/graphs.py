"""Graphs of a Conformer, by itself or in a whole ESPnet model."""

import torch
from torch import Tensor, nn

from espnet_prune.errors import ModelError
from espnet_prune.models.espnet import graphs
from espnet_prune.models.espnet.features import least_samples, sample_rate_of
from espnet_prune.models.graph_names import GRAPH
from espnet_prune.models.graphs import Graph, Inputs, length_dimension, noise

FIRST_FRAME = 6  # the last that two convolutions of 3 frames at every second need for one
SUBSAMPLING = 4  # of the front-ends: two convolutions of stride 2
LEAST_FRAMES = 16  # that the exporter is told of; with fewer it would fix the length at one frame
LONGEST_FRAMES = 16000  # a quarter of them fits ESPnet's table of 5000 positions, fixed in a graph
CHECKED_FRAMES = (120, 57, 301)  # the first is exported


def encoder_graph(encoder: nn.Module, size: int | list[int]) -> Graph:
    """Features to hidden states by an encoder alone.

    Args:
        encoder: ESPnet's ConformerEncoder, dense or cut.
        size: width of the features, or all that fit it.

    Raises:
        ModelError: several widths fit.
    """
    if isinstance(size, list):
        raise ModelError(
            f"{type(encoder).__name__}: features of {size[0]} to {size[-1]} values a frame fit it, "
            "and it doesn't say which it reads; set encoder.input_size to that width"
        )

    def example(frames: int) -> Inputs:
        return (torch.randn(1, frames, size, generator=noise(frames)),)

    def expected(feats: Tensor) -> Inputs:
        return (encoder(feats, torch.tensor([feats.shape[1]]))[0],)

    shapes = ({1: length_dimension(LEAST_FRAMES, LONGEST_FRAMES)},)
    names = ("feats",), ("encoded",)
    graph = EncoderGraph(encoder).eval()
    return Graph(GRAPH, graph, *names, shapes, CHECKED_FRAMES, example, expected)


def speech_graphs(model: nn.Module, features: nn.Module) -> list[Graph]:
    """Those of a whole ESPnet model with CTC; ``features`` is the graph of its front-end."""
    graph = graphs.SpeechGraph(model, features, EncoderGraph(model.encoder))
    about, hop = describe(model), model.frontend.hop_length
    # the graph runs with fewer samples than the exporter is told of, down to what torch needs
    tried = (*(hop * frames for frames in CHECKED_FRAMES), about["least_samples"])
    return graphs.speech_graphs(model, graph, about, tried, LEAST_FRAMES * hop)


def describe(model: nn.Module) -> dict:
    """What a program must know of a whole ESPnet model with CTC."""
    hop = model.frontend.hop_length
    frames = {
        "sample_rate": sample_rate_of(model.espnet_prune_config),
        "least_samples": least_samples(model),
        "longest_samples": LONGEST_FRAMES * hop,
        "samples_a_frame": SUBSAMPLING * hop,
    }
    return graphs.describe_speech(model, frames)


class EncoderGraph(nn.Module):
    """A Conformer encoder for one recording without padding.

    Args:
        encoder: ESPnet's ConformerEncoder, dense or cut.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        if encoder.interctc_layer_idx:
            raise ModelError("interctc_layer_idx: intermediate CTC can't be exported; leave it out")
        self.encoder = encoder

    def forward(self, feats: Tensor) -> Tensor:
        """(1, T, F) features -> (1, T', D)."""
        x = self._embed(feats)
        for block in self.encoder.encoders:
            x, _ = block(x, None)
        x = x[0] if isinstance(x, tuple) else x
        return self.encoder.after_norm(x) if self.encoder.normalize_before else x

    def _embed(self, feats: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        embed = self.encoder.embed
        if embed.out.in_features:
            return embed(feats, None)[0]
        # No channel is left: the last bias for every frame, counted by one feature of every fourth,
        # because ONNX has no reshape of empty tensors.
        frames = feats[:, FIRST_FRAME::SUBSAMPLING, :1]
        return embed.pos_enc(0 * frames + embed.out.bias)
