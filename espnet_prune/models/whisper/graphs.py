"""Graphs of Whisper: samples, or log-mel features, to hidden states; and a step of its decoder."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from espnet_prune.errors import ModelError
from espnet_prune.models.espnet.graphs import fourier_kernel
from espnet_prune.models.graph_names import DECODER, GRAPH, WHISPER
from espnet_prune.models.graphs import (
    CHECKED_TOKENS,
    Graph,
    Inputs,
    Output,
    example_speech,
    length_dimension,
    noise,
)
from espnet_prune.models.whisper.decoding import LEAST_TOKENS, MOST_TOKENS, TOKENS_PER_SECOND
from espnet_prune.models.whisper.espnet_parts import SAMPLE_RATE
from espnet_prune.models.whisper.preprocessing import is_multilingual

# of transformers' WhisperFeatureExtractor, after OpenAI's log_mel_spectrogram
FLOOR, RANGE, SHIFT, SCALE = 1e-10, 8.0, 4.0, 4.0
# Of the encoder, which magnifies rounding: the real tiny.en, whose outputs reach 11, differs from
# torch by 3e-5, and by 1.5e-3 where noise fills the whole window.
TOLERANCE = 5e-3


def speech_graph(model: nn.Module) -> Graph:
    """Samples to hidden states by the encoder of an ESPnet model of a Whisper."""
    encoder = model.encoder
    longest = encoder.extractor.n_samples
    tried = (longest // 3, longest // 7, longest)

    def expected(speech: Tensor) -> Inputs:
        return (encoder(speech, torch.tensor([speech.shape[1]]))[0],)

    names, shapes = (("speech",), ("encoded",)), ({1: length_dimension(1, longest)},)
    graph = WhisperGraph(encoder).eval()
    return Graph(GRAPH, graph, *names, shapes, tried, example_speech, expected, TOLERANCE)


def transformers_graph(whole: nn.Module) -> Graph:
    """Log-mel features of a whole window to hidden states by transformers' Whisper."""
    encoder, config = whole.model.encoder, whole.config

    def example(seed: int) -> Inputs:
        shape = (1, config.num_mel_bins, 2 * config.max_source_positions)
        return (torch.randn(*shape, generator=noise(seed)),)

    def expected(features: Tensor) -> Inputs:
        return (encoder(features).last_hidden_state,)

    names = ("input_features",), ("encoded",)
    graph = Output(encoder, "last_hidden_state").eval()
    inputs = (0, 1, 2)  # of one length, which is fixed
    return Graph(GRAPH, graph, *names, ({},), inputs, example, expected, TOLERANCE)


def decoder_step(whole: nn.Module) -> Graph:
    """The tokens so far to the next by the decoder of transformers' Whisper, without a cache."""
    config = whole.config

    def example(length: int) -> Inputs:
        generator = noise(length)
        ids = torch.randint(config.vocab_size, (1, length), generator=generator)
        shape = (1, config.max_source_positions, config.d_model)
        return ids, torch.randn(*shape, generator=generator)

    def expected(ids: Tensor, encoded: Tensor) -> Inputs:
        scores = whole(decoder_input_ids=ids, encoder_outputs=(encoded,)).logits[:, -1]
        return (torch.log_softmax(scores, dim=-1),)

    names = ("tokens", "encoded"), ("log_probs",)
    shapes = ({1: length_dimension(2, config.max_target_positions)}, {})
    graph = WhisperDecoderStep(whole.model.decoder).eval()
    return Graph(DECODER, graph, *names, shapes, CHECKED_TOKENS, example, expected)


class WhisperGraph(nn.Module):
    """Samples, filled up with zeros to the window, to the encoder's output.

    Args:
        encoder: a ``WhisperHfEncoder``.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.features = LogMel(encoder.extractor)
        self.encoder = encoder.model

    def forward(self, speech: Tensor) -> Tensor:
        """(1, samples) within -1 to 1, no longer than the window -> (1, T, D)."""
        return self.encoder(self.features(speech)).last_hidden_state


class LogMel(nn.Module):
    """Whisper's features with their Fourier transform as a convolution.

    Args:
        extractor: transformers' ``WhisperFeatureExtractor``.
    """

    def __init__(self, extractor) -> None:
        super().__init__()
        self.samples = extractor.n_samples
        self.hop = extractor.hop_length
        self.padding = extractor.n_fft // 2
        kernel = fourier_kernel(extractor.n_fft, torch.hann_window(extractor.n_fft))
        self.register_buffer("kernel", kernel)
        self.register_buffer("mel", torch.from_numpy(extractor.mel_filters).float())

    def forward(self, speech: Tensor) -> Tensor:
        """(1, samples) -> (1, bins, frames of the window)."""
        window = F.pad(speech, (0, self.samples - speech.shape[1]))
        padded = F.pad(window[:, None], (self.padding, self.padding), mode="reflect")
        parts = F.conv1d(padded, self.kernel, stride=self.hop)[..., :-1].transpose(1, 2)
        real, imaginary = parts.chunk(2, dim=-1)
        energy = (real.square() + imaginary.square()) @ self.mel
        logs = energy.clamp(min=FLOOR).log10()
        logs = torch.maximum(logs, logs.amax(dim=(1, 2), keepdim=True) - RANGE)
        return ((logs + SHIFT) / SCALE).transpose(1, 2)


class WhisperDecoderStep(nn.Module):
    """Whisper's decoder; its output layer is the embedding.

    Args:
        decoder: transformers' ``WhisperDecoder``, cut or not.
    """

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, tokens: Tensor, encoded: Tensor) -> Tensor:
        """(1, L) tokens, (1, T, D) -> log-probabilities (1, V)."""
        hidden = self.decoder(
            input_ids=tokens, encoder_hidden_states=encoded, use_cache=False
        ).last_hidden_state[:, -1]
        scores = nn.functional.linear(hidden, self.decoder.embed_tokens.weight)
        return torch.log_softmax(scores, dim=-1)


def describe(model: nn.Module) -> dict:
    """What a program must know to decode greedily as transformers' ``generate`` does.

    Args:
        model: an ESPnet model of a Whisper.

    Raises:
        ModelError: it knows several languages but not their tokens.
    """
    generation = model.whisper.generation_config
    multilingual = is_multilingual(model.espnet_prune_config["token_list"])
    if multilingual and not getattr(generation, "lang_to_id", None):
        raise ModelError("generation_config: no lang_to_id, by which Whisper is told the language")
    prefix = first_tokens(generation, multilingual)
    room = model.whisper.config.max_target_positions - len(prefix)
    return {
        "kind": WHISPER,
        "sample_rate": SAMPLE_RATE,
        "least_samples": 1,
        "longest_samples": model.encoder.extractor.n_samples,
        "prefix": prefix,
        "end": int(generation.eos_token_id),
        "suppressed": list(generation.suppress_tokens or []),
        "suppressed_first": list(generation.begin_suppress_tokens or []),
        "most_tokens": min(MOST_TOKENS, room),
        "least_tokens": LEAST_TOKENS,
        "tokens_per_second": TOKENS_PER_SECOND,
    }


def first_tokens(generation, multilingual: bool) -> list[int]:
    """The tokens that a transcript without times begins with, by the settings of ``generate``.

    Args:
        generation: a GenerationConfig of a Whisper.
        multilingual: whether English and transcription are told.
    """
    tokens = [generation.decoder_start_token_id]
    if multilingual:
        tokens += [generation.lang_to_id["<|en|>"], generation.task_to_id["transcribe"]]
    else:
        tokens += [token for _, token in getattr(generation, "forced_decoder_ids", None) or []]
    untimed = getattr(generation, "no_timestamps_token_id", None)
    return tokens if untimed in (None, tokens[-1]) else [*tokens, untimed]
