"""ESPnet's own encoders: what their families share, and how one is saved by itself.

A cut encoder is ESPnet's class with a plan among its options: built dense, then cut to shape, so
that stock ``Speech2Text`` loads its weights.
"""

import functools
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn

from espnet_prune.errors import ModelError
from espnet_prune.models.espnet.features import features_of
from espnet_prune.models.family import DecoderFamily, ModelFamily
from espnet_prune.sites import DecoderConfig, SiteMap
from espnet_prune.sites.linear_attention import Attention
from espnet_prune.sites.weights import Matrix
from espnet_prune.surgery.cut import cut_to_plan
from espnet_prune.surgery.families import Attentions, Format, Matrices, find_family
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


class EspnetEncoder(ModelFamily):
    """An encoder of ESPnet, alone or in a whole model."""

    choices: ClassVar[tuple[str, ...]]

    @abstractmethod
    def stock_class(self) -> type:
        """ESPnet's class, which is imported here."""

    @abstractmethod
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

    @abstractmethod
    def encoder_matrices(self, encoder: nn.Module) -> list[Matrix]:
        """The matrices of its attention and feed-forward parts."""

    def encoder_attentions(self, encoder: nn.Module) -> list[Attention]:
        """The blocks that attend by softmax, with relative positions."""
        return super().attentions(encoder).layers

    @abstractmethod
    def positions(self, encoder: nn.Module, frames: int) -> int:
        """Length of its output for so many frames of features."""

    @abstractmethod
    def options(self, encoder: nn.Module) -> dict:
        """The options that build an encoder of this one's dense shape, read off it.

        ``input_size`` may be a list of the widths of features that fit it.

        Raises:
            ModelError: a part of it isn't known, or it was cut and no longer shows them.
        """

    @functools.cached_property
    def cut_class(self) -> type:
        """The class of cut encoders."""
        return cut_class(self.stock_class(), "encoder")

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
                f"decoder: the model has {what}, expected `decoder: transformer`; leave the "
                "method's key `decoder` out to prune the encoder alone"
            )
        positions = self.positions(encoder, round(reference_seconds * rate))
        blocks = 1 + max(s.block for s in site_map.sites.values() if s.block is not None)
        return site_map.joined_with(
            family.decoder_sites(found, decoder, reference_seconds, positions, blocks)
        )

    def matrices(self, model: nn.Module) -> Matrices:
        encoder = self.encoder_of(model)
        return Matrices(encoder, self.encoder_matrices(encoder))

    def attentions(self, model: nn.Module) -> Attentions:
        encoder = self.encoder_of(model)
        return Attentions(encoder, self.encoder_attentions(encoder))

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
        fits = known[0] if isinstance(known, list) else known
        if self.positions(encoder, size) != self.positions(encoder, fits):
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
