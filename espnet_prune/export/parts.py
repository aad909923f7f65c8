"""The graphs that a model is exported as, with inputs to try each and what torch makes of them."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from espnet_prune.errors import ModelError
from espnet_prune.export.decoder_graphs import DecoderStep, WhisperDecoderStep
from espnet_prune.export.folder import (
    DECODER,
    GRAPH,
    LEAST_FRAMES,
    LONGEST_FRAMES,
    describe,
    is_ssl,
)
from espnet_prune.export.graphs import EncoderGraph, Output, SpeechGraph, SslGraph
from espnet_prune.export.whisper_graph import WhisperGraph
from espnet_prune.models.conformer.sites import describe_conformer
from espnet_prune.models.transformer_decoder.sites import is_transformer_decoder
from espnet_prune.surgery.cut import twin_of

CHECKED_FRAMES = (120, 57, 301)  # the first is exported
CHECKED_TOKENS = (5, 3, 12)
TOLERANCE = 1e-4  # of outputs of the order of 1, as for masked and cut models
# Of Whisper's encoder, which magnifies rounding: the real tiny.en, whose outputs reach 11, differs
# from torch by 3e-5, and by 1.5e-3 where noise fills the whole window.
WHISPER_TOLERANCE = 5e-3
MOST_TOKENS = 1024
HYPOTHESES = 3
SSL_CHECKED = (5, 1, 17)  # frames more than one
SSL_SAMPLES, SSL_FRAME = (4000, 9001, 800), 320  # of the published models; the shortest last
TRANSFORMERS_ENCODERS = ("Wav2Vec2ForCTC", "Wav2Vec2Model", "HubertForCTC", "HubertModel")
TRANSFORMERS_WHISPER = "WhisperForConditionalGeneration"
Inputs = tuple[Tensor, ...]
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """One graph.

    Attributes:
        file: its name in the folder.
        graph: what is exported, in evaluation mode.
        inputs: names of its inputs.
        outputs: names of its outputs.
        shapes: of each input, the size of a dimension that varies.
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


def conformer_encoder(encoder: nn.Module) -> Part:
    """Features to hidden states by ESPnet's ConformerEncoder."""

    size = _feature_size(encoder)

    def example(frames: int) -> Inputs:
        return (torch.randn(1, frames, size, generator=_noise(frames)),)

    def expected(feats: Tensor) -> Inputs:
        return (encoder(feats, torch.tensor([feats.shape[1]]))[0],)

    length = torch.export.Dim("length", min=LEAST_FRAMES, max=LONGEST_FRAMES)
    names = ("feats",), ("encoded",)
    graph = EncoderGraph(encoder).eval()
    return Part(GRAPH, graph, *names, ({1: length},), CHECKED_FRAMES, example, expected)


def speech_with_ctc(model: nn.Module) -> Part:
    """Samples to CTC log-probabilities and hidden states by an ESPnetASRModel."""
    graph = (SslGraph if is_ssl(model) else SpeechGraph)(model).eval()
    about = describe(model)
    least, longest = about["least_samples"], about["longest_samples"]
    if is_ssl(model):
        tried = tuple(least + about["samples_a_frame"] * frames for frames in SSL_CHECKED)
    else:
        tried = tuple(model.frontend.hop_length * frames for frames in CHECKED_FRAMES)

    def expected(speech: Tensor) -> Inputs:
        encoded, _ = model.encode(speech, torch.tensor([speech.shape[1]]))
        return model.ctc.log_softmax(encoded), encoded

    length = torch.export.Dim("length", min=least, max=longest)
    names = ("speech",), ("log_probs", "encoded")
    return Part(GRAPH, graph, *names, ({1: length},), tried, _speech, expected)


def decoder_step(model: nn.Module) -> Part:
    """The tokens so far of a few hypotheses to the next by ESPnet's Transformer decoder."""
    decoder = model.decoder
    graph = DecoderStep(decoder).eval()
    size, tokens = model.encoder.output_size(), len(model.token_list)

    def example(length: int) -> Inputs:
        noise = _noise(length)
        ids = torch.randint(tokens, (HYPOTHESES, length), generator=noise)
        return ids, torch.randn(1, 2 * length + 7, size, generator=noise)

    def expected(ids: Tensor, encoded: Tensor) -> Inputs:
        memory = encoded.expand(len(ids), -1, -1)
        return (decoder.batch_score(ids, [None] * len(ids), memory)[0],)

    shapes = (
        {0: torch.export.Dim("hypotheses", max=MOST_TOKENS), 1: _token_dimension(MOST_TOKENS)},
        {1: torch.export.Dim("frames", max=LONGEST_FRAMES)},
    )
    return Part(DECODER, graph, *_STEP, shapes, CHECKED_TOKENS, example, expected)


_STEP = ("tokens", "encoded"), ("log_probs",)


def whisper_encoder(model: nn.Module) -> Part:
    """Samples to hidden states by the encoder of an ESPnet model of a Whisper."""
    encoder = model.encoder
    longest = encoder.extractor.n_samples
    tried = (longest // 3, longest // 7, longest)

    def expected(speech: Tensor) -> Inputs:
        return (encoder(speech, torch.tensor([speech.shape[1]]))[0],)

    graph = WhisperGraph(encoder).eval()
    length = torch.export.Dim("length", min=1, max=longest)
    names = ("speech",), ("encoded",)
    shapes = ({1: length},)
    return Part(GRAPH, graph, *names, shapes, tried, _speech, expected, WHISPER_TOLERANCE)


def whisper_step(whole: nn.Module) -> Part:
    """The tokens so far to the next by the decoder of transformers' Whisper."""
    config = whole.config
    graph = WhisperDecoderStep(whole.model.decoder).eval()

    def example(length: int) -> Inputs:
        noise = _noise(length)
        ids = torch.randint(config.vocab_size, (1, length), generator=noise)
        shape = (1, config.max_source_positions, config.d_model)
        return ids, torch.randn(*shape, generator=noise)

    def expected(ids: Tensor, encoded: Tensor) -> Inputs:
        scores = whole(decoder_input_ids=ids, encoder_outputs=(encoded,)).logits[:, -1]
        return (torch.log_softmax(scores, dim=-1),)

    shapes = ({1: _token_dimension(config.max_target_positions)}, {})
    return Part(DECODER, graph, *_STEP, shapes, CHECKED_TOKENS, example, expected)


def transformers_encoder(model: nn.Module) -> Part:
    """transformers' own input to scores, or hidden states, of one of its models without decoder."""
    name = "logits" if model.__class__.__name__.endswith("ForCTC") else "last_hidden_state"
    graph = Output(model, name).eval()

    def expected(values: Tensor) -> Inputs:
        return (model(values)[name],)

    length = torch.export.Dim("length", min=SSL_SAMPLES[-1], max=LONGEST_FRAMES * SSL_FRAME)
    shapes = ({1: length},)
    return Part(GRAPH, graph, ("input_values",), (name,), shapes, SSL_SAMPLES, _speech, expected)


def transformers_whisper(whole: nn.Module) -> Part:
    """Log-mel features of a whole window to hidden states by transformers' Whisper."""
    encoder, config = whole.model.encoder, whole.config

    def example(seed: int) -> Inputs:
        shape = (1, config.num_mel_bins, 2 * config.max_source_positions)
        return (torch.randn(*shape, generator=_noise(seed)),)

    def expected(features: Tensor) -> Inputs:
        return (encoder(features).last_hidden_state,)

    names = ("input_features",), ("encoded",)
    graph = Output(encoder, "last_hidden_state").eval()
    inputs = (0, 1, 2)  # of one length, which is fixed
    return Part(GRAPH, graph, *names, ({},), inputs, example, expected, WHISPER_TOLERANCE)


def parts_of(model: nn.Module) -> list[Part]:
    """What a model is exported as, of a copy in evaluation mode.

    Raises:
        ModelError: a model, or a part of it, that can't be exported, or one that isn't in float32.
    """
    _refuse_other_precisions(model)
    model = twin_of(model).eval()
    name = type(model).__name__
    if hasattr(model, "encoders"):
        return [conformer_encoder(model)]
    if name in TRANSFORMERS_ENCODERS:
        return [transformers_encoder(model)]
    if name == TRANSFORMERS_WHISPER:
        return [transformers_whisper(model), whisper_step(model)]
    if not hasattr(model, "frontend"):
        raise ModelError(
            f"{name}: can't be exported; expected an ESPnet model, its ConformerEncoder, "
            f"{', '.join((*TRANSFORMERS_ENCODERS, TRANSFORMERS_WHISPER))}"
        )
    if hasattr(model, "whisper"):
        return [whisper_encoder(model), whisper_step(model.whisper)]
    parts = [speech_with_ctc(model)]
    if is_transformer_decoder(model.decoder):
        parts.append(decoder_step(model))
    elif model.decoder is not None:
        kind = type(model.decoder).__name__
        logger.warning("decoder: %s isn't exported, only `transformer` is; CTC alone is", kind)
    return parts


def _token_dimension(most: int):
    return torch.export.Dim("length", min=2, max=most)


def _speech(samples: int) -> Inputs:
    return (0.1 * torch.randn(1, samples, generator=_noise(samples)),)


def _noise(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _feature_size(encoder: nn.Module) -> int:
    size = describe_conformer(encoder)["input_size"]
    if isinstance(size, list):
        raise ModelError(
            f"{type(encoder).__name__}: features of {size[0]} to {size[-1]} values a frame fit it, "
            "and it doesn't say which it reads; set encoder.input_size to that width"
        )
    return size


def _refuse_other_precisions(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if parameter.dtype != torch.float32:
            raise ModelError(
                f"{name} is {parameter.dtype}; graphs are exported in float32: call model.float() "
                "first"
            )
