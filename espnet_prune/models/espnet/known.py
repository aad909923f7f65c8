"""Whether the model of an ESPnet configuration can be pruned, asked before anything is loaded."""

from collections.abc import Mapping
from typing import Any

from espnet_prune.errors import ModelError
from espnet_prune.models import families
from espnet_prune.models.espnet.encoder_family import EspnetEncoder
from espnet_prune.models.family import ModelFamily

ESPNET_DEFAULT = "rnn"  # its encoder where none is named
# other parts: what is known, ESPnet's default first
PARTS = {
    "model": ("espnet",),
    "frontend": ("default", None),
    "preencoder": (None,),
    "postencoder": (None,),
}
OTHER_DECODERS = ("transducer", "linear_decoder", "mlm")  # their losses and searches are others


def check_model(config: Mapping[str, Any], where: str) -> ModelFamily:
    """The family of a configuration's encoder, where all other parts are known as well.

    Args:
        config: what ESPnet's training reads, or wrote to config.yaml.
        where: the file, for errors.

    Raises:
        ModelError: a part that can't be pruned, or joined with pruning; it names what is known,
            and where more is added.
    """
    family = check_encoder(config, where)
    frontends = [name for each in families() for name in each.espnet_classes().get("frontend", {})]
    for part, known in PARTS.items():
        known = (*known, *frontends) if part == "frontend" else known
        value = config.get(part, known[0])
        if value not in known:
            raise ModelError(
                f"{where}: {part}: {value} can't be joined with pruning; known are "
                f"{', '.join(map(str, known))}"
            )
    if config.get("decoder") in OTHER_DECODERS:
        raise ModelError(
            f"{where}: decoder: {config['decoder']} can't be joined with pruning; known are "
            "attention decoders, such as transformer, and none, for CTC alone"
        )
    return family


def check_encoder(config: Mapping[str, Any], where: str) -> ModelFamily:
    """The family of a configuration's encoder.

    Raises:
        ModelError: an encoder, attention or front-end whose cutting rules aren't known.
    """
    choice = config.get("encoder", ESPNET_DEFAULT)
    known = {name: family for family in families() for name in _encoder_names(family)}
    if choice not in known:
        raise ModelError(
            f"{where}: encoder: {choice} can't be pruned; known are {', '.join(sorted(known))}. A "
            "family is added in espnet_prune/models/"
        )
    family = known[choice]
    if isinstance(family, EspnetEncoder):
        family.check_options(config.get("encoder_conf") or {}, where)
    return family


def _encoder_names(family: ModelFamily) -> list[str]:
    """What ESPnet calls a family's encoders."""
    own = [name for name in family.choices if name in family.espnet_classes().get("encoder", {})]
    return own + ([family.stock_choice] if isinstance(family, EspnetEncoder) else [])
