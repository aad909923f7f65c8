"""Whole ESPnet models as ``save`` describes them: their configuration, their cut's plan in it."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from espnet_prune.errors import ModelError
from espnet_prune.models.espnet.encoder_family import CONFIG_ATTRIBUTE, PLAN
from espnet_prune.models.espnet.folder import remove_outdated
from espnet_prune.models.graph_names import TRAINED_SECONDS
from espnet_prune.sites import DECODER
from espnet_prune.surgery.families import Format, find_family
from espnet_prune.surgery.plan import plan_of

# what of an ESPnet configuration makes the model; the rest steers training
MODEL_KEYS = (
    "token_list token_type bpemodel init input_size ctc_conf joint_net_conf frontend frontend_conf "
    "specaug specaug_conf normalize normalize_conf model model_conf preencoder preencoder_conf "
    "encoder encoder_conf postencoder postencoder_conf decoder decoder_conf"
).split() + [TRAINED_SECONDS]


class EspnetFormat(Format):
    """An ESPnetASRModel made by ``models.espnet.build``, or cut from one."""

    kind = "espnet_asr"

    def owns(self, model: nn.Module) -> bool:
        return any(kind.__name__ == "AbsESPnetModel" for kind in type(model).__mro__)

    def describe(self, model: nn.Module) -> dict:
        return espnet_config(model)

    def build(self, config: Mapping) -> nn.Module:
        from espnet_prune.models.espnet.build import build_asr_model

        return build_asr_model(config)

    def clear(self, folder: Path, state: Mapping[str, Tensor]) -> None:
        remove_outdated(folder, state)


def espnet_config(model: nn.Module) -> dict:
    """The ESPnet configuration of a model, its plan included where it was cut.

    Raises:
        ModelError: the model doesn't carry its configuration.
    """
    config = getattr(model, CONFIG_ATTRIBUTE, None)
    if config is None:
        raise ModelError(
            f"{type(model).__name__} doesn't carry its configuration; build it by "
            "espnet_prune.models.espnet.build, or set model.espnet_prune_config to the dict of its "
            "ESPnet config.yaml"
        )
    config = {key: config[key] for key in MODEL_KEYS if key in config}
    if config.get("normalize_conf"):  # the weights have the statistics; the file is the training's
        own = {k: v for k, v in config["normalize_conf"].items() if k != "stats_file"}
        config["normalize_conf"] = own
    plan = plan_of(model)
    rebuilt = getattr(model.encoder, "saved_conf", None)
    if rebuilt is not None:  # a pretrained encoder, whose configuration named where it came from
        config["encoder_conf"] = rebuilt()
        decoder = getattr(model.decoder, "saved_conf", None)
        if decoder is not None:
            config["decoder_conf"] = decoder()
        if plan is not None:  # of the encoder, or of both
            (config if decoder else config["encoder_conf"])[PLAN] = plan.to_json()
    elif plan is not None:
        for part, own in (("encoder", plan.without(DECODER)), ("decoder", plan.part(DECODER))):
            if own is not None:
                choice = find_family(getattr(model, part)).choices[0]
                conf = {**(config.get(f"{part}_conf") or {}), PLAN: own.to_json()}
                config.update({part: choice, f"{part}_conf": conf})
    return config
