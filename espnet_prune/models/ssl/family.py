"""wav2vec 2.0 and HuBERT of transformers, alone and as the encoder of an ESPnet model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from espnet_prune.models.family import Support, TransformersFamily
from espnet_prune.models.graphs import Graph
from espnet_prune.models.huggingface.preprocessing import read_preprocessing
from espnet_prune.models.ssl.front import dense_channels
from espnet_prune.models.ssl.sites import (
    SAMPLE_RATE,
    call_layers,
    ssl_encoder_of,
    ssl_matrices,
    ssl_sites,
)
from espnet_prune.sites import DecoderConfig, SiteMap
from espnet_prune.surgery.families import Layers


class Ssl(TransformersFamily):
    """Self-supervised encoders: ``encoder: ssl`` in a recipe."""

    name = "ssl"
    title = "transformers' wav2vec 2.0 and HuBERT"
    classes = ("Wav2Vec2PreTrainedModel", "HubertPreTrainedModel", "SslEncoder")
    choices = ("ssl",)
    transformers_classes = {
        "Wav2Vec2ForCTC": "Wav2Vec2Config",
        "Wav2Vec2Model": "Wav2Vec2Config",
        "HubertForCTC": "HubertConfig",
        "HubertModel": "HubertConfig",
    }
    support = Support(
        "wav2vec 2.0 and HuBERT of transformers (`Wav2Vec2ForCTC`, `HubertForCTC`, and without a "
        "head; `encoder: ssl` in a recipe)",
        (
            "yes",
            "yes",
            "none there",
            "yes: the feature extractor's channels",
            "attention, feed-forward",
            "yes",
        ),
    )
    usage = "encoder = model.encoder.model  # transformers' own class, whose output model.ctc reads"

    def espnet_classes(self) -> Mapping[str, Mapping[str, type]]:
        from espnet_prune.models.ssl.encoder import SslEncoder

        return {"encoder": dict.fromkeys(self.choices, SslEncoder)}

    def sites(
        self, model: nn.Module, reference_seconds: float, decoder: DecoderConfig | None = None
    ) -> SiteMap:
        core = ssl_encoder_of(model)
        self.refuse_decoder(core, decoder)
        return ssl_sites(core, reference_seconds)

    def matrices(self, model: nn.Module) -> Layers:
        core = ssl_encoder_of(model)
        return Layers(core, ssl_matrices(core))

    def espnet_input(self, folder: Path, config: Any) -> dict[str, Any]:
        """Samples, which ``SslEncoder`` standardises."""
        known = {"do_normalize": True, "sampling_rate": SAMPLE_RATE}
        read_preprocessing(folder, needed=False).expect(known)
        return {"frontend": None, "input_size": 1}

    def dense_config(self, model: nn.Module) -> dict:
        """transformers' configuration of the model before its cut, which a plan starts from."""
        config, dense = model.config.to_dict(), dense_channels(ssl_encoder_of(model))
        return config if dense is None else {**config, "conv_dim": dense}

    def untrained(self, config: Mapping) -> dict:
        """Also the convolutional front is trained: pretrained weights alone can stay."""
        return {**config, "encoder_conf": {**config["encoder_conf"], "freeze_front": False}}

    def graphs(self, model: nn.Module) -> list[Graph]:
        from espnet_prune.models.ssl import graphs

        call_layers(ssl_encoder_of(model))
        if self.is_transformers(model):
            return [graphs.own_graph(model)]
        return graphs.speech_graphs(model)

    def describe_graphs(self, model: nn.Module) -> dict:
        from espnet_prune.models.ssl import graphs

        if self.is_transformers(model):
            return super().describe_graphs(model)
        return graphs.describe(model)


FAMILY = Ssl()
