"""Moonshine of transformers: recordings of any length to text, by an encoder and a decoder."""

from torch import nn

from espnet_prune.models.family import Support, TransformersFamily
from espnet_prune.models.graphs import Graph, example_speech, transformers_graph
from espnet_prune.models.huggingface.blocks import stacks
from espnet_prune.models.moonshine.sites import (
    moonshine_matrices,
    moonshine_sites,
)
from espnet_prune.sites import DecoderConfig, SiteMap
from espnet_prune.surgery.families import Layers

SAMPLES = (16000, 40000, 9120)  # at which the graph is checked; the shortest last
LONGEST_SAMPLES = 64 * 16000


class Moonshine(TransformersFamily):
    """Moonshine's encoder and decoder; no parts of an ESPnet model yet."""

    name = "moonshine"
    title = "transformers' MoonshineForConditionalGeneration"
    classes = ("MoonshineForConditionalGeneration",)
    transformers_classes = {"MoonshineForConditionalGeneration": "MoonshineConfig"}
    support = Support(
        "Moonshine of transformers (`MoonshineForConditionalGeneration`, encoder and decoder; "
        "`generate` runs the cut model; not in a recipe yet)",
        (
            "yes, self- and cross-attention",
            "yes",
            "none there",
            "yes: those of the first two convolutions, of three",
            "attention, cross-attention, feed-forward",
            "yes, of both stacks",
        ),
    )

    def sites(
        self, model: nn.Module, reference_seconds: float, decoder: DecoderConfig | None = None
    ) -> SiteMap:
        self.refuse_decoder(model, decoder)
        return moonshine_sites(model, reference_seconds)

    def matrices(self, model: nn.Module) -> Layers:
        return Layers(model, list(moonshine_matrices(model)), stacks(model))

    def graphs(self, model: nn.Module) -> list[Graph]:
        """Samples to hidden states by the encoder."""
        encoder, speech = model.model.encoder, ("input_values", SAMPLES, LONGEST_SAMPLES)
        return [transformers_graph(encoder, *speech, example_speech, gives="encoded")]


FAMILY = Moonshine()
