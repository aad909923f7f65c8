"""ESPnet's ConformerEncoder with a plan: built dense, then cut to shape."""

import contextlib
import io
from typing import Any

from espnet_prune.surgery.cut import cut_to_plan
from espnet_prune.surgery.plan import Plan

with contextlib.redirect_stderr(io.StringIO()):  # ESPnet's regret that flash_attn isn't installed
    from espnet2.asr.encoder.conformer_encoder import ConformerEncoder


class PrunedConformerEncoder(ConformerEncoder):
    """A ConformerEncoder of the shape that a plan gives.

    Args:
        input_size: width of the features.
        pruned_arch: the plan, as ``Plan.to_json`` writes it.
        **conf: the dense encoder's options.

    Raises:
        ModelError: the plan isn't one, or is of another dense encoder.
    """

    def __init__(self, input_size: int, pruned_arch: dict[str, Any], **conf: Any) -> None:
        super().__init__(input_size, **conf)
        cut_to_plan(self, Plan.from_json(pruned_arch, "encoder_conf.pruned_arch"))


def build_encoder(config: dict) -> ConformerEncoder:
    """A ConformerEncoder from its options, cut where they hold a plan."""
    kind = PrunedConformerEncoder if "pruned_arch" in config else ConformerEncoder
    encoder = kind(**config)
    encoder.espnet_prune_config = {k: v for k, v in config.items() if k != "pruned_arch"}
    return encoder
