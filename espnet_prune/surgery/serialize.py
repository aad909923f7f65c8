"""save / load: any widths, strict, no pickle.

A folder holds ``model.safetensors`` (the weights), ``model.json`` (schema version, kind of model,
its configuration with the plan of the cut, the shapes of weights that are stored sparse, the names
of those that are tied to another) and, where there is one, ``bpe.model``. Loading builds the model
from the JSON and demands every weight, no other, in its shape; it runs no code from the folder.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from espnet_prune.config import to_dataclass
from espnet_prune.errors import ConfigError, DataError, ModelError
from espnet_prune.io_atomic import atomic_path, read_json, write_json
from espnet_prune.surgery.families import format_of, formats
from espnet_prune.surgery.rounding import FORMS, note_rounded, pack, rounded_weights, unpack
from espnet_prune.surgery.sparse import SPARSE_ATTRIBUTE, compact, expand, sparse_names

SCHEMA = 1
DESCRIPTION, WEIGHTS, BPE = "model.json", "model.safetensors", "bpe.model"


def save(model: nn.Module, folder: str | Path) -> Path:
    """Writes a model, cut or not, to a folder.

    What was made there of other weights, such as files for stock ESPnet, is removed.

    Args:
        model: one of a known format: an ESPnetASRModel made by ``espnet_prune.models.espnet.build``
            (or cut from one), one of ESPnet's encoders by itself, or one of transformers' models.
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
    form = format_of(model)
    config: dict[str, Any] = form.describe(model)
    description: dict[str, Any] = {"schema": SCHEMA, "kind": form.kind, "config": config}
    bpe = config.get("bpemodel")
    if bpe:
        copy_bpe(bpe, folder / BPE)
        config["bpemodel"] = BPE
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    for each in formats().values():
        each.clear(folder, state)
    tied = _tied_names(model)
    if tied:
        description["tied"] = tied
        state = {name: value for name, value in state.items() if name not in tied}
    sparse = sparse_names(model)
    if sparse:
        description["sparse"] = {name: list(state[name].shape) for name in sparse}
    rounded = rounded_weights(model)
    if rounded:
        description["bits"] = min(each.bits for each in rounded.values())
        description["rounded"] = {name: list(state[name].shape) for name in rounded}
        state = pack(state, rounded, sparse)
    state = compact(state, [name for name in sparse if name not in rounded])
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

    The folder may also be one that others left, such as an experiment of ESPnet's: a format that
    reads it gives its model.

    Args:
        folder: the folder.
        device: where the model goes.

    Returns:
        The model, in evaluation mode; weights stored in few bits are float32 again.

    Raises:
        DataError: the description or the file of tokens is missing, or the former isn't JSON.
        ModelError: another schema or kind; a configuration of which no model can be built; missing,
            unexpected, mis-shaped or damaged weights.
    """
    folder = Path(folder)
    if not (folder / DESCRIPTION).exists():
        for form in formats().values():
            if form.is_origin(str(folder)):
                with form.open_origin(str(folder)) as origin:
                    return origin.load().to(device).eval()
        others = "; ".join(form.origins for form in formats().values() if form.origins)
        if folder.is_dir():
            raise DataError(
                f"{folder / DESCRIPTION}: no such file, so no model of espnet_prune.save is there; "
                f"known besides are {others}"
            )
    return _load_saved(folder).to(device).eval()


def _load_saved(folder: Path) -> nn.Module:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    description = read_description(folder)
    config: dict[str, Any] = dict(description.config)
    if config.get("bpemodel"):
        bpe = (folder / config["bpemodel"]).resolve()
        _check_bpe(bpe)
        config["bpemodel"] = str(bpe)
    try:
        state = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{folder / WEIGHTS}: can't be read ({error})") from error
    try:
        model = formats()[description.kind].build(config)
    except ModelError as error:
        raise ModelError(f"{folder / DESCRIPTION}: {error}") from error
    shapes = description.sparse
    exact = {name: shape for name, shape in shapes.items() if name not in description.rounded}
    state = expand(state, exact, str(folder / WEIGHTS))
    state, rounded = unpack(state, description.rounded, str(folder / WEIGHTS))
    for name, other in description.tied.items():
        if other in state:
            state[name] = state[other]
    load_strictly(model, state, str(folder / WEIGHTS))
    if shapes:
        setattr(model, SPARSE_ATTRIBUTE, tuple(shapes))
    if rounded:
        note_rounded(model, rounded)
    return model


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


@dataclass(frozen=True)
class Description:
    """What ``model.json`` says.

    Attributes:
        schema: its version.
        kind: the model's format.
        config: what the format builds it from; nothing of its meaning is checked here.
        sparse: shapes of the weights that are stored sparse, by name.
        tied: weights that are another one by a second name, and that one's first name.
        bits: the fewest bits of rounded weights; 0 where there are none.
        rounded: shapes of these weights, by name.
    """

    schema: int
    kind: str
    config: dict[str, object]
    sparse: dict[str, list[int]] = field(default_factory=dict)
    tied: dict[str, str] = field(default_factory=dict)
    bits: int = 0
    rounded: dict[str, list[int]] = field(default_factory=dict)


def read_description(folder: Path) -> Description:
    """The description of a saved model.

    Raises:
        DataError: it is missing, or isn't JSON.
        ModelError: another schema, kind or number of bits, a key that is missing, or a value of
            another type.
    """
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: a file; expected the folder of a saved model")
    path = folder / DESCRIPTION
    try:
        description = to_dataclass(Description, read_json(path), str(path))
    except ConfigError as error:
        raise ModelError(f"{error}; save the model again") from error
    if description.schema != SCHEMA:
        raise ModelError(
            f"{path}: schema {description.schema!r}, expected {SCHEMA}; was it saved by another "
            "version?"
        )
    if description.kind not in formats():
        raise ModelError(f"{path}: kind {description.kind!r}, expected one of {list(formats())}")
    if description.rounded and description.bits not in FORMS:
        raise ModelError(
            f"{path}: bits: {description.bits}, expected one of {list(FORMS)}; was it saved by "
            "another version?"
        )
    bpe = description.config.get("bpemodel")
    if not isinstance(bpe, str | None):
        raise ModelError(f"{path}: config: bpemodel: a name was expected, not {bpe!r}")
    return description
