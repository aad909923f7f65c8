"""What families of transformers share whose models read features instead of samples."""

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from espnet_prune.errors import ModelError
from espnet_prune.models.espnet.features import features_of, least_samples, sample_rate_of
from espnet_prune.models.family import TransformersFamily
from espnet_prune.models.graphs import Graph, Inputs, Output, noise, transformers_graph
from espnet_prune.models.huggingface.blocks import BlockKind, block_matrices, check_blocks
from espnet_prune.models.huggingface.preprocessing import Preprocessing, read_preprocessing
from espnet_prune.sites import DecoderConfig, SiteMap
from espnet_prune.sites.unfit import refuse_float16
from espnet_prune.surgery.families import Layers

FRAMES = (60, 131, 16)  # at which graphs are checked; the shortest last
LONGEST_FRAMES = 16000


class FeatureReader(TransformersFamily):
    """Encoders that read features, by themselves, with a CTC layer, or in an ESPnet model.

    Attributes:
        core: attribute of a model with a CTC layer that is the rest of it.
        kinds: the kind of its blocks, by class.
        frames_per_second: of the features of a model that isn't ESPnet's.
        frontend: ESPnet's name of the front-end that makes its features.
        extractor: settings of transformers' feature extractor, and the only values that are known.
        bands: its name for the number of mel bands, and how many frames are put side by side.
    """

    core: ClassVar[str]
    kinds: ClassVar[dict[str, BlockKind]]
    frames_per_second: ClassVar[int]
    frontend: ClassVar[str]
    extractor: ClassVar[Mapping[str, Any]]
    bands: ClassVar[tuple[str, int]]
    usage = "encoder = model.encoder.model  # transformers' own class, whose output model.ctc reads"

    def core_of(self, model: nn.Module) -> nn.Module:
        """The model without a CTC layer."""
        model = getattr(getattr(model, "encoder", None), "model", model)
        return getattr(model, self.core, model)

    def layers_of(self, core: nn.Module) -> nn.ModuleList:
        """Its blocks."""
        return core.layers

    @abstractmethod
    def core_sites(
        self, core: nn.Module, kind: BlockKind, frames: int, reference_seconds: float
    ) -> SiteMap:
        """All sites and what they cost; the blocks are known to be whole.

        Args:
            core: the model without a CTC layer.
            kind: the kind of its blocks.
            frames: frames of features of the reference utterance.
            reference_seconds: its length.
        """

    @abstractmethod
    def feature_bins(self, config: Any) -> int:
        """Width of the features, by transformers' configuration of the model without CTC layer."""

    def frames_a_position(self, config: Any) -> int:
        """Frames of features for one position of the blocks; 1 by default."""
        return 1

    @abstractmethod
    def frontend_conf(self, extractor: Preprocessing) -> dict[str, Any]:
        """Options of the front-end by the settings of transformers' feature extractor."""

    @abstractmethod
    def features_graph(self, frontend: nn.Module) -> nn.Module:
        """The graph of the front-end, (1, samples) to (1, T, F)."""

    def espnet_input(self, folder: Path, config: Any) -> dict[str, Any]:
        extractor = read_preprocessing(folder, needed=True)
        extractor.expect(self.extractor)
        conf, bins = self.frontend_conf(extractor), self.feature_bins(config)
        key, stacked = self.bands
        if conf["n_mels"] * stacked != bins:
            raise ModelError(
                f"{extractor.path}: {key}: {conf['n_mels']}; expected {bins // stacked}, because "
                f"the model reads {bins} values a frame; take the file that came with its weights"
            )
        return {"frontend": self.frontend, "frontend_conf": conf}

    def sites(
        self, model: nn.Module, reference_seconds: float, decoder: DecoderConfig | None = None
    ) -> SiteMap:
        core = self.core_of(model)
        self.refuse_decoder(core, decoder)
        has_features = getattr(model, "frontend", None) is not None
        rate = features_of(model)[0] if has_features else self.frames_per_second
        frames = round(reference_seconds * rate)
        return self.core_sites(core, self._kind(core), frames, reference_seconds)

    def matrices(self, model: nn.Module) -> Layers:
        core = self.core_of(model)
        refuse_float16(core)
        return Layers(core, block_matrices(self.layers_of(core), self._kind(core)))

    def _kind(self, core: nn.Module) -> BlockKind:
        return check_blocks(self.layers_of(core), self.kinds, core.config.num_hidden_layers)

    def graphs(self, model: nn.Module) -> list[Graph]:
        core = self.core_of(model)
        if not self.is_transformers(model):
            return self._speech_graphs(model, Output(core, "last_hidden_state"))
        bins = self.feature_bins(core.config)

        def example(frames: int) -> Inputs:
            return (torch.randn(1, frames, bins, generator=noise(frames)),)

        return [transformers_graph(model, "input_features", FRAMES, LONGEST_FRAMES, example)]

    def _speech_graphs(self, model: nn.Module, encoder: nn.Module) -> list[Graph]:
        """Those of a whole ESPnet model with CTC."""
        from espnet_prune.models.espnet import graphs

        graph = graphs.SpeechGraph(model, self.features_graph(model.frontend), encoder)
        hop, about = model.frontend.hop_length, self.describe_graphs(model)
        # the graph runs with fewer samples than the exporter is told of
        tried = (*(hop * frames + hop // 3 for frames in FRAMES), about["least_samples"])
        return graphs.speech_graphs(model, graph, about, tried, FRAMES[-1] * hop)

    def describe_graphs(self, model: nn.Module) -> dict:
        from espnet_prune.models.espnet import graphs

        if self.is_transformers(model):
            return super().describe_graphs(model)
        hop = model.frontend.hop_length
        frames = {
            "sample_rate": sample_rate_of(model.espnet_prune_config),
            "least_samples": least_samples(model),
            "longest_samples": LONGEST_FRAMES * hop,
            "samples_a_frame": self.frames_a_position(self.core_of(model).config) * hop,
        }
        return graphs.describe_speech(model, frames)
