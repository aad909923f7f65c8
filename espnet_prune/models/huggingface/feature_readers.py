"""What families of transformers share whose models read features instead of samples."""

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import nn

from espnet_prune.models.family import TransformersFamily
from espnet_prune.models.graphs import Graph, Inputs, noise, transformers_graph
from espnet_prune.models.huggingface.blocks import BlockKind, block_matrices, check_blocks
from espnet_prune.sites import DecoderConfig, SiteMap
from espnet_prune.sites.unfit import refuse_float16
from espnet_prune.surgery.families import Layers

FRAMES = (60, 131, 16)  # at which graphs are checked; the shortest last
LONGEST_FRAMES = 16000


class FeatureReader(TransformersFamily):
    """Encoders that read features, by themselves or with a CTC layer; no encoder of ESPnet yet.

    Attributes:
        core: attribute of a model with a CTC layer that is the rest of it.
        kinds: the kind of its blocks, by class.
    """

    core: ClassVar[str]
    kinds: ClassVar[dict[str, BlockKind]]

    def core_of(self, model: nn.Module) -> nn.Module:
        """The model without a CTC layer."""
        return getattr(model, self.core, model)

    def layers_of(self, core: nn.Module) -> nn.ModuleList:
        """Its blocks."""
        return core.layers

    @abstractmethod
    def core_sites(self, core: nn.Module, kind: BlockKind, reference_seconds: float) -> SiteMap:
        """All sites and what they cost; the blocks are known to be whole."""

    @abstractmethod
    def feature_bins(self, core: nn.Module) -> int:
        """Width of the features."""

    def sites(
        self, model: nn.Module, reference_seconds: float, decoder: DecoderConfig | None = None
    ) -> SiteMap:
        core = self.core_of(model)
        self.refuse_decoder(core, decoder)
        return self.core_sites(core, self._kind(core), reference_seconds)

    def matrices(self, model: nn.Module) -> Layers:
        core = self.core_of(model)
        refuse_float16(core)
        return Layers(core, block_matrices(self.layers_of(core), self._kind(core)))

    def _kind(self, core: nn.Module) -> BlockKind:
        return check_blocks(self.layers_of(core), self.kinds, core.config.num_hidden_layers)

    def graphs(self, model: nn.Module) -> list[Graph]:
        bins = self.feature_bins(self.core_of(model))

        def example(frames: int) -> Inputs:
            return (torch.randn(1, frames, bins, generator=noise(frames)),)

        return [transformers_graph(model, "input_features", FRAMES, LONGEST_FRAMES, example)]
