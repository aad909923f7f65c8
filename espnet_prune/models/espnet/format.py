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
from espnet_prune.models.espnet.trained import ASR, S2T, S2T_CTC, is_trained
from espnet_prune.models.family import DecoderFamily
from espnet_prune.models.graph_names import TRAINED_SECONDS
from espnet_prune.sites import DECODER
from espnet_prune.surgery.families import Format, find_family
from espnet_prune.surgery.plan import plan_of

# what of an ESPnet configuration makes the model; the rest steers training
MODEL_KEYS = (
    "token_list token_type bpemodel init input_size ctc_conf joint_net_conf frontend frontend_conf "
    "specaug specaug_conf normalize normalize_conf model model_conf preencoder preencoder_conf "
    "encoder encoder_conf promptencoder promptencoder_conf postencoder postencoder_conf decoder "
    "decoder_conf"
).split() + [TRAINED_SECONDS]
OWSM_MODELS = {S2T: "ESPnetS2TModel", S2T_CTC: "ESPnetS2TCTCModel"}
OWSM_KEYS = ("preprocessor", "preprocessor_conf")  # which ESPnet decodes these with


class EspnetFormat(Format):
    """An ESPnetASRModel made by ``models.espnet.build``, or cut from one."""

    task = ASR
    kind = f"espnet_{ASR}"
    origins = (
        "the folder of an ESPnet experiment or one of its .pth files, a .zip of its model zoo, its "
        "name on the hub, a folder that espnet_prune.save wrote"
    )

    def owns(self, model: nn.Module) -> bool:
        return _is(model, "AbsESPnetModel") and task_trained(model) == self.task

    def describe(self, model: nn.Module) -> dict:
        return espnet_config(model)

    def build(self, config: Mapping) -> nn.Module:
        from espnet_prune.models.espnet.build import build_model

        return build_model(config, self.task)

    def is_origin(self, source: str) -> bool:
        return is_saved(source) or is_trained(source)

    def open_origin(self, source: str) -> AbstractContextManager[EspnetTeacher]:
        return open_saved(source) if is_saved(source) else open_trained(source)

    def clear(self, folder: Path, state: Mapping[str, Tensor]) -> None:
        remove_outdated(folder, state)


class OwsmFormat(EspnetFormat):
    """A model of OWSM's.

    Args:
        task: ESPnet's: ``s2t``, or ``s2t_ctc``.
    """

    origins = ""  # those of ``EspnetFormat``

    def __init__(self, task: str) -> None:
        self.task = task
        self.kind = f"espnet_{task}"

    def is_origin(self, source: str) -> bool:
        return False


def task_trained(model: nn.Module) -> str:
    """The task of ESPnet's that trains a model of its class."""
    return next((task for task, name in OWSM_MODELS.items() if _is(model, name)), ASR)


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
    keys = MODEL_KEYS if task_trained(model) == ASR else (*MODEL_KEYS, *OWSM_KEYS)
    config = {key: config[key] for key in keys if key in config}
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
