"""The Conformer of ESPnet."""

from torch import nn

from espnet_prune.errors import ModelError
from espnet_prune.models.conformer.front_end import (
    ConstantFrontEnd,
    EmptyFrontEnd,
    encoder_positions,
    fitting_bins,
    padding_of,
)
from espnet_prune.models.conformer.sites import check_parts, conformer_matrices, conformer_sites
from espnet_prune.models.espnet.encoder_family import EspnetEncoder
from espnet_prune.models.espnet.imports import importing_espnet
from espnet_prune.models.family import Support
from espnet_prune.models.graphs import Graph
from espnet_prune.sites import SiteMap
from espnet_prune.sites.linear_attention import Attention
from espnet_prune.sites.weights import Matrix


class Conformer(EspnetEncoder):
    """ESPnet's ConformerEncoder."""

    name = "conformer"
    title = "ESPnet's ConformerEncoder"
    classes = ("ConformerEncoder",)
    choices = ("pruned_conformer",)
    front_ends = ("Conv2dSubsampling",)
    support = Support(
        "ESPnet `ConformerEncoder` (`rel_pos_type: latest`, `conv2d` front-end)",
        (
            "yes",
            "yes, both feed-forwards",
            "yes",
            "yes",
            "macaron, attention, convolution, feed-forward",
            "yes",
        ),
    )

    def stock_class(self) -> type:
        with importing_espnet():
            from espnet2.asr.encoder.conformer_encoder import ConformerEncoder
        return ConformerEncoder

    def encoder_sites(
        self,
        encoder: nn.Module,
        reference_seconds: float,
        frames_per_second: float,
        feature_bins: int | None,
    ) -> SiteMap:
        check_parts(encoder, self.front_ends)
        return conformer_sites(encoder, reference_seconds, frames_per_second, feature_bins)

    def encoder_matrices(self, encoder: nn.Module) -> list[Matrix]:
        check_parts(encoder, self.front_ends, dense=False)
        return conformer_matrices(encoder)

    def encoder_attentions(self, encoder: nn.Module) -> list[Attention]:
        check_parts(encoder, self.front_ends)
        return [(f"block.{i}.softmax", i, layer) for i, layer in enumerate(encoder.encoders)]

    def positions(self, encoder: nn.Module, frames: int) -> int:
        return encoder_positions(frames, padding_of(encoder.embed))

    def options(self, encoder: nn.Module) -> dict:
        check_parts(encoder, self.front_ends)
        layers, embed = encoder.encoders, encoder.embed
        layer = layers[0]
        widths = fitting_bins(embed.out.in_features // embed.conv[2].out_channels)
        return {
            "input_size": widths if len(widths) > 1 else widths[0],
            "output_size": encoder.output_size(),
            "attention_heads": layer.self_attn.h,
            "linear_units": layer.feed_forward.w_1.out_features,
            "num_blocks": len(layers),
            "dropout_rate": float(layer.dropout.p),
            "positional_dropout_rate": float(embed.pos_enc.dropout.p),
            "attention_dropout_rate": float(layer.self_attn.dropout.p),
            "stochastic_depth_rate": [float(block.stochastic_depth_rate) for block in layers],
            "layer_drop_rate": float(layers.layer_drop_rate),
            "macaron_style": layer.feed_forward_macaron is not None,
            "rel_pos_type": "latest",
            "cnn_module_kernel": layer.conv_module.depthwise_conv.kernel_size[0],
            "activation_type": _activation_name(layer.conv_module.activation),
            "zero_triu": layer.self_attn.zero_triu,
            "use_sdpa": layer.self_attn.use_sdpa,
        }

    def hears_nothing(self, model: nn.Module) -> bool:
        front_end = getattr(model.encoder.embed, "conv", None)
        return isinstance(front_end, (EmptyFrontEnd, ConstantFrontEnd))

    def speed_up(self, model: nn.Module, search=None) -> None:
        from espnet_prune.models.conformer.fast_encoder import speed_up

        speed_up(model.encoder)

    def graphs(self, model: nn.Module) -> list[Graph]:
        from espnet_prune.models.conformer import graphs

        if self.encoder_of(model) is model:
            return [graphs.encoder_graph(model, self.describe(model)["input_size"])]
        self._check_front_end(model)
        return graphs.speech_graphs(model, self.features_graph(model.frontend))

    def features_graph(self, frontend: nn.Module) -> nn.Module:
        """The graph of a whole model's front-end, (1, samples) to (1, T, F)."""
        from espnet_prune.models.espnet.graphs import FilterBank

        return FilterBank(frontend)

    def describe_graphs(self, model: nn.Module) -> dict:
        from espnet_prune.models.conformer import graphs

        if self.encoder_of(model) is model:
            return {"kind": f"{self.name}_encoder"}
        self._check_front_end(model)
        return graphs.describe(model)

    def _check_front_end(self, model: nn.Module) -> None:
        found = type(model.encoder.embed).__name__
        if found not in self.front_ends:
            raise ModelError(
                f"input_layer: {found}, whose frames aren't known; expected "
                f"{' or '.join(self.front_ends)}"
            )


def _activation_name(activation: nn.Module) -> str:
    name = type(activation).__name__.lower()
    return "swish" if name == "silu" else name


FAMILY = Conformer()
