"""Whole ESPnet models as ``save`` describes them: their configuration, their cut's plan in it."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from torch import Tensor, nn

from espnet_prune.errors import ModelError
from espnet_prune.models.espnet.encoder_family import CONFIG_ATTRIBUTE, PLAN
from espnet_prune.models.espnet.folder import remove_outdated
from espnet_prune.models.espnet.teacher import (
    EspnetTeacher,
    is_saved,
    open_saved,
    open_trained,
)
from espnet_prune.models.espnet.trained import is_trained
from espnet_prune.models.family import DecoderFamily
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
    origins = (
        "the folder of an ESPnet experiment or one of its .pth files, a .zip of its model zoo, its "
        "name on the hub, a folder that espnet_prune.save wrote"
    )

    def owns(self, model: nn.Module) -> bool:
        return _is(model, "AbsESPnetModel") and not _is(model, S2tFormat.model)

    def describe(self, model: nn.Module) -> dict:
        return espnet_config(model)

    def build(self, config: Mapping) -> nn.Module:
        from espnet_prune.models.espnet.build import build_asr_model

        return build_asr_model(config)

    def is_origin(self, source: str) -> bool:
        return is_saved(source) or is_trained(source)

    def open_origin(self, source: str) -> AbstractContextManager[EspnetTeacher]:
        return open_saved(source) if is_saved(source) else open_trained(source)

    def clear(self, folder: Path, state: Mapping[str, Tensor]) -> None:
        remove_outdated(folder, state)


class S2tFormat(EspnetFormat):
    """An ESPnetS2TModel, as OWSM has them."""

    kind = "espnet_s2t"
    model = "ESPnetS2TModel"
    origins = ""  # those of ``EspnetFormat``

    def owns(self, model: nn.Module) -> bool:
        return _is(model, self.model)

    def build(self, config: Mapping) -> nn.Module:
        from espnet_prune.models.espnet.build import build_model

        return build_model(config, "s2t")

    def is_origin(self, source: str) -> bool:
        return False


def _is(model: nn.Module, name: str) -> bool:
    return any(kind.__name__ == name for kind in type(model).__mro__)


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
                family = find_family(getattr(model, part))
                conf = {**(config.get(f"{part}_conf") or {}), PLAN: own.to_json()}
                config.update({part: family.choices[0], f"{part}_conf": conf})
                if isinstance(family, DecoderFamily):
                    config.update(family.beside(config, own))
    return config
