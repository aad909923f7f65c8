"""A model of transformers as a folder that transformers loads where ``espnet_prune`` isn't.

Where transformers' own class has the model's shape, once its configuration names fewer layers or
units, the folder needs no code; so it is with zeros for single weights. Any other model is loaded
with ``trust_remote_code=True``: ``pruned_modeling.py`` goes with it, and ``config.json`` says in
what the model is other than the class.
"""

import json
import re
from collections.abc import Iterable, Sequence
from copy import copy, deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from espnet_prune.data.tokens import BLANK, END, SPACE, UNKNOWN
from espnet_prune.errors import DataError, ModelError
from espnet_prune.export import pruned_modeling
from espnet_prune.export.onnx import check_float32
from espnet_prune.io_atomic import new_folder, read_json, write_json, write_text
from espnet_prune.models.espnet.features import encoded_speech, least_samples, sample_rate_of
from espnet_prune.models.graphs import example_speech
from espnet_prune.models.huggingface.build import UNLOADABLE, check_class, import_transformers
from espnet_prune.models.huggingface.teacher import (
    CONFIG,
    DELIMITER,
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
HEARD_TOLERANCE = 1e-2  # of scores of speech, whose features others make otherwise
LOUDNESS = 0.3  # of the speech, which also has that as its mean


def export_transformers(
    model: nn.Module, folder: str | Path, processor: str | None = None
) -> dict[str, Any]:
    """Writes a model for transformers, reads it back, and compares what both give.

    Args:
        model: one of transformers' classes, dense or cut; or an ESPnetASRModel whose encoder is
            one, which becomes the class with CTC.
        folder: made, or replaced if it is an earlier export.
        processor: whose feature extractor and tokenizer to put beside, a folder or a name on the
            hub; an ESPnetASRModel's tokens get that order. By default those of ``encoder: ssl``
            with letters, and none of other models.

    Returns:
        Its ``class`` and ``auto_class``, whether it ``needs_code``, the names of the parts that are
        ``unlike_stock`` then, and whether a ``processor`` is beside it.

    Raises:
        ConfigError: the folder holds anything but an earlier export.
        ModelError: no model of transformers, or not in float32; a part for which there is no code;
            a processor that can't be loaded, or of other tokens; other outputs after reading it
            back.
    """
    check_float32(model)
    given = None if processor is None else _processor_of(processor)
    whole = twin_of(_whole(model, given)).eval()
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
        if given is None:
            beside = _own_processor(model, whole, new)
        else:
            beside = given
            _compare_speech(model, whole, given)
        if beside is not None:
            beside.save_pretrained(new)
        about = {"class": name, "auto_class": auto_class, "needs_code": bool(unlike)}
        about |= {"unlike_stock": unlike, "processor": beside is not None}
        files = sorted(path.name for path in new.iterdir())
        write_json(new / MARK, {**about, "files": files})
        bases = (pruned_modeling.Pruned,) if unlike else ()
        kind = type(name, (*bases, getattr(transformers, name)), {})
        _compare(whole, kind.from_pretrained(new, dtype=torch.float32).eval(), folder)
    return about


def _others(folder: Path) -> list[str]:
    """Names of what is in a folder and isn't an earlier export's, sorted."""
    names = {path.name for path in folder.glob("*")}
    try:
        record = read_json(folder / MARK)
    except DataError:
        return sorted(names)
    known = isinstance(record, dict) and "class" in record
    return sorted(names - {MARK, *record.get("files", names)} if known else names)


def _class(name: str) -> str:
    """The model's class, by the name that transformers' pipelines know it by."""
    text = f"\n\nclass {name}(Pruned, transformers.{name}):\n"
    return text + f'    """transformers\' {name}, pruned."""\n'


def _whole(model: nn.Module, processor: Any) -> nn.Module:
    """transformers' model; of an ESPnet model with one as its encoder, with its output layer.

    Args:
        model: either.
        processor: that of the model before it was pruned, whose order the tokens get; None keeps
            ESPnet's.
    """
    if type(model).__module__.startswith("transformers."):
        return model
    if hasattr(model, "whisper"):
        return model.whisper
    encoder = getattr(model, "encoder", None)
    found = getattr(encoder, "class_name", None)
    name = next((name for name, parts in TEACHERS.items() if parts.core_class == found), None)
    if name is None:
        raise ModelError(
            f"{type(model).__name__}: it has no model of transformers in it; export_onnx makes it "
            "run without this project"
        )
    parts, kind = TEACHERS[name], getattr(import_transformers(), name)
    rows = _rows(model.token_list, processor)
    inner, about = encoder.model.config, {"vocab_size": len(rows), "pad_token_id": rows.index(0)}
    if isinstance(inner, kind.config_class):
        config = copy(inner)
        for key, value in about.items():
            setattr(config, key, value)
    else:
        config = kind.config_class(encoder_config=inner.to_dict(), **about)
    with torch.device("meta"):
        whole = kind(config)
    setattr(whole, parts.core, encoder.model)
    head, layer = getattr(whole, parts.head), model.ctc.ctc_lo
    head.weight = nn.Parameter(layer.weight.detach()[rows].view(head.weight.shape))
    head.bias = nn.Parameter(layer.bias.detach()[rows])
    return whole


def _rows(tokens: Sequence[str], processor: Any) -> list[int]:
    """Numbers of the tokens (tokens,), in the order of the processor's tokenizer.

    ``<sos/eos>``, which CTC never gives, is left out where the tokenizer doesn't have it.

    Raises:
        ModelError: there is no tokenizer, it is that of other tokens, or its numbers have holes.
    """
    if processor is None:
        return list(range(len(tokens)))
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is None:
        raise ModelError(
            f"--processor: a {type(processor).__name__} alone is there; a feature extractor and a "
            "tokenizer were expected; give the folder, or the hub's name, of the model before it "
            "was pruned"
        )
    space = getattr(tokenizer, "word_delimiter_token", None) or DELIMITER
    names = {tokenizer.pad_token: BLANK, tokenizer.unk_token: UNKNOWN, space: SPACE}
    listed = sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1])
    found = [names.get(token, token) for token, _ in listed]
    while found and found[-1] not in tokens and listed[len(found) - 1][0] in _added(tokenizer):
        found.pop()  # such as <s>, which transformers puts behind a model's own tokens
    unlike = set(found) ^ set(tokens) - {END}
    if unlike:
        raise ModelError(
            f"--processor: its tokenizer isn't that of the model: {sorted(unlike)[0]!r} is a token "
            "of only one of them; give the folder, or the hub's name, of the model before it was "
            "pruned"
        )
    for place, (token, number) in enumerate(listed[: len(found)]):
        if number != place:
            raise ModelError(
                f"--processor: its tokenizer has {token!r} at {number}, but {place} was expected: "
                "no number may be left out or be there twice; give the folder, or the hub's name, "
                "of the model before it was pruned"
            )
    places = {token: number for number, token in enumerate(tokens)}
    return [places[token] for token in found]


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


def _processor_of(given: str) -> Any:
    """A processor that transformers loads.

    Raises:
        ModelError: it doesn't.
    """
    try:
        return import_transformers().AutoProcessor.from_pretrained(given)
    except UNLOADABLE as error:
        raise ModelError(
            f"--processor {given}: no feature extractor and tokenizer can be loaded there; give "
            "the folder, or the hub's name, of the model before it was pruned"
        ) from error


def _own_processor(model: nn.Module, whole: nn.Module, folder: Path) -> Any:
    """That of ``encoder: ssl`` with letters, whose vocabulary is left in the folder; else None."""
    tokens = getattr(model, "token_list", ())
    reads_samples = hasattr(whole.config, "feat_extract_norm")
    if not reads_samples or not tokens or any(map(_is_piece, tokens)):
        return None
    vocabulary = {SPECIAL.get(token, token): number for number, token in enumerate(tokens)}
    write_text(folder / VOCABULARY, json.dumps(vocabulary, ensure_ascii=False))
    masked, transformers = whole.config.feat_extract_norm == "layer", import_transformers()
    return transformers.Wav2Vec2Processor(
        transformers.Wav2Vec2FeatureExtractor(
            sampling_rate=SAMPLE_RATE, do_normalize=True, return_attention_mask=masked
        ),
        transformers.Wav2Vec2CTCTokenizer(str(folder / VOCABULARY)),
    )


def _added(tokenizer: Any) -> set[str]:
    """Tokens that were added to a tokenizer's own."""
    return {token.content for token in tokenizer.added_tokens_decoder.values()}


def _is_piece(token: str) -> bool:
    """Whether a token is more than a letter, for which transformers' tokenizer has no place."""
    return len(token) > 1 and token not in SPECIAL


@torch.no_grad()
def _compare_speech(model: nn.Module, whole: nn.Module, processor: Any) -> None:
    """ModelError where an ESPnet model's CTC scores speech otherwise than what is exported."""
    if getattr(model, "ctc", None) is None or not hasattr(processor, "feature_extractor"):
        return
    rate = sample_rate_of(getattr(model, "espnet_prune_config", None))
    speech = LOUDNESS * (1 + example_speech(max(rate, least_samples(model)))[0])
    try:
        given = processor(speech[0].numpy(), sampling_rate=rate, return_tensors="pt")
        found = whole(**given).logits
    except (ValueError, TypeError, RuntimeError) as error:
        raise ModelError(
            f"--processor: its feature extractor isn't that of the model ({error}); give the "
            "folder, or the hub's name, of the model before it was pruned"
        ) from error
    twin = twin_of(model).eval()
    scores = twin.ctc.ctc_lo(encoded_speech(twin, speech))
    expected = scores[..., _rows(model.token_list, processor)]
    found, worst = found[:, : expected.shape[1]], float("inf")  # it may pad the features
    if found.shape == expected.shape:
        worst = float((found - expected).abs().max())
    if not worst <= HEARD_TOLERANCE * max(1.0, float(expected.abs().max())):
        raise ModelError(
            f"--processor: with its feature extractor the scores of speech differ by {worst:.2g} "
            "from the model's; give the folder, or the hub's name, of the model before it was "
            "pruned"
        )


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
