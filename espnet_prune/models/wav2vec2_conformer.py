"""Wav2Vec2-Conformer of transformers: wav2vec 2.0 with Conformer blocks."""

from espnet_prune.models.family import Support
from espnet_prune.models.ssl.family import Ssl


class Wav2Vec2Conformer(Ssl):
    """Wav2Vec2-Conformer by itself; as the encoder of an ESPnet model it is ``encoder: ssl``."""

    name = "wav2vec2_conformer"
    title = "transformers' Wav2Vec2-Conformer"
    classes = ("Wav2Vec2ConformerPreTrainedModel",)
    choices = ()
    transformers_classes = {
        "Wav2Vec2ConformerForCTC": "Wav2Vec2ConformerConfig",
        "Wav2Vec2ConformerModel": "Wav2Vec2ConformerConfig",
    }
    support = Support(
        "Wav2Vec2-Conformer of transformers (`Wav2Vec2ConformerForCTC`, `Wav2Vec2ConformerModel`, "
        "relative or rotary positions; `encoder: ssl` in a recipe)",
        (
            "yes",
            "yes, both feed-forwards",
            "yes",
            Ssl.support.cells[3],
            "macaron, attention, convolution, feed-forward",
            "yes",
        ),
    )


FAMILY = Wav2Vec2Conformer()
