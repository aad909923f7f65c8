"""Sites of the convolutional feature extractor of wav2vec 2.0 and HuBERT: its layers' channels.

A channel of a layer is masked at the columns of what reads it, the next convolution or the
projection into the Transformer, and cut from its own convolution and norm too. Whether masked
equals cut depends on the norms between:

- none, or a group norm with a group for each channel (layer 0 of the base models, over time):
  each channel for itself, nothing else changes;
- layer norms over the channels (all layers of the large models; and of every model that behind the
  last layer, before the projection): one channel changes the mean and variance of all. They are
  therefore taken over the open channels alone, which is what the cut norm does.

So the last layer is prunable as well. A soft mask scales what is read, never those statistics.
Layer l costs kernel x channels(l-1) x channels(l) at each of its own frames, of which the first
layers, before most of the strides, have the most. The paper prunes none of it; these sites are
gated only where a method's ``sites`` name ``front_end_channel``.
"""

from torch import Tensor, nn

from espnet_prune.budget.structure import CostTerm
from espnet_prune.errors import ModelError
from espnet_prune.models.huggingface.fronts import FRONT_END, SilentConvolution
from espnet_prune.sites import masked, norm
from espnet_prune.sites.base import FRONT_END_CHANNEL

DENSE = "espnet_prune_dense_channels"  # attribute of a feature extractor that was cut


class FeatureChannelSite(norm.NormedSite):
    """Output channels of one layer of the feature extractor.

    Args:
        model: the wav2vec 2.0 or HuBERT model.
        index: index of the layer.
    """

    def __init__(self, model: nn.Module, index: int) -> None:
        self.extractor = model.feature_extractor
        self.projection = model.feature_projection
        self.config = model.config
        self.index = index
        layers = self.extractor.conv_layers
        self.layer = layers[index]
        self.is_last = index == len(layers) - 1
        super().__init__(
            f"{FRONT_END}.{index}",
            FRONT_END_CHANNEL,
            self.layer.conv.out_channels,
            consumer=self.projection.projection if self.is_last else layers[index + 1].conv,
        )

    def norms(self) -> list[nn.LayerNorm]:
        found = [getattr(self.layer, "layer_norm", None)]
        if self.is_last:
            found.append(getattr(self.projection, "layer_norm", None))
        return [each for each in found if isinstance(each, nn.LayerNorm)]

    def layers(self) -> list[nn.Module]:
        return [self.layer.conv, self.consumer]

    def unit_weights(self) -> list[Tensor]:
        return [self.layer.conv.weight]

    def made_by(self) -> list[Tensor]:
        norms = [getattr(self.layer, "layer_norm", None)]
        norms += [getattr(self.projection, "layer_norm", None)] if self.is_last else []
        made_by = [self.layer.conv, *(each for each in norms if each is not None)]
        return [t.detach() for m in made_by for t in (m.weight, m.bias) if t is not None]

    def cut(self, kept: Tensor, values: Tensor) -> None:
        """Cuts the channels; layers must be cut in order."""
        if self.is_last or len(kept):
            self.cut_consumer(kept, values)
        else:
            reader = self.extractor.conv_layers[self.index + 1]
            reader.conv = SilentConvolution(reader.conv, reader.conv.out_channels)
        self._cut_norms(kept)
        if len(kept) == 0:
            self.layer.conv = SilentConvolution(self.layer.conv, 0)
        elif isinstance(self.layer.conv, SilentConvolution):
            self.layer.conv.keep(kept)
        else:
            masked.keep_outputs(self.layer.conv, kept)
        self._tell_config(len(kept))
        if not self.extractor._requires_grad:  # frozen: its new tensors too
            self.extractor._freeze_parameters()

    def _cut_norms(self, kept: Tensor) -> None:
        own = getattr(self.layer, "layer_norm", None)
        if isinstance(own, nn.GroupNorm) and not len(kept):
            self.layer.layer_norm = nn.Identity()  # which can't have 0 groups
        elif isinstance(own, nn.GroupNorm):
            own.num_groups = len(kept)
            norm.keep(own, kept)
        for layer_norm in self.norms():
            norm.keep(layer_norm, kept)

    def _tell_config(self, width: int) -> None:
        """transformers builds layers of any widths, if its configuration names them."""
        dense = list(getattr(self.extractor, DENSE, self.config.conv_dim))
        dense[self.index] = self.units
        setattr(self.extractor, DENSE, dense)
        widths = list(self.config.conv_dim)
        widths[self.index] = width
        self.config.conv_dim = widths


def dense_channels(model: nn.Module) -> list[int] | None:
    """Channels of each layer before the cut; None where the extractor was never cut."""
    return getattr(model.feature_extractor, DENSE, None)


def check_feature_extractor(model: nn.Module) -> None:
    """ModelError for norms whose rules aren't known."""
    for index, layer in enumerate(model.feature_extractor.conv_layers):
        found = getattr(layer, "layer_norm", None)
        each = isinstance(found, nn.GroupNorm) and found.num_groups == found.num_channels
        if not (found is None or each or isinstance(found, nn.LayerNorm)):
            raise ModelError(
                f"{FRONT_END}.{index}: {found}, whose cutting rules aren't known; expected a layer "
                "norm, or a group norm with a group for each channel"
            )


def front_sites(model: nn.Module, samples: int) -> tuple[list[FeatureChannelSite], list[CostTerm]]:
    """The sites of the feature extractor, and its costs up to the projection's bias.

    Args:
        model: a wav2vec 2.0 or HuBERT model.
        samples: number of samples of the reference utterance.

    Raises:
        ModelError: a norm whose rules aren't known.
    """
    check_feature_extractor(model)
    sites, terms, before = [], [], ()
    for index, layer in enumerate(model.feature_extractor.conv_layers):
        convolution = layer.conv
        kernel = convolution.kernel_size[0]
        samples = (samples - kernel) // convolution.stride[0] + 1
        site = FeatureChannelSite(model, index)
        sites.append(site)
        terms.append(CostTerm(kernel, kernel * samples, (*before, site.name)))
        others = sum(t[0].numel() for t in site.unit_rows()) - convolution.weight[0].numel()
        if site.is_last:
            size = site.consumer.out_features
            terms.append(CostTerm(others + size, size * samples, (site.name,)))
        else:
            terms.append(CostTerm(others, 0, (site.name,)))
        before = (site.name,)
    return sites, terms
