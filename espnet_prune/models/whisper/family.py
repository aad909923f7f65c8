"""Whisper of transformers, alone and as encoder and decoder of an ESPnet model without CTC."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from espnet_prune.models.family import Support, Transcriber, TransformersFamily
from espnet_prune.models.graphs import Graph
from espnet_prune.models.huggingface.blocks import stacks
from espnet_prune.models.whisper import WHISPER
from espnet_prune.models.whisper.sites import whisper_matrices, whisper_sites
from espnet_prune.sites import DecoderConfig, SiteMap
from espnet_prune.surgery.families import Layers


class Whisper(TransformersFamily):
    """``whisper_hf`` among ESPnet's encoders and decoders; both are parts of one model."""

    name = "whisper"
    title = "transformers' WhisperForConditionalGeneration"
    classes = ("WhisperForConditionalGeneration", "WhisperHfEncoder")
    choices = (WHISPER,)
    is_stock = False
    ready_as_pretrained = True
    transformers_classes = {"WhisperForConditionalGeneration": "WhisperConfig"}
    support = Support(
        "Whisper of transformers (`WhisperForConditionalGeneration`, encoder and decoder; "
        "`generate` runs the cut model, word timestamps go with the first cut cross-attention "
        "head)",
        (
            "yes, self- and cross-attention",
            "yes",
            "none there",
            "yes: the first convolution's channels",
            "attention, cross-attention, feed-forward",
            "yes, of both stacks",
        ),
    )
    usage = "whisper = model.whisper  # transformers' own class, for `generate`"

    def espnet_classes(self) -> Mapping[str, Mapping[str, type]]:
        from espnet_prune.models.whisper.espnet_parts import WhisperHfDecoder, WhisperHfEncoder

        return {"encoder": {WHISPER: WhisperHfEncoder}, "decoder": {WHISPER: WhisperHfDecoder}}

    def sites(
        self, model: nn.Module, reference_seconds: float, decoder: DecoderConfig | None = None
    ) -> SiteMap:
        whole = _whole_of(model)
        self.refuse_decoder(whole, decoder)
        return whisper_sites(whole, reference_seconds)

    def matrices(self, model: nn.Module) -> Layers:
        whole = _whole_of(model)
        return Layers(whole, list(whisper_matrices(whole)), stacks(whole))

    def joined(self, model: nn.Module, plan: Mapping[str, Any] | None = None) -> nn.Module:
        from espnet_prune.models.whisper.espnet_parts import join

        return join(model, plan)

    def open_recogniser(self, folder: Path, segment_seconds: float) -> Transcriber:
        from espnet_prune.models.whisper.decoding import WhisperRecogniser

        return WhisperRecogniser(folder, segment_seconds)

    def graphs(self, model: nn.Module) -> list[Graph]:
        from espnet_prune.models.whisper import graphs

        if self.is_transformers(model):
            return [graphs.transformers_graph(model), graphs.decoder_step(model)]
        return [graphs.speech_graph(model), graphs.decoder_step(model.whisper)]

    def describe_graphs(self, model: nn.Module) -> dict:
        from espnet_prune.models.whisper.graphs import describe

        if self.is_transformers(model):
            return super().describe_graphs(model)
        return describe(model)


def _whole_of(model: nn.Module) -> nn.Module:
    """transformers' model, also that of an ESPnet model with its parts."""
    return getattr(model, "whisper", model)


FAMILY = Whisper()
