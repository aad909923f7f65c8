"""A model of transformers as a folder that transformers loads where ``espnet_prune`` isn't.

Where transformers' own class has the model's shape, once its configuration names fewer layers or
units, the folder needs no code; so it is with zeros for single weights. Any other model is loaded
with ``trust_remote_code=True``: ``pruned_modeling.py`` goes with it, and ``config.json`` says in
what the model is other than the class.
"""

import json
import re
from collections.abc import Iterable
from copy import copy, deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from espnet_prune.data.tokens import BLANK, END, SPACE, UNKNOWN
from espnet_prune.errors import ModelError
from espnet_prune.export import pruned_modeling
from espnet_prune.io_atomic import new_folder, read_json, write_json, write_text
from espnet_prune.models.huggingface.build import UNLOADABLE, check_class, import_transformers
from espnet_prune.models.huggingface.teacher import (
    CONFIG,
    DELIMITER,
    SAMPLES,
    TEACHERS,
    VOCABULARY,
)
from espnet_prune.models.ssl.sites import SAMPLE_RATE
from espnet_prune.surgery.cut import twin_of
from espnet_prune.surgery.families import family_of

CODE = Path(pruned_modeling.__file__)
MARK = "export_transformers.json"  # by which an earlier export is known
SPECIAL = {BLANK: "<pad>", UNKNOWN: "<unk>", END: "</s>", SPACE: DELIMITER}
AUTO_CLASSES = {
    "ForCTC": "AutoModelForCTC",
    "ForConditionalGeneration": "AutoModelForSpeechSeq2Seq",
}
BLOCK = re.compile("(Encoder|Decoder)(Layer|Block)")  # classes of blocks
# keys of configurations: number of layers of a stack, and units of its feed-forwards
SIZES = (
    ("{}_layers", "{}_ffn_dim"),
    ("{}_num_hidden_layers", "intermediate_size"),
    ("num_hidden_layers", "intermediate_size"),
)
LAST_LAYERS = ("output_dense", "fc2", "linear2")  # of feed-forwards, whatever the class
HEADS = ("num_attention_heads", "num_key_value_heads")
NOT_SHAPE = ("training", "name_or_path")  # plain attributes of modules that say nothing of it
PLAIN = (bool, int, float, str)
TOLERANCE = 1e-4  # of outputs, relative to the largest


def export_transformers(
    model: nn.Module, folder: str | Path, processor: str | None = None
) -> dict[str, Any]:
    """Writes a model for transformers, reads it back, and compares what both give.

    Args:
        model: one of transformers' classes, dense or cut; or an ESPnetASRModel with the parts of
            one: ``encoder: ssl`` becomes the class with CTC.
        folder: made, or replaced if it is an earlier export.
        processor: whose feature extractor and tokenizer to put beside, a folder or a name on the
            hub; by default those of ``encoder: ssl`` with letters, and none of other models.

    Returns:
        Its ``class`` and ``auto_class``, whether it ``needs_code``, the names of the parts that are
        ``unlike_stock`` then, and whether a ``processor`` is beside it.

    Raises:
        ConfigError: the folder holds anything but an earlier export.
        ModelError: no model of transformers; a part for which there is no code; a processor that
            can't be loaded; other outputs after reading it back.
    """
    whole = twin_of(_whole(model)).eval()
    name, transformers = type(whole).__name__, import_transformers()
    check_class(name, "model")
    _check_classes(whole)
    whole.config = _with_sizes(whole)
    with torch.device("meta"):
        stock = getattr(transformers, name)(deepcopy(whole.config))
    changes = _changes(whole, stock)
    shaped = (name.rpartition(".")[0] for name in changes["shapes"])
    unlike = sorted({*changes["stand_ins"], *changes["attributes"], *shaped})
    ends = [auto for end, auto in AUTO_CLASSES.items() if name.endswith(end)]
    auto_class = (ends or ["AutoModel"])[0]
    with new_folder(Path(folder), _others, "an export") as new:
        whole.save_pretrained(new)
        if unlike:
            auto = {"auto_map": {auto_class: f"{CODE.stem}.{name}"}}
            write_json(new / CONFIG, {**read_json(new / CONFIG), "pruned": changes, **auto})
            write_text(new / CODE.name, CODE.read_text(encoding="utf-8") + _class(name))
        has_processor = _write_processor(new, model, whole, processor)
        about = {"class": name, "auto_class": auto_class, "needs_code": bool(unlike)}
        about |= {"unlike_stock": unlike, "processor": has_processor}
        write_json(new / MARK, about)
        bases = (pruned_modeling.Pruned,) if unlike else ()
        kind = type(name, (*bases, getattr(transformers, name)), {})
        _compare(whole, kind.from_pretrained(new, dtype=torch.float32).eval(), folder)
    return about


def _others(folder: Path) -> list[str]:
    """What is in a folder that isn't an earlier export."""
    if not folder.is_dir() or (folder / MARK).is_file():
        return []
    return sorted(path.name for path in folder.iterdir())


def _class(name: str) -> str:
    """The model's class, by the name that transformers' pipelines know it by."""
    text = f"\n\nclass {name}(Pruned, transformers.{name}):\n"
    return text + f'    """transformers\' {name}, pruned."""\n'


def _whole(model: nn.Module) -> nn.Module:
    """transformers' model; of an ESPnet model with one as its encoder, with its output layer."""
    if type(model).__module__.startswith("transformers."):
        return model
    if hasattr(model, "whisper"):
        return model.whisper
    encoder = getattr(model, "encoder", None)
    of_samples = {n: p for n, p in TEACHERS.items() if p.encoder == SAMPLES["encoder"]}
    found = getattr(encoder, "class_name", None)
    name = next((name for name, parts in of_samples.items() if parts.core_class == found), None)
    if name is None:
        raise ModelError(
            f"{type(model).__name__}: it has no model of transformers in it that reads samples; "
            "export_onnx makes it run without this project"
        )
    config = copy(encoder.model.config)
    config.vocab_size, config.pad_token_id = len(model.token_list), 0
    with torch.device("meta"):
        whole = getattr(import_transformers(), name)(config)
    setattr(whole, of_samples[name].core, encoder.model)
    whole.lm_head = model.ctc.ctc_lo
    return whole


def _with_sizes(model: nn.Module) -> Any:
    """A copy of the configuration, with the number of layers, and of units where all are alike."""
    config = deepcopy(model.config)
    own = getattr(config, "encoder_config", config)
    for name, layers in model.named_modules():
        if not isinstance(layers, nn.ModuleList) or not BLOCK.search(type(_first(layers)).__name__):
            continue
        stack = name.split(".")[-2]
        keys = ((number.format(stack), units.format(stack)) for number, units in SIZES)
        number, units = next(pair for pair in keys if hasattr(own, pair[0]))
        setattr(own, number, len(layers))
        inner = [m for n, m in layers.named_modules() if n.rpartition(".")[2] in LAST_LAYERS]
        widths = {module.in_features for module in inner if isinstance(module, nn.Linear)}
        if len(widths) == 1:
            setattr(own, units, widths.pop())
    return config


def _first(layers: nn.ModuleList) -> nn.Module | None:
    return next(iter(layers), None)


def _check_classes(model: nn.Module) -> None:
    """ModelError for a module of ours that isn't in ``pruned_modeling``."""
    for name, module in model.named_modules():
        kind = type(module)
        ours = kind.__module__.partition(".")[0] == __name__.partition(".")[0]
        if ours and kind.__name__ not in pruned_modeling.STAND_INS:
            raise ModelError(
                f"{name}: a {kind.__name__}, for which transformers has no code; use export_onnx, "
                "or prune without what makes it: low rank, heads of WavLM, a front-end layer "
                "without a channel"
            )


def _changes(model: nn.Module, stock: nn.Module) -> dict[str, dict]:
    """What ``pruned_modeling`` does to transformers' own model, to give it this one's shape."""
    stand_ins: dict[str, str] = {}
    attributes: dict[str, dict] = {}
    shapes: dict[str, list[int]] = {}
    for name, module in model.named_modules():
        other, kind = stock.get_submodule(name), type(module).__name__
        if type(other).__name__ != kind:
            stand_ins[name] = kind
            other = pruned_modeling.STAND_INS[kind]()
        differing = _differing(_plain(module), _plain(other))
        if heads := _differing(_heads(module), _heads(other)):
            differing["config"] = heads
        if differing:
            attributes[name] = differing
        for key, tensor in _tensors(module):
            if tensor.shape != getattr(other, key).shape:
                shapes[f"{name}.{key}"] = list(tensor.shape)
    return {"stand_ins": stand_ins, "attributes": attributes, "shapes": shapes}


def _plain(module: nn.Module) -> dict[str, Any]:
    """Attributes that JSON can hold."""
    return {
        key: value
        for key, value in vars(module).items()
        if not key.startswith(("_", "espnet_prune")) and key not in NOT_SHAPE and _is_plain(value)
    }


def _heads(module: nn.Module) -> dict[str, Any]:
    """What attention asks its own configuration for."""
    config = getattr(module, "config", None)
    return {key: getattr(config, key) for key in HEADS if hasattr(config, key)}


def _is_plain(value: object) -> bool:
    inner = value if isinstance(value, tuple | list) else [value]
    return all(isinstance(each, PLAIN) for each in inner)


def _differing(own: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in own.items() if key not in other or other[key] != value}


def _tensors(module: nn.Module) -> Iterable[tuple[str, Tensor]]:
    yield from module.named_parameters(recurse=False)
    yield from module.named_buffers(recurse=False)


def _write_processor(folder: Path, model: nn.Module, whole: nn.Module, given: str | None) -> bool:
    """Puts a feature extractor and a tokenizer beside the weights; whether there are any."""
    transformers = import_transformers()
    if given is not None:
        try:
            transformers.AutoProcessor.from_pretrained(given).save_pretrained(folder)
        except UNLOADABLE as error:
            raise ModelError(
                f"--processor {given}: no feature extractor and tokenizer can be loaded there; "
                "give the folder, or the hub's name, of the model before it was pruned"
            ) from error
        return True
    tokens = getattr(model, "token_list", None)
    if tokens is None or hasattr(model, "whisper") or any(_is_piece(t) for t in tokens):
        return False
    vocabulary = {SPECIAL.get(token, token): number for number, token in enumerate(tokens)}
    write_text(folder / VOCABULARY, json.dumps(vocabulary, ensure_ascii=False))
    masked = whole.config.feat_extract_norm == "layer"
    transformers.Wav2Vec2Processor(
        transformers.Wav2Vec2FeatureExtractor(
            sampling_rate=SAMPLE_RATE, do_normalize=True, return_attention_mask=masked
        ),
        transformers.Wav2Vec2CTCTokenizer(str(folder / VOCABULARY)),
    ).save_pretrained(folder)
    return True


def _is_piece(token: str) -> bool:
    """Whether a token is more than a letter, for which transformers' tokenizer has no place."""
    return len(token) > 1 and token not in SPECIAL


@torch.no_grad()
def _compare(model: nn.Module, read: nn.Module, folder: str | Path) -> None:
    """ModelError where what was read back gives something else."""
    graphs = [family_of(model).graphs(each)[0] for each in (model, read)]
    own, other = (part.graph(*part.example(part.tried[0])) for part in graphs)
    worst, largest = float((own - other).abs().max()), float(own.abs().max())
    if not worst <= TOLERANCE * max(1.0, largest):
        raise ModelError(
            f"{folder}: the model read back differs by {worst:.2g}; nothing was written"
        )
