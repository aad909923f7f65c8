"""ESPnet's ConformerEncoder with a plan: built dense, then cut to shape."""

import contextlib
import io
from collections.abc import Iterator, Mapping
from typing import Any

from typeguard import TypeCheckError

from espnet_prune.errors import ModelError
from espnet_prune.surgery.cut import cut_to_plan
from espnet_prune.surgery.plan import Plan

with contextlib.redirect_stderr(io.StringIO()):  # ESPnet's regret that flash_attn isn't installed
    from espnet2.asr.encoder.conformer_encoder import ConformerEncoder


UNBUILDABLE = (
    AssertionError,
    ArithmeticError,
    AttributeError,
    LookupError,
    OSError,
    RuntimeError,
    TypeCheckError,
    TypeError,
    ValueError,
)


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


@contextlib.contextmanager
def naming_what_fails() -> Iterator[None]:
    """Whatever ESPnet's constructors raise at an option that they don't take is a ModelError."""
    try:
        yield
    except UNBUILDABLE as error:
        raise ModelError(f"ESPnet can't build the model of this configuration: {error}") from error


def build_encoder(config: Mapping) -> ConformerEncoder:
    """A ConformerEncoder from its options, cut where they hold a plan.

    Args:
        config: its options; ``input_size`` may be a list of widths, of which any builds it.

    Raises:
        ModelError: an option is unknown, missing or of another type; a plan of another model.
    """
    kind = PrunedConformerEncoder if "pruned_arch" in config else ConformerEncoder
    with naming_what_fails():
        size = config.get("input_size")
        encoder = kind(**{**config, "input_size": size[0] if isinstance(size, list) else size})
    encoder.espnet_prune_config = {k: v for k, v in config.items() if k != "pruned_arch"}
    return encoder
