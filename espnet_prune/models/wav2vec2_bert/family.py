"""Wav2Vec2-BERT of transformers: Conformer blocks on filter banks, two frames at a time."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from espnet_prune.models.family import Support
from espnet_prune.models.huggingface.blocks import BlockKind, encoder_sites
from espnet_prune.models.huggingface.conformer import BERT
from espnet_prune.models.huggingface.feature_readers import FeatureReader
from espnet_prune.models.huggingface.preprocessing import KIND, Preprocessing
from espnet_prune.sites import SiteMap

SAMPLE_RATE, BANDS, STRIDE = 16000, 80, 2  # of its feature extractor, where it doesn't say


class Wav2Vec2Bert(FeatureReader):
    """Wav2Vec2-BERT without adapter, by itself or with CTC; ``encoder: wav2vec2_bert``."""

    name = "wav2vec2_bert"
    title = "transformers' Wav2Vec2-BERT"
    classes = ("Wav2Vec2BertPreTrainedModel", "EspnetWav2Vec2Bert")
    choices = ("wav2vec2_bert",)
    transformers_classes = {
        "Wav2Vec2BertForCTC": "Wav2Vec2BertConfig",
        "Wav2Vec2BertModel": "Wav2Vec2BertConfig",
    }
    core = "wav2vec2_bert"
    kinds = {"Wav2Vec2BertEncoderLayer": BERT}
    frames_per_second = 50
    frontend = "stacked_fbank"
    extractor = {
        KIND: "SeamlessM4TFeatureExtractor",
        "sampling_rate": SAMPLE_RATE,
        "stride": STRIDE,
        "return_attention_mask": True,
    }
    bands = ("num_mel_bins", STRIDE)
    support = Support(
        "Wav2Vec2-BERT of transformers (`Wav2Vec2BertForCTC`, `Wav2Vec2BertModel`, without "
        "adapter; `encoder: wav2vec2_bert` in a recipe)",
        (
            "yes",
            "yes, both feed-forwards",
            "yes",
            "none there",
            "macaron, attention, convolution, feed-forward",
            "yes",
        ),
    )

    def layers_of(self, core: nn.Module) -> nn.ModuleList:
        return core.encoder.layers

    def feature_bins(self, config: Any) -> int:
        return config.feature_projection_input_dim

    def core_sites(
        self, core: nn.Module, kind: BlockKind, frames: int, reference_seconds: float
    ) -> SiteMap:
        projected = core.feature_projection.projection.weight.numel() * frames
        layers = self.layers_of(core)
        return encoder_sites(core, layers, kind, ([], []), frames, reference_seconds, projected)

    def espnet_classes(self) -> Mapping[str, Mapping[str, type]]:
        from espnet_prune.models.wav2vec2_bert.encoder import EspnetWav2Vec2Bert
        from espnet_prune.models.wav2vec2_bert.features import StackedFilterBank

        return {
            "encoder": {self.choices[0]: EspnetWav2Vec2Bert},
            "frontend": {self.frontend: StackedFilterBank},
        }

    def frontend_conf(self, extractor: Preprocessing) -> dict[str, Any]:
        return {"fs": SAMPLE_RATE, "n_mels": extractor.number(self.bands[0], BANDS)}

    def features_graph(self, frontend: nn.Module) -> nn.Module:
        from espnet_prune.models.wav2vec2_bert.features import StackedFilterBankGraph

        return StackedFilterBankGraph(frontend)


FAMILY = Wav2Vec2Bert()
