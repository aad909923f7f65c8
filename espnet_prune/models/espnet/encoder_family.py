"""ESPnet's own encoders: what their families share, and how one is saved by itself.

A cut encoder is ESPnet's class with a plan among its options: built dense, then cut to shape, so
that stock ``Speech2Text`` loads its weights.
"""

import functools
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from espnet_prune.budget.structure import CostTerm
from espnet_prune.errors import ModelError
from espnet_prune.models.espnet.features import features_of, run_encoder
from espnet_prune.models.espnet.front_end import (
    SUBSAMPLING,
    ConstantFrontEnd,
    EmptyFrontEnd,
    check_input_layer,
    fits,
    positions_of,
)
from espnet_prune.models.espnet.options import position_encoding
from espnet_prune.models.espnet.parts import Part, Place, is_there
from espnet_prune.models.espnet.stack import encoder_site_map, hidden_states, stack_matrices
from espnet_prune.models.family import DecoderFamily, Encoded, ModelFamily
from espnet_prune.models.graphs import Graph
from espnet_prune.sites import DecoderConfig, SiteMap
from espnet_prune.sites.linear_attention import Attention
from espnet_prune.sites.weights import Matrix
from espnet_prune.surgery.cut import cut_to_plan
from espnet_prune.surgery.families import Format, Layers, find_family
from espnet_prune.surgery.plan import Plan, plan_of

CONFIG_ATTRIBUTE = "espnet_prune_config"
PLAN = "pruned_arch"  # the option that holds a plan


def cut_class(stock: type, part: str) -> type:
    """A class of ESPnet whose option ``pruned_arch`` is a plan that it is cut to once it is built.

    Args:
        stock: the class.
        part: ``encoder`` or ``decoder``, whose options errors name.
    """

    class Pruned(stock):
        def __init__(self, *sizes: int, pruned_arch: Mapping[str, Any], **conf: Any) -> None:
            super().__init__(*sizes, **conf)
            cut_to_plan(self, Plan.from_json(pruned_arch, f"{part}_conf.{PLAN}"))

    Pruned.__name__ = Pruned.__qualname__ = f"Pruned{stock.__name__}"
    return Pruned


def front_ends(known: Mapping[str, tuple]) -> str:
    """The cell of a support matrix for the front-ends among the options that are known."""
    return "yes: " + ", ".join(f"`{name}`" for name in known["input_layer"] if name in SUBSAMPLING)


class EspnetEncoder(ModelFamily):
    """An encoder of ESPnet, alone or in a whole model.

    Attributes:
        stock_choice: ESPnet's own name of it.
        known: values of its options whose cutting rules are known; ESPnet's default is first.
        parts: attributes of a block whose matrices may lose single weights.
        branches: those of a block, in the order in which they are cut: attributes of the part and
            of its norm, and what makes its sites.
        norms_between: whether intermediate CTC hears the stream by the encoder's last norm.
    """

    prunes_again = True
    choices: ClassVar[tuple[str, ...]]
    stock_choice: ClassVar[str]
    known: ClassVar[Mapping[str, tuple]] = {}
    parts: ClassVar[tuple[str, ...]]
    branches: ClassVar[Mapping[str, tuple[str, str, Callable[[Place], Part]]]] = {}
    norms_between: ClassVar[bool] = True

    @abstractmethod
    def stock_class(self) -> type:
        """ESPnet's class, which is imported here."""

    def block_parts(
        self, layer: nn.Module, index: int, positions: int, block: str | None
    ) -> tuple[list[Part], list[CostTerm]]:
        """The parts of a block, and what its units cost outside them.

        Args:
            layer: the block.
            index: its index.
            positions: frames of the reference utterance in the encoder.
            block: name of its site; None where it can't go.

        Raises:
            ModelError: a part whose cutting rules aren't known, or one already cut.
        """
        if layer.concat_after:
            raise ModelError(f"block {index}: concat_after: true can't be pruned; leave it out")
        parts = []
        for branch, (attribute, norm, make) in self.branches.items():
            if is_there(getattr(layer, attribute)):
                norm = norm if layer.normalize_before else None
                parts.append(make(Place(layer, index, attribute, norm, branch, positions, block)))
        return parts, []

    @abstractmethod
    def options(self, encoder: nn.Module) -> dict:
        """The options that build an encoder of this one's dense shape, read off it.

        ``input_size`` may be a list of the widths of features that fit it.

        Raises:
            ModelError: a part of it isn't known, or it was cut and no longer shows them.
        """

    def check(self, encoder: nn.Module) -> None:
        """ModelError for what its parts don't show; by default, CTC that trims the stream."""
        check_input_layer(encoder.embed)
        position_encoding(encoder)
        if getattr(encoder, "ctc_trim", False):
            raise ModelError("ctc_trim: true can't be joined with pruning; leave it out")
        if getattr(encoder, "gradient_checkpoint_layers", None):
            raise ModelError(
                "encoder: gradient checkpointing computes layers again after their masks are gone; "
                "leave gradient_checkpoint_layers empty"
            )

    def check_options(self, conf: Mapping[str, Any], where: str) -> None:
        """ModelError for an option of ESPnet's configuration whose cutting rules aren't known.

        Args:
            conf: ``encoder_conf``.
            where: the file, for errors.
        """
        for key, values in self.known.items():
            value = conf.get(key, values[0])
            if value not in values:
                raise ModelError(
                    f"{where}: encoder_conf: {key}: {value!r} can't be pruned; known are "
                    f"{', '.join(map(str, values))}. One is added in espnet_prune/models/espnet/"
                )

    def encoder_sites(
        self,
        encoder: nn.Module,
        reference_seconds: float,
        frames_per_second: float,
        feature_bins: int | None,
    ) -> SiteMap:
        """All sites of an encoder and what they cost.

        Args:
            encoder: the encoder; nothing in it is changed.
            reference_seconds: length of the utterance that MACs are counted for.
            frames_per_second: rate of the features.
            feature_bins: width of the features; None for what the front-end implies.

        Raises:
            ModelError: a part whose cutting rules aren't known, which says the setting; float16,
                or a matrix that is tied to another.
        """
        self.check(encoder)
        about = (reference_seconds, frames_per_second, feature_bins)
        return encoder_site_map(encoder, self.block_parts, *about, **self.about_stack(encoder))

    def about_stack(self, encoder: nn.Module) -> dict:
        """What ``encoder_site_map`` must know of such a stack besides; by default nothing."""
        return {}

    def encoder_matrices(self, encoder: nn.Module) -> list[Matrix]:
        """The matrices of its attention and feed-forward parts."""
        self.check(encoder)
        for index, layer in enumerate(encoder.encoders):  # which refuses what isn't known
            self.block_parts(layer, index, 1, None)
        return stack_matrices(encoder, self.parts)

    def encoder_attentions(self, encoder: nn.Module) -> list[Attention]:
        """The blocks that attend by softmax, with relative positions."""
        return super().attentions(encoder).layers

    def positions(self, encoder: nn.Module, frames: int) -> int:
        """Length of its output for so many frames of features."""
        return positions_of(encoder, frames)

    @functools.cached_property
    def cut_class(self) -> type:
        """The class of cut encoders."""
        return cut_class(self.stock_class(), "encoder")

    def encode(self, model: nn.Module, feats: Tensor, lengths: Tensor) -> Encoded:
        (output, lengths, heard), hidden = hidden_states(
            model.encoder, lambda: run_encoder(model, feats, lengths)
        )
        return Encoded(output, lengths, hidden, [stream for _, stream in heard])

    def hears_nothing(self, model: nn.Module) -> bool:
        front_end = getattr(model.encoder.embed, "conv", None)
        return isinstance(front_end, (EmptyFrontEnd, ConstantFrontEnd))

    def graphs(self, model: nn.Module) -> list[Graph]:
        from espnet_prune.models.espnet import encoder_graphs

        if self.encoder_of(model) is model:
            size = self.describe(model)["input_size"]
            return [encoder_graphs.encoder_graph(model, self.stream_graph(model), size)]
        features = self.features_graph(model.frontend)
        return encoder_graphs.speech_graphs(model, features, self.stream_graph(model))

    def stream_graph(self, model: nn.Module) -> nn.Module:
        """The graph of the encoder, alone or of a whole model: (1, T, F) to (1, T', D)."""
        from espnet_prune.models.espnet.encoder_graphs import EncoderGraph

        ctc = getattr(model, "ctc", None)
        return EncoderGraph(self.encoder_of(model), ctc, self.norms_between)

    def features_graph(self, frontend: nn.Module) -> nn.Module:
        """The graph of a whole model's front-end, (1, samples) to (1, T, F)."""
        from espnet_prune.models.espnet.graphs import FilterBank

        return FilterBank(frontend)

    def describe_graphs(self, model: nn.Module) -> dict:
        from espnet_prune.models.espnet import encoder_graphs

        if self.encoder_of(model) is model:
            return {"kind": f"{self.name}_encoder"}
        return encoder_graphs.describe(model)

    def espnet_classes(self) -> Mapping[str, Mapping[str, type]]:
        return {"encoder": {self.choices[0]: self.cut_class}}

    def chooses_decoder(self, model: nn.Module) -> bool:
        return getattr(model, "decoder", None) is not None

    def sites(
        self, model: nn.Module, reference_seconds: float, decoder: DecoderConfig | None = None
    ) -> SiteMap:
        encoder, (rate, bins) = self.encoder_of(model), features_of(model)
        site_map = self.encoder_sites(encoder, reference_seconds, rate, bins)
        if decoder is None:
            return site_map
        found = getattr(model, "decoder", None)
        family = find_family(found)
        if not isinstance(family, DecoderFamily):
            what = "no decoder" if found is None else f"a {type(found).__name__}"
            raise ModelError(
                f"decoder: the model has {what}, expected `decoder: transformer` or `transducer`; "
                "leave the method's key `decoder` out to prune the encoder alone"
            )
        positions = self.positions(encoder, round(reference_seconds * rate))
        blocks = len(encoder.encoders)
        return site_map.joined_with(
            family.decoder_sites(model, decoder, reference_seconds, positions, blocks)
        )

    def matrices(self, model: nn.Module) -> Layers:
        encoder = self.encoder_of(model)
        return Layers(encoder, self.encoder_matrices(encoder))

    def attentions(self, model: nn.Module) -> Layers:
        encoder = self.encoder_of(model)
        return Layers(encoder, self.encoder_attentions(encoder))

    def encoder_of(self, model: nn.Module) -> nn.Module:
        """The encoder itself, or that of a whole model."""
        return model if find_family(model) is self else model.encoder

    def describe(self, encoder: nn.Module) -> dict:
        """The options that build an encoder of this one's dense shape: its own, or read off it.

        Its attribute ``input_size`` says the features' width where there is one. The module
        itself shows the width only up to rounding.

        Raises:
            ModelError: as ``options``; or its ``input_size`` doesn't fit it.
        """
        options = dict(getattr(encoder, CONFIG_ATTRIBUTE, None) or self.options(encoder))
        size = getattr(encoder, "input_size", None)
        if size is None:
            return options
        known = options.get("input_size", size)
        if not fits(encoder.embed, size, known[0] if isinstance(known, list) else known):
            raise ModelError(
                f"{type(encoder).__name__}.input_size: {size} doesn't fit its first layers; "
                f"expected {known}, the width of the features"
            )
        return {**options, "input_size": size}


class BareEncoder(Format):
    """An encoder of ESPnet that is saved by itself, with its options.

    Args:
        family: the encoder's.
    """

    def __init__(self, family: EspnetEncoder) -> None:
        self.family = family
        self.kind = f"{family.name}_encoder"

    def owns(self, model: nn.Module) -> bool:
        return find_family(model) is self.family

    def describe(self, model: nn.Module) -> dict:
        plan = plan_of(model)
        options = self.family.describe(model)
        return options if plan is None else {**options, PLAN: plan.to_json()}

    def build(self, config: Mapping) -> nn.Module:
        """An encoder from its options, cut where they hold a plan.

        Raises:
            ModelError: an option is unknown, missing or of another type; a plan of another model.
        """
        from espnet_prune.models.espnet.build import naming_what_fails

        family = self.family
        kind = family.cut_class if PLAN in config else family.stock_class()
        with naming_what_fails():
            size = config.get("input_size")
            encoder = kind(**{**config, "input_size": size[0] if isinstance(size, list) else size})
        setattr(encoder, CONFIG_ATTRIBUTE, {k: v for k, v in config.items() if k != PLAN})
        return encoder

    def remember(self, model: nn.Module) -> None:
        setattr(model, CONFIG_ATTRIBUTE, self.family.describe(model))
