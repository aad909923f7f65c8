"""Graphs of wav2vec 2.0 and HuBERT, by themselves or in a whole ESPnet model."""

import math

import torch
from torch import Tensor, nn

from espnet_prune.models.espnet import graphs
from espnet_prune.models.graphs import Graph, example_speech, transformers_graph
from espnet_prune.models.ssl.encoder import EPSILON
from espnet_prune.models.ssl.sites import SAMPLE_RATE

LONGEST_SECONDS = 160
CHECKED = (5, 1, 17)  # frames more than one
SAMPLES, FRAME = (4000, 9001, 800), 320  # of the published models; the shortest last
LONGEST_FRAMES = 16000


def own_graph(model: nn.Module) -> Graph:
    """transformers' own input to scores, or hidden states, of one of its models."""
    most = LONGEST_FRAMES * FRAME
    return transformers_graph(model, "input_values", SAMPLES, most, example_speech)


def speech_graphs(model: nn.Module) -> list[Graph]:
    """Those of a whole ESPnet model with CTC."""
    about = describe(model)
    tried = tuple(about["least_samples"] + about["samples_a_frame"] * more for more in CHECKED)
    return graphs.speech_graphs(model, SslGraph(model), about, tried)


def describe(model: nn.Module) -> dict:
    """What a program must know of a whole ESPnet model with CTC."""
    frames = {
        "sample_rate": SAMPLE_RATE,
        "least_samples": model.encoder.least(),
        "longest_samples": LONGEST_SECONDS * SAMPLE_RATE,
        "samples_a_frame": math.prod(model.encoder.model.config.conv_stride),
    }
    return graphs.describe_speech(model, frames)


class SslGraph(nn.Module):
    """Samples to CTC log-probabilities by a wav2vec 2.0 or HuBERT model.

    Args:
        model: an ESPnetASRModel whose encoder is an ``SslEncoder``, with CTC.

    Raises:
        ModelError: no CTC; parts around the encoder.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        graphs.check_ctc(model)
        self.epsilon = EPSILON
        self.encoder = model.encoder.model
        self.ctc = model.ctc.ctc_lo

    def forward(self, speech: Tensor) -> tuple[Tensor, Tensor]:
        """(1, samples) within -1 to 1 -> log-probabilities (1, T, V), encoded (1, T, D)."""
        centred = speech - speech.mean(dim=1, keepdim=True)
        variance = centred.square().mean(dim=1, keepdim=True)
        encoded = self.encoder(centred / (variance + self.epsilon).sqrt()).last_hidden_state
        return torch.log_softmax(self.ctc(encoded), dim=-1), encoded
