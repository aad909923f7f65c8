"""Graphs of ESPnet's encoders of blocks, by themselves or in a whole model."""

import copy
import math

import torch
from torch import Tensor, nn

from espnet_prune.errors import ModelError
from espnet_prune.models.espnet import graphs
from espnet_prune.models.espnet.features import least_samples, sample_rate_of
from espnet_prune.models.espnet.front_end import check_input_layer, subsampling_of
from espnet_prune.models.espnet.imports import importing_espnet
from espnet_prune.models.espnet.prompt import prompt_of
from espnet_prune.models.graph_names import GRAPH
from espnet_prune.models.graphs import Graph, Inputs, length_dimension, noise

with importing_espnet():
    from espnet2.legacy.nets.pytorch_backend.transformer.embedding import RelPositionalEncoding

LEAST_POSITIONS = 3  # that the exporter is told of; with fewer it would fix the length at one
LONGEST_POSITIONS = 4000  # ESPnet's table has 5000 of them, fixed in a graph
CHECKED_POSITIONS = (29, 13, 74)  # the first is exported


def encoder_graph(encoder: nn.Module, graph: nn.Module, size: int | list[int]) -> Graph:
    """Features to hidden states by an encoder alone.

    Args:
        encoder: dense or cut.
        graph: what is exported of it.
        size: width of the features, or all that fit it.

    Raises:
        ModelError: several widths fit; or a part of it can't be exported.
    """
    if isinstance(size, list):
        raise ModelError(
            f"{type(encoder).__name__}: features of {size[0]} to {size[-1]} values a frame fit it, "
            "and it doesn't say which it reads; set encoder.input_size to that width"
        )

    def example(frames: int) -> Inputs:
        return (torch.randn(1, frames, size, generator=noise(frames)),)

    def expected(feats: Tensor) -> Inputs:
        encoded = encoder(feats, torch.tensor([feats.shape[1]]))[0]
        return (encoded[0] if isinstance(encoded, tuple) else encoded,)

    least, longest = frames_limits(encoder)
    shapes = ({1: length_dimension(least, longest)},)
    names = ("feats",), ("encoded",)
    return Graph(GRAPH, graph.eval(), *names, shapes, checked_frames(encoder), example, expected)


def speech_graphs(model: nn.Module, features: nn.Module, encoder: "EncoderGraph") -> list[Graph]:
    """Those of a whole ESPnet model with CTC.

    Args:
        model: an ESPnetASRModel.
        features: the graph of its front-end.
        encoder: that of its encoder.
    """
    about, hop = describe(model), model.frontend.hop_length
    graph = graphs.SpeechGraph(model, features, encoder)
    # the graph runs with fewer samples than the exporter is told of, down to what torch needs
    tried = (*(hop * n for n in checked_frames(model.encoder)), about["least_samples"])
    least, _ = frames_limits(model.encoder)
    return graphs.speech_graphs(model, graph, about, tried, least * hop)


def describe(model: nn.Module) -> dict:
    """What a program must know of a whole ESPnet model with CTC."""
    check_input_layer(model.encoder.embed)
    hop = model.frontend.hop_length
    _, longest = frames_limits(model.encoder)
    frames = {
        "sample_rate": sample_rate_of(model.espnet_prune_config),
        "least_samples": least_samples(model),
        "longest_samples": longest * hop,
        "samples_a_frame": rate_of(model.encoder) * hop,
    }
    return graphs.describe_speech(model, frames)


def rate_of(encoder: nn.Module) -> int:
    """Frames of features for one position of the encoder."""
    front_end = subsampling_of(encoder.embed)
    return 1 if front_end is None else front_end.rate


def frames_limits(encoder: nn.Module) -> tuple[int, int]:
    """Least and largest number of frames that a graph takes."""
    front_end = subsampling_of(encoder.embed)
    reach = 0 if front_end is None else front_end.reach
    rate = rate_of(encoder)
    return max(reach, 1) + (LEAST_POSITIONS - 1) * rate, LONGEST_POSITIONS * rate


def checked_frames(encoder: nn.Module) -> tuple[int, ...]:
    """Numbers of frames at which a graph's outputs are compared."""
    numbers, segment = list(CHECKED_POSITIONS), getattr(encoder, "block_size", 0)
    if segment:  # one of a single segment and one of several, whatever their length
        numbers += [segment, 3 * segment]
    return tuple(rate_of(encoder) * number + number // 10 + 2 for number in numbers)


class EncoderGraph(nn.Module):
    """An encoder for one recording without padding.

    Args:
        encoder: dense or cut; has ``embed`` and ``encoders``.
        ctc: CTC of the whole model, which self-conditioned encoders look at.
        norms_between: whether intermediate CTC hears the stream by the last norm.

    Raises:
        ModelError: it is conditioned on CTC, and stands alone.
    """

    def __init__(
        self, encoder: nn.Module, ctc: nn.Module | None = None, norms_between: bool = True
    ) -> None:
        super().__init__()
        self.encoder = _of_the_same_tensors(encoder)
        stop_flash_attention(self.encoder)
        compute_positions(self.encoder)
        self.norms_between = norms_between
        self.heard: list[int] = []
        if getattr(encoder, "interctc_use_conditioning", False):
            if ctc is None:
                raise ModelError(
                    "interctc_use_conditioning: an encoder alone has no CTC to be conditioned on; "
                    "export the whole model"
                )
            self.heard = [index - 1 for index in encoder.interctc_layer_idx]
            self.output = ctc.ctc_lo

    def forward(self, feats: Tensor) -> Tensor:
        """(1, T, F) features -> (1, T', D)."""
        encoder = self.encoder
        x = self._embed(feats)
        for index, block in enumerate(encoder.encoders):
            x, _ = self._run(block, x)
            if index in self.heard:
                x = self._conditioned(x)
        return self._normed(x[0] if isinstance(x, tuple) else x)

    def _run(self, block: nn.Module, x: Tensor | tuple[Tensor, Tensor]) -> tuple:
        """What a block returns, its mask being none."""
        return block(x, None)

    def _normed(self, x: Tensor) -> Tensor:
        norm = getattr(self.encoder, "after_norm", None)
        return x if norm is None else norm(x)

    def _conditioned(self, x: Tensor | tuple[Tensor, Tensor]) -> Tensor | tuple[Tensor, Tensor]:
        """The stream and what intermediate CTC says of it."""
        stream = x[0] if isinstance(x, tuple) else x
        heard = self._normed(stream) if self.norms_between else stream
        posterior = torch.softmax(self.output(heard), dim=-1)
        stream = stream + self.encoder.conditioning_layer(posterior)
        return (stream, *x[1:]) if isinstance(x, tuple) else stream

    def _embed(self, feats: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        embed = self.encoder.embed
        front_end = subsampling_of(embed)
        if front_end is None:
            return feats if embed is None else embed(feats)
        if embed.out.in_features:
            return embed(feats, None)[0]
        silent = self._silent(feats)
        return embed.pos_enc(silent) if hasattr(embed, "pos_enc") else silent

    def _silent(self, feats: Tensor) -> Tensor:
        """What a front-end without channels makes: the last bias for every position.

        The positions are counted by one feature of some frames, because ONNX has no reshape of
        empty tensors.
        """
        front_end, embed = subsampling_of(self.encoder.embed), self.encoder.embed
        frames = feats[:, front_end.reach - 1 :: front_end.rate, :1]
        return 0 * frames + embed.out.bias


def _of_the_same_tensors(encoder: nn.Module) -> nn.Module:
    """A copy for a graph to change, with which the encoder as it is can be compared."""
    tensors = (*encoder.parameters(), *encoder.buffers())
    return copy.deepcopy(encoder, {id(tensor): tensor for tensor in tensors})


class PromptedEncoderGraph(EncoderGraph):
    """OWSM-CTC's encoder, told to recognise any language and no text; positions of sound alone.

    Args:
        model: the whole model, in evaluation mode.
        norms_between: as in the base class.
    """

    @torch.no_grad()
    def __init__(self, model: nn.Module, norms_between: bool) -> None:
        stop_flash_attention(model.prompt_encoder)
        super().__init__(model.encoder, model.ctc, norms_between)
        told = prompt_of(model, 1)
        self.register_buffer("prefix", told["prefix_embeds"])
        self.register_buffer("memory", told["memory"])

    def forward(self, feats: Tensor) -> Tensor:
        """(1, T, F) features -> (1, T', D)."""
        return super().forward(feats)[:, self.prefix.shape[1] :]

    def _run(self, block: nn.Module, x: Tensor | tuple[Tensor, Tensor]) -> tuple:
        return block(x, None, memory=self.memory)

    def _embed(self, feats: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        embed = self.encoder.embed
        if embed.out.in_features:
            return embed(feats, None, self.prefix)[0]
        return embed.pos_enc(torch.cat([self.prefix, self._silent(feats)], dim=1))


class ComputedPositions(nn.Module):
    """ESPnet's relative positions without its table, which takes megabytes of a graph.

    Args:
        table: ESPnet's.
    """

    def __init__(self, table: RelPositionalEncoding) -> None:
        super().__init__()
        self.scale = table.xscale
        steps = torch.arange(0, table.d_model, 2, dtype=torch.float32)
        self.register_buffer("frequencies", torch.exp(steps * -(math.log(10000.0) / table.d_model)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(1, T, D) -> (1, T, D) scaled; (1, 2 T - 1, D) positions, the furthest left first."""
        frames = x.shape[1]
        angles = torch.arange(frames - 1, -frames, -1).float()[:, None] * self.frequencies
        positions = torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)
        return x * self.scale, positions[None]


def compute_positions(encoder: nn.Module) -> None:
    """Lets an encoder compute its relative positions."""
    embed = encoder.embed
    if type(getattr(embed, "pos_enc", None)) is RelPositionalEncoding:
        embed.pos_enc = ComputedPositions(embed.pos_enc)


def stop_flash_attention(module: nn.Module) -> None:
    """Lets ESPnet's attention in a module no longer try kernels that no graph has."""
    for part in module.modules():
        if getattr(part, "use_flash_attn", False):
            part.use_flash_attn = False
