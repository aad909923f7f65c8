"""Whisper of transformers as encoder and decoder of an ESPnet model without CTC.

``encoder: whisper_hf`` and ``decoder: whisper_hf`` with ``frontend: null`` and ``input_size: 1``
read samples, as Whisper's own feature extractor does: log-mel features of a whole window of 30 s.
``join`` gives the ESPnet model the transformers model that both are parts of, for its sites and
for ``generate``; they share every weight.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from espnet_prune.errors import ModelError
from espnet_prune.models.espnet.imports import importing_espnet
from espnet_prune.models.huggingface import build
from espnet_prune.surgery.cut import cut_to_plan
from espnet_prune.surgery.families import family_of
from espnet_prune.surgery.plan import PLAN_ATTRIBUTE, Plan, plan_of

with importing_espnet():
    from espnet2.asr.decoder.abs_decoder import AbsDecoder
    from espnet2.asr.encoder.abs_encoder import AbsEncoder

CLASS = "WhisperForConditionalGeneration"
JOINED = "whisper"  # the attribute of the ESPnet model that holds the transformers model
SAMPLE_RATE = 16000


class WhisperHfEncoder(AbsEncoder):
    """Whisper's encoder.

    Args:
        input_size: 1, the width of samples.
        model: a name on the hub, a folder of ``save_pretrained``, or what ``saved_conf`` gave.
        offline: whether to look only at folders and at what was downloaded before.

    Raises:
        ModelError: the model can't be found or built.
    """

    def __init__(
        self, input_size: int, model: str | Mapping[str, Any], offline: bool = False
    ) -> None:
        super().__init__()
        if input_size != 1:
            raise ModelError(
                f"encoder whisper_hf: it reads samples, not features of width {input_size}; set "
                "frontend: null and input_size: 1"
            )
        whole = _whole(model, offline)
        self.model = whole.model.encoder
        self.generation = whole.generation_config.to_dict()
        self.extractor = build.whisper_features(self.model.config)

    def output_size(self) -> int:
        """Width of the hidden states."""
        return self.model.config.d_model

    @property
    def encoders(self) -> nn.ModuleList:
        """The layers, by the name that ESPnet's encoders have for theirs."""
        return self.model.layers

    def saved_conf(self) -> dict:
        """``encoder_conf`` that rebuilds this encoder, uncut, without the hub."""
        return {"model": {"config": self.model.config.to_dict(), "generation": self.generation}}

    def forward(
        self,
        xs_pad: Tensor,
        ilens: Tensor,
        prev_states: Tensor | None = None,
        return_all_hs: bool = False,
    ) -> tuple[Tensor | tuple[Tensor, list[Tensor]], Tensor, None]:
        """Hidden states of samples, each recording in a window of 30 s.

        Args:
            xs_pad: (B, samples), full scale 1.
            ilens: (B,), lengths in samples.
            prev_states: unused.
            return_all_hs: whether to give every layer's output as well.

        Returns:
            (B, T, D), or that and a list of (B, T, D) by layer; T (B,), the window's positions,
            which the decoder attends to; None.

        Raises:
            ModelError: a recording longer than the window.
        """
        longest = int(ilens.max())
        if longest > self.extractor.n_samples:
            raise ModelError(
                f"whisper: a recording of {longest / SAMPLE_RATE:.1f} s doesn't fit its window of "
                f"{self.extractor.chunk_length} s; lower --max_seconds, or segment_seconds of "
                "the decoding, or reference_seconds of the profile"
            )
        output = self.model(self.features(xs_pad, ilens), output_hidden_states=return_all_hs)
        encoded = output.last_hidden_state
        lengths = torch.full_like(ilens, encoded.shape[1])
        if return_all_hs:
            return (encoded, list(output.hidden_states[1:])), lengths, None
        return encoded, lengths, None

    def features(self, samples: Tensor, lengths: Tensor) -> Tensor:
        """Log-mel features of whole windows, (B, bins, frames), of samples (B, samples).

        In float32 under ``use_amp`` too: the filter bank's products would lose what decoding has.
        """
        pieces = [s[:n].cpu().numpy() for s, n in zip(samples, lengths.tolist(), strict=True)]
        with torch.autocast(samples.device.type, enabled=False):
            made = self.extractor(
                pieces, sampling_rate=SAMPLE_RATE, return_tensors="pt", device=str(samples.device)
            )
        return made.input_features.to(samples.device)


class WhisperHfDecoder(AbsDecoder):
    """Whisper's decoder; its output layer is the embedding.

    Args:
        vocab_size: number of tokens.
        encoder_output_size: width of the encoder's output.
        model: as the encoder's.
        offline: as the encoder's.

    Raises:
        ModelError: the model can't be found or built, or has another vocabulary.
    """

    def __init__(
        self,
        vocab_size: int,
        encoder_output_size: int,
        model: str | Mapping[str, Any],
        offline: bool = False,
    ) -> None:
        super().__init__()
        self.model = _whole(model, offline).model.decoder
        own = self.model.embed_tokens.num_embeddings
        if vocab_size != own:
            raise ModelError(
                f"decoder whisper_hf: {vocab_size} tokens, but the model has {own}; make the "
                "tokens from this model's own tokenizer"
            )

    def saved_conf(self) -> dict:
        """``decoder_conf`` that rebuilds this decoder, uncut, without the hub."""
        return {"model": {"config": self.model.config.to_dict(), "generation": {}}}

    def forward(
        self, hs_pad: Tensor, hlens: Tensor, ys_in_pad: Tensor, ys_in_lens: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Scores of each next token, (B, L, V), and the lengths (B,).

        Args:
            hs_pad: (B, T, D), the encoder's output.
            hlens: (B,); all T are attended to.
            ys_in_pad: (B, L), the tokens before.
            ys_in_lens: (B,).

        Raises:
            ModelError: more tokens than the decoder has positions.
        """
        tokens, most = ys_in_pad.shape[1], self.model.config.max_target_positions
        if tokens > most:
            raise ModelError(
                f"whisper: a transcript of {tokens} tokens doesn't fit its decoder of {most} "
                "positions; lower --max_seconds"
            )
        output = self.model(
            input_ids=ys_in_pad, encoder_hidden_states=hs_pad, use_cache=False
        ).last_hidden_state
        return nn.functional.linear(output, self.model.embed_tokens.weight), ys_in_lens


def join(model: nn.Module, plan: Mapping[str, Any] | None = None) -> nn.Module:
    """Gives an ESPnet model of these two parts the whole one as ``whisper``, and its vocabulary.

    Args:
        model: an ESPnetASRModel.
        plan: given, it is cut to that shape.

    Returns:
        The same.

    Raises:
        ModelError: its decoder isn't Whisper's; the plan isn't one, or is of another model.
    """
    encoder, decoder = model.encoder, model.decoder
    if not isinstance(decoder, WhisperHfDecoder):
        found = "none" if decoder is None else type(decoder).__name__
        raise ModelError(f"decoder: {found}; encoder whisper_hf goes with decoder whisper_hf")
    with torch.device("meta"):
        whole = build.whisper_shell(encoder.model.config, encoder.generation)
    whole.model.encoder, whole.model.decoder = encoder.model, decoder.model
    whole.proj_out.weight = decoder.model.embed_tokens.weight
    object.__setattr__(model, JOINED, whole)  # its weights are the model's already
    model.vocab_size = decoder.model.embed_tokens.num_embeddings
    if plan is not None:
        found = Plan.from_json(plan, "pruned_arch")
        cut = cut_to_plan(whole, family_of(whole).whole_plan(whole, found))
        setattr(model, PLAN_ATTRIBUTE, plan_of(cut))
    return model


def whisper_of(model: nn.Module) -> nn.Module | None:
    """The transformers model of a joined ESPnet model, its plan attached; None for another."""
    whole = getattr(model, JOINED, None)
    if whole is not None and plan_of(model) is not None:
        setattr(whole, PLAN_ATTRIBUTE, plan_of(model))
    return whole


def _whole(model: str | Mapping[str, Any], offline: bool) -> nn.Module:
    if not isinstance(model, Mapping):
        return build.load_pretrained(model, CLASS, offline)
    config = model.get("config", model)
    whole = build.from_config(CLASS, config)
    if model.get("generation"):
        whole.generation_config = build.generation_config(model["generation"])
    return whole
