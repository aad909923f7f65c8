"""ESPnet's transducers: the prediction network and the joint network of a whole model."""

import functools
import logging
from collections.abc import Mapping
from typing import Any

from torch import nn

from espnet_prune.errors import ModelError
from espnet_prune.models.espnet.imports import importing_espnet
from espnet_prune.models.family import DecoderFamily, Support
from espnet_prune.models.graphs import Graph
from espnet_prune.models.transducer.sites import JOINT, transducer_sites
from espnet_prune.sites import DecoderConfig, SiteMap
from espnet_prune.surgery.plan import Plan

logger = logging.getLogger(__name__)


class Transducer(DecoderFamily):
    """ESPnet's TransducerDecoder and JointNetwork; the class that ``choices`` names builds both."""

    name = "transducer"
    title = "ESPnet's transducers"
    classes = ("TransducerDecoder",)
    choices = ("transducer",)
    support = Support(
        "the prediction network and the joint network of ESPnet's transducers, in the same run, if "
        "the method's key `decoder` asks for it",
        ("none there", "yes, hidden units", "none there", "none there", "none there", "none there"),
    )

    @functools.cached_property
    def cut_class(self) -> type:
        """The class of prediction networks, cut or not."""
        with importing_espnet():
            from espnet_prune.models.transducer.prediction import PrunableTransducerDecoder
        return PrunableTransducerDecoder

    def espnet_classes(self) -> Mapping[str, Mapping[str, type]]:
        return {"decoder": {self.choices[0]: self.cut_class}}

    def sites(
        self, model: nn.Module, reference_seconds: float, decoder: DecoderConfig | None = None
    ) -> SiteMap:
        """None of a prediction network by itself."""
        raise ModelError(
            f"{type(model).__name__}: a prediction network by itself can't be pruned, since the "
            "joint network reads its units; give the whole model, with the method's key `decoder`"
        )

    def decoder_sites(
        self,
        model: nn.Module,
        config: DecoderConfig,
        reference_seconds: float,
        positions: int,
        first_block: int,
    ) -> SiteMap:
        if not isinstance(model.decoder, self.cut_class):
            raise ModelError(
                f"decoder: {type(model.decoder).__name__}: its states have one width for all "
                "layers; build or load the model by espnet_prune"
            )
        return transducer_sites(model, config, reference_seconds, positions, first_block)

    def beside(self, config: Mapping[str, Any], plan: Plan) -> dict:
        """The joint network's width, by which ESPnet builds it."""
        width = len(plan.sites[JOINT].kept)
        conf = {**(config.get("joint_net_conf") or {}), "joint_space_size": width}
        return {"joint_net_conf": conf}

    def graphs(self, model: nn.Module) -> list[Graph]:
        """None: what is exported is CTC alone."""
        logger.warning("decoder: a transducer's search isn't exported; CTC alone is")
        return []


FAMILY = Transducer()
