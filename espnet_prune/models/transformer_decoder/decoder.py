"""ESPnet's TransformerDecoder with a plan: built dense, then cut to shape."""

import contextlib
import io
from typing import Any

from espnet_prune.surgery.cut import cut_to_plan
from espnet_prune.surgery.plan import Plan

with contextlib.redirect_stderr(io.StringIO()):  # ESPnet's regret that flash_attn isn't installed
    from espnet2.asr.decoder.transformer_decoder import TransformerDecoder


class PrunedTransformerDecoder(TransformerDecoder):
    """A TransformerDecoder of the shape that a plan gives.

    Args:
        vocab_size: number of tokens.
        encoder_output_size: width of the encoder's output.
        pruned_arch: the plan, as ``Plan.to_json`` writes it.
        **conf: the dense decoder's options.

    Raises:
        ModelError: the plan isn't one, or is of another dense decoder.
    """

    def __init__(
        self,
        vocab_size: int,
        encoder_output_size: int,
        pruned_arch: dict[str, Any],
        **conf: Any,
    ) -> None:
        super().__init__(vocab_size, encoder_output_size, **conf)
        cut_to_plan(self, Plan.from_json(pruned_arch, "decoder_conf.pruned_arch"))
