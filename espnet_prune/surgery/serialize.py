"""save / load: any widths, strict, no pickle.

A folder holds ``model.safetensors`` (the weights), ``model.json`` (schema version, kind of model,
its configuration with the plan of the cut, the shapes of weights that are stored sparse, the names
of those that are tied to another) and, where there is one, ``bpe.model``. Loading builds the model
from the JSON and demands every weight, no other, in its shape; it runs no code from the folder.
"""

import importlib
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from espnet_prune.errors import ConfigError, DataError, ModelError
from espnet_prune.io_atomic import atomic_path, write_json
from espnet_prune.models.conformer.sites import describe_conformer
from espnet_prune.models.model_folder import BPE
from espnet_prune.models.transformer_decoder.sites import DECODER
from espnet_prune.surgery.description import BUILDERS, DESCRIPTION, SCHEMA, read_description
from espnet_prune.surgery.plan import Plan, plan_of
from espnet_prune.surgery.sparse import SPARSE_ATTRIBUTE, compact, expand, sparse_names
from espnet_prune.surgery.stock import remove_outdated

WEIGHTS = "model.safetensors"
CONFIG_ATTRIBUTE = "espnet_prune_config"

# what of an ESPnet configuration makes the model; the rest steers training
MODEL_KEYS = (
    "token_list token_type bpemodel init input_size ctc_conf joint_net_conf frontend frontend_conf "
    "specaug specaug_conf normalize normalize_conf model model_conf preencoder preencoder_conf "
    "encoder encoder_conf postencoder postencoder_conf decoder decoder_conf"
).split()


def save(model: nn.Module, folder: str | Path) -> Path:
    """Writes a model, cut or not, to a folder.

    Files for stock ESPnet that are there and hold other weights are removed.

    Args:
        model: an ESPnetASRModel made by ``espnet_prune.models.espnet.build`` (or cut from one),
            or a ConformerEncoder, or a wav2vec 2.0, HuBERT or Whisper model of transformers.
        folder: made if missing; the weights are written first, the description last.

    Returns:
        The folder.

    Raises:
        ConfigError: the folder is a file.
        ModelError: the model's configuration isn't known.
        DataError: the file of its tokens is gone.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: a file; a model is saved as a folder, choose another name")
    description = {"schema": SCHEMA, **_describe(model)}
    bpe = description["config"].get("bpemodel")
    if bpe:
        copy_bpe(bpe, folder / BPE)
        description["config"]["bpemodel"] = BPE
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    remove_outdated(folder, state)
    tied = _tied_names(model)
    if tied:
        description["tied"] = tied
        state = {name: value for name, value in state.items() if name not in tied}
    names = sparse_names(model)
    if names:
        description["sparse"] = {name: list(state[name].shape) for name in names}
        state = compact(state, names)
    with atomic_path(folder / WEIGHTS) as temporary:
        save_file(state, temporary)
    write_json(folder / DESCRIPTION, description)
    return folder


def copy_bpe(source: str | Path, target: Path) -> None:
    """Copies a model's file of tokens, unless it is there already.

    Raises:
        DataError: the file is missing.
    """
    _check_bpe(Path(source))
    if Path(source).resolve() != target.resolve():
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)


def _check_bpe(path: Path) -> None:
    if not path.is_file():
        raise DataError(
            f"{path}: no such file, by which the model's text becomes tokens; copy it there from "
            "where the model was made"
        )


def load(folder: str | Path, device: str | torch.device = "cpu") -> nn.Module:
    """Reads what ``save`` wrote, in float32; of a model that was, outputs are equal.

    Args:
        folder: the folder.
        device: where the model goes.

    Returns:
        The model, in evaluation mode.

    Raises:
        DataError: the description or the file of tokens is missing, or the former isn't JSON.
        ModelError: another schema or kind; a configuration of which no model can be built; missing,
            unexpected, mis-shaped or damaged weights.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    description = read_description(folder)
    config = dict(description["config"])
    if config.get("bpemodel"):
        bpe = (folder / config["bpemodel"]).resolve()
        _check_bpe(bpe)
        config["bpemodel"] = str(bpe)
    try:
        state = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{folder / WEIGHTS}: can't be read ({error})") from error
    module, function = BUILDERS[description["kind"]].split(":")
    build = getattr(importlib.import_module(module), function)
    try:
        model = build(config)
    except ModelError as error:
        raise ModelError(f"{folder / DESCRIPTION}: {error}") from error
    shapes = description["sparse"]
    state = expand(state, shapes, str(folder / WEIGHTS))
    for name, other in description["tied"].items():
        if other in state:
            state[name] = state[other]
    load_strictly(model, state, str(folder / WEIGHTS))
    if shapes:
        setattr(model, SPARSE_ATTRIBUTE, tuple(shapes))
    return model.to(device).eval()


def load_strictly(model: nn.Module, state: Mapping[str, torch.Tensor], where: str) -> None:
    """Loads weights; every key, no other, each in its shape.

    Raises:
        ModelError: names the first missing, unexpected and mis-shaped keys.
    """
    own = model.state_dict()
    missing = sorted(set(own) - set(state))
    unexpected = sorted(set(state) - set(own))
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    problems = [
        f"{what}: {', '.join(names[:3])}{' ...' if len(names) > 3 else ''}"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("shape", shapes))
        if names
    ]
    if problems:
        raise ModelError(
            f"{where}: the weights don't fit the model ({'; '.join(problems)}); "
            "use the configuration that they were trained with"
        )
    model.load_state_dict(state, strict=True)


def _tied_names(model: nn.Module) -> dict[str, str]:
    """Parameters that are another one by a second name, and that one's first name."""
    first = {id(parameter): name for name, parameter in model.named_parameters()}
    everything = model.named_parameters(remove_duplicate=False)
    return {name: first[id(p)] for name, p in everything if first[id(p)] != name}


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
            (config if decoder else config["encoder_conf"])["pruned_arch"] = plan.to_json()
    elif plan is not None:
        for part, (kind, own) in _parts(plan).items():
            if own is not None:
                kind = getattr(getattr(model, part), "choice", kind)
                conf = {**(config.get(f"{part}_conf") or {}), "pruned_arch": own.to_json()}
                config.update({part: kind, f"{part}_conf": conf})
    return config


def _parts(plan: Plan) -> dict[str, tuple[str, Plan | None]]:
    """Our class in ESPnet's choices, and its plan, for each part of an ESPnet model."""
    return {
        "encoder": ("pruned_conformer", plan.without(DECODER)),
        "decoder": ("pruned_transformer", plan.part(DECODER)),
    }


def _describe(model: nn.Module) -> dict:
    if type(model).__module__.partition(".")[0] == "transformers":
        describe = importlib.import_module("espnet_prune.models.huggingface.build").describe_model
        return {"kind": "transformers", "config": describe(model)}
    if hasattr(model, "encoders"):
        plan = plan_of(model)
        config = describe_conformer(model)
        if plan is not None:
            config = {**config, "pruned_arch": plan.to_json()}
        return {"kind": "conformer_encoder", "config": config}
    return {"kind": "espnet_asr", "config": espnet_config(model)}
