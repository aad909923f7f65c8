"""Wav2Vec2-BERT of transformers: Conformer blocks on filter banks, two frames at a time."""

from torch import nn

from espnet_prune.models.family import Support
from espnet_prune.models.huggingface.blocks import BlockKind, encoder_sites
from espnet_prune.models.huggingface.conformer import BERT
from espnet_prune.models.huggingface.feature_readers import FeatureReader
from espnet_prune.sites import SiteMap

FRAMES_PER_SECOND = 50  # that its feature extractor gives


class Wav2Vec2Bert(FeatureReader):
    """Wav2Vec2-BERT by itself or with CTC, without adapter."""

    name = "wav2vec2_bert"
    title = "transformers' Wav2Vec2-BERT"
    classes = ("Wav2Vec2BertPreTrainedModel",)
    transformers_classes = {
        "Wav2Vec2BertForCTC": "Wav2Vec2BertConfig",
        "Wav2Vec2BertModel": "Wav2Vec2BertConfig",
    }
    core = "wav2vec2_bert"
    kinds = {"Wav2Vec2BertEncoderLayer": BERT}
    support = Support(
        "Wav2Vec2-BERT of transformers (`Wav2Vec2BertForCTC`, `Wav2Vec2BertModel`, without "
        "adapter; not in a recipe yet)",
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

    def feature_bins(self, core: nn.Module) -> int:
        return core.config.feature_projection_input_dim

    def core_sites(self, core: nn.Module, kind: BlockKind, reference_seconds: float) -> SiteMap:
        frames = round(reference_seconds * FRAMES_PER_SECOND)
        projected = core.feature_projection.projection.weight.numel() * frames
        layers = self.layers_of(core)
        return encoder_sites(core, layers, kind, ([], []), frames, reference_seconds, projected)


FAMILY = Wav2Vec2Bert()
