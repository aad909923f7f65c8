"""The attention decoder of ESPnet's models, a Transformer."""

import functools
from collections.abc import Mapping

from torch import nn

from espnet_prune.models.espnet.encoder_family import cut_class
from espnet_prune.models.espnet.imports import importing_espnet
from espnet_prune.models.family import DecoderFamily, Support
from espnet_prune.models.graphs import Graph
from espnet_prune.models.transformer_decoder.sites import decoder_sites
from espnet_prune.sites import DecoderConfig, SiteMap

POSITIONS_PER_SECOND = 25  # of the encoder's output: a 10 ms shift, subsampled by 4


class TransformerDecoder(DecoderFamily):
    """ESPnet's TransformerDecoder, by itself or in a whole model."""

    name = "transformer_decoder"
    title = "ESPnet's TransformerDecoder"
    classes = ("TransformerDecoder",)
    choices = ("pruned_transformer",)
    support = Support(
        "the attention decoder of ESPnet's models, `TransformerDecoder`, in the same run, if the "
        "method's key `decoder` asks for it",
        (
            "yes, self- and cross-attention",
            "yes",
            "none there",
            "none there",
            "attention, cross-attention, feed-forward",
            "yes",
        ),
    )

    @functools.cached_property
    def cut_class(self) -> type:
        """The class of cut decoders."""
        with importing_espnet():
            from espnet2.asr.decoder.transformer_decoder import TransformerDecoder
        return cut_class(TransformerDecoder, "decoder")

    def espnet_classes(self) -> Mapping[str, Mapping[str, type]]:
        return {"decoder": {self.choices[0]: self.cut_class}}

    def sites(
        self, model: nn.Module, reference_seconds: float, decoder: DecoderConfig | None = None
    ) -> SiteMap:
        """Those of a decoder by itself."""
        positions = round(reference_seconds * POSITIONS_PER_SECOND)
        config = decoder or DecoderConfig()
        return decoder_sites(model, config, reference_seconds, positions, 0)

    def decoder_sites(
        self,
        model: nn.Module,
        config: DecoderConfig,
        reference_seconds: float,
        positions: int,
        first_block: int,
    ) -> SiteMap:
        return decoder_sites(model.decoder, config, reference_seconds, positions, first_block)

    def speed_up(self, model: nn.Module, search=None) -> None:
        if search is not None:
            from espnet_prune.models.transformer_decoder.fast_decoder import speed_up

            speed_up(search)

    def graphs(self, model: nn.Module) -> list[Graph]:
        """A step of the decoder of a whole ESPnet model."""
        from espnet_prune.models.transformer_decoder.graphs import decoder_step

        return [decoder_step(model)]


FAMILY = TransformerDecoder()
