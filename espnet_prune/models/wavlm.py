"""WavLM of transformers: wav2vec 2.0 with a gated bias of positions."""

from espnet_prune.models.family import Support
from espnet_prune.models.ssl.family import Ssl


class WavLm(Ssl):
    """WavLM by itself; as the encoder of an ESPnet model it is ``encoder: ssl``."""

    name = "wavlm"
    title = "transformers' WavLM"
    classes = ("WavLMPreTrainedModel",)
    choices = ()
    transformers_classes = {"WavLMForCTC": "WavLMConfig", "WavLMModel": "WavLMConfig"}
    support = Support(
        "WavLM of transformers (`WavLMForCTC`, `WavLMModel`; `encoder: ssl` in a recipe)",
        (*Ssl.support.cells[:5], "yes, but for the first"),
    )


FAMILY = WavLm()
