"""Parakeet of transformers: NVIDIA's FastConformer with CTC."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from espnet_prune.models.family import Support
from espnet_prune.models.huggingface.blocks import BlockKind, encoder_sites
from espnet_prune.models.huggingface.feature_readers import FeatureReader
from espnet_prune.models.huggingface.preprocessing import KIND, Preprocessing
from espnet_prune.models.parakeet.blocks import FAST_CONFORMER
from espnet_prune.models.parakeet.front import SilentConv2d, subsampling_sites
from espnet_prune.sites import SiteMap

# of transformers' ParakeetFeatureExtractor: its settings by NemoFrontend's names, and its defaults
SETTINGS = {
    "fs": ("sampling_rate", 16000),
    "n_fft": ("n_fft", 512),
    "win_length": ("win_length", 400),
    "hop_length": ("hop_length", 160),
    "n_mels": ("feature_size", 80),
    "preemphasis": ("preemphasis", 0.97),
}


class Parakeet(FeatureReader):
    """Parakeet's encoder, by itself or with CTC; ``encoder: parakeet`` with ``frontend: nemo``."""

    name = "parakeet"
    title = "transformers' Parakeet with CTC"
    classes = ("ParakeetForCTC", "ParakeetEncoder", "EspnetParakeet")
    choices = ("parakeet",)
    transformers_classes = {
        "ParakeetForCTC": "ParakeetCTCConfig",
        "ParakeetEncoder": "ParakeetEncoderConfig",
    }
    core = "encoder"
    kinds = {"ParakeetEncoderBlock": FAST_CONFORMER}
    frames_per_second = 100
    frontend = "nemo"
    extractor = {KIND: "ParakeetFeatureExtractor"}
    bands = ("feature_size", 1)
    support = Support(
        "Parakeet of transformers (`ParakeetForCTC`, `ParakeetEncoder`; `encoder: parakeet` in a "
        "recipe)",
        (
            "yes",
            "yes, both feed-forwards",
            "yes",
            "yes: those of all its convolutions",
            "macaron, attention, convolution, feed-forward",
            "yes",
        ),
    )

    def feature_bins(self, config: Any) -> int:
        return config.num_mel_bins

    def core_sites(
        self, core: nn.Module, kind: BlockKind, frames: int, reference_seconds: float
    ) -> SiteMap:
        *front, frames = subsampling_sites(core.subsampling, frames, self.feature_bins(core.config))
        return encoder_sites(core, core.layers, kind, front, frames, reference_seconds, 0)

    def espnet_classes(self) -> Mapping[str, Mapping[str, type]]:
        from espnet_prune.models.parakeet.encoder import EspnetParakeet

        return {"encoder": {self.choices[0]: EspnetParakeet}}

    def frames_a_position(self, config: Any) -> int:
        return config.subsampling_factor

    def frontend_conf(self, extractor: Preprocessing) -> dict[str, Any]:
        return {name: extractor.number(*setting) for name, setting in SETTINGS.items()}

    def features_graph(self, frontend: nn.Module) -> nn.Module:
        from espnet_prune.models.nemo.graphs import NemoFilterBank

        return NemoFilterBank(frontend)

    def hears_nothing(self, model: nn.Module) -> bool:
        return any(isinstance(module, SilentConv2d) for module in model.modules())


FAMILY = Parakeet()
