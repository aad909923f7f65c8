"""Whether the model of an ESPnet configuration can be pruned, asked before anything is loaded."""

from collections.abc import Mapping
from typing import Any

from espnet_prune.errors import ModelError
from espnet_prune.models import families
from espnet_prune.models.espnet.encoder_family import EspnetEncoder
from espnet_prune.models.family import ModelFamily

BLANK = "<blank>"  # ESPnet's name of it by default
ESPNET_MODEL = "espnet"  # its kind of models where none is named
ESPNET_DEFAULT = "rnn"  # its encoder where none is named
# other parts: what is known, ESPnet's default first; which model it is, the encoder's family says
PARTS = {
    "frontend": ("default", None),
    "preencoder": (None,),
    "postencoder": (None,),
}
OTHER_DECODERS = ("linear_decoder", "mlm")  # their losses and searches are others
TRANSDUCER = "transducer"


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
    model = config.get("model", ESPNET_MODEL)
    if model != family.model_choice:
        raise ModelError(
            f"{where}: model: {model} can't be pruned with encoder: {config.get('encoder')}; "
            f"known is model: {family.model_choice}"
        )
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
            "attention decoders, such as transformer, transducer, and none, for CTC alone"
        )
    if config.get("decoder") == TRANSDUCER:
        _check_transducer(config, where)
    return family


def _check_transducer(config: Mapping[str, Any], where: str) -> None:
    """ModelError for a transducer whose loss or search is another."""
    conf = config.get("model_conf") or {}
    if conf.get("transducer_multi_blank_durations"):
        raise ModelError(
            f"{where}: model_conf: transducer_multi_blank_durations: a transducer with several "
            "blanks can't be joined with pruning; leave it out"
        )
    blank, tokens = conf.get("sym_blank", BLANK), config.get("token_list")
    if isinstance(tokens, list) and (not tokens or tokens[0] != blank):
        raise ModelError(
            f"{where}: token_list: {blank} isn't its first token, where ESPnet's transducers have "
            "their blank"
        )


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
