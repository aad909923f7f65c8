"""Parakeet of transformers: NVIDIA's FastConformer with CTC."""

from torch import nn

from espnet_prune.models.family import Support
from espnet_prune.models.huggingface.blocks import BlockKind, encoder_sites
from espnet_prune.models.huggingface.feature_readers import FeatureReader
from espnet_prune.models.parakeet.blocks import FAST_CONFORMER
from espnet_prune.models.parakeet.front import subsampling_sites
from espnet_prune.sites import SiteMap

FRAMES_PER_SECOND = 100  # of its features


class Parakeet(FeatureReader):
    """Parakeet's encoder, by itself or with CTC."""

    name = "parakeet"
    title = "transformers' Parakeet with CTC"
    classes = ("ParakeetForCTC", "ParakeetEncoder")
    transformers_classes = {
        "ParakeetForCTC": "ParakeetCTCConfig",
        "ParakeetEncoder": "ParakeetEncoderConfig",
    }
    core = "encoder"
    kinds = {"ParakeetEncoderBlock": FAST_CONFORMER}
    support = Support(
        "Parakeet of transformers (`ParakeetForCTC`, `ParakeetEncoder`; not in a recipe yet)",
        (
            "yes",
            "yes, both feed-forwards",
            "yes",
            "yes: those of all its convolutions",
            "macaron, attention, convolution, feed-forward",
            "yes",
        ),
    )

    def feature_bins(self, core: nn.Module) -> int:
        return core.config.num_mel_bins

    def core_sites(self, core: nn.Module, kind: BlockKind, reference_seconds: float) -> SiteMap:
        frames, bins = round(reference_seconds * FRAMES_PER_SECOND), self.feature_bins(core)
        *front, frames = subsampling_sites(core.subsampling, frames, bins)
        return encoder_sites(core, core.layers, kind, front, frames, reference_seconds, 0)


FAMILY = Parakeet()
