"""Whisper from a CTranslate2 folder, as faster-whisper uses it, to transformers' classes.

The folder holds ``model.bin``, ``config.json`` (tokens that are never decoded), and
``tokenizer.json``. There, queries, keys and values of self-attention are one stacked matrix, so are
keys and values of cross-attention; ``k_proj`` has no bias in Whisper, so the stacked bias holds
zeros there. Weights become float32, in which masks are learned.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy
import torch
from torch import Tensor, nn

from espnet_prune.errors import DataError, ModelError
from espnet_prune.io_atomic import new_folder, read_json, write_json
from espnet_prune.models.huggingface.build import from_config, import_transformers
from espnet_prune.models.huggingface.preprocessing import read_mapping
from espnet_prune.models.whisper.ct2_file import read_ct2
from espnet_prune.surgery import load_strictly

SPECIFICATION = "WhisperSpec"
GELU = 3  # CTranslate2's number of this activation
PRECISIONS = (numpy.float16, numpy.float32)
POSITIONS_PER_SECOND = 50
MULTILINGUAL_TOKENS = 51865  # OpenAI: models with fewer know English alone
LAST_FIRST_TIMESTAMP = 50  # OpenAI: the first timestamp lies within the first second
END, START = "<|endoftext|>", "<|startoftranscript|>"
# settings that Whisper has one value of, by array: expected value, what another one would mean
SETTINGS = {
    "decoder/activation": (GELU, "an activation other than GELU"),
    "decoder/pre_norm": (1, "norms after the branches"),
    "decoder/scale_embeddings": (0, "scaled embeddings"),
    "decoder/alibi": (0, "positions by ALiBi"),
    "decoder/start_from_zero_embedding": (0, "a first embedding of zeros"),
}
UNUSED = (
    *("decoder/alignment_heads", "decoder/alignment_layer"),  # Whisper's are in config.json
    *("decoder/alibi_use_positive_positions", "decoder/scale_alibi"),  # say how, but there is none
)
# by which a folder is known as made by ``write_conversion``, so that it may make it again
RECORD = "conversion.json"
KIND = {"schema": 1, "kind": "whisper_from_ctranslate2"}
NORM = {"gamma": "weight", "beta": "bias"}
LINEAR = {"weight": "weight", "bias": "bias"}


def write_conversion(folder: Path, out: Path) -> nn.Module:
    """``convert_whisper`` into a folder that appears whole or not at all, with a record of it.

    Raises:
        ConfigError: ``out`` holds anything but an earlier conversion.
    """
    with new_folder(out, others_than_conversion, "a conversion") as new:
        model = convert_whisper(folder, new)
        files = sorted(path.name for path in new.iterdir())
        write_json(new / RECORD, {**KIND, "files": files})
    return model


def others_than_conversion(folder: Path) -> list[str]:
    """Names of what is in a folder and isn't an earlier conversion's, sorted."""
    names = {path.name for path in folder.glob("*")}
    try:
        record = read_json(folder / RECORD)
    except DataError:
        return sorted(names)
    known = isinstance(record, dict) and {key: record.get(key) for key in KIND} == KIND
    return sorted(names - {RECORD, *record.get("files", ())} if known else names)


def convert_whisper(folder: Path, out: Path) -> nn.Module:
    """Writes a CTranslate2 Whisper as transformers' ``save_pretrained`` does.

    Args:
        folder: the CTranslate2 folder.
        out: the folder to write into: weights, configurations, tokenizer, feature extractor.

    Returns:
        The WhisperForConditionalGeneration, in float32.

    Raises:
        ModelError: not a Whisper, quantised weights, arrays that are missing, unknown or of
            another shape.
        DataError: ``config.json`` or ``tokenizer.json`` is missing or damaged.
    """
    transformers = import_transformers()
    path = folder / "model.bin"
    file = read_ct2(path)
    if file.specification != SPECIFICATION:
        raise ModelError(f"{path}: holds a {file.specification}, expected a {SPECIFICATION}")
    arrays = dict(file.arrays)
    special = _special_tokens(folder / "tokenizer.json")
    options = read_mapping(folder / "config.json")
    tokenizer = _tokenizer(folder)
    config = _configuration(arrays, special, path)
    model = from_config("WhisperForConditionalGeneration", config)
    load_strictly(model, _weights(arrays, config, path), str(path))
    model.generation_config = transformers.GenerationConfig(**_generation(options, special, config))
    model.save_pretrained(out)
    seconds = config["max_source_positions"] // POSITIONS_PER_SECOND
    bins = config["num_mel_bins"]
    transformers.WhisperFeatureExtractor(bins, chunk_length=seconds).save_pretrained(out)
    tokenizer.save_pretrained(out)
    return model


def _tokenizer(folder: Path):
    """Whisper's tokenizer, of transformers."""
    kind = import_transformers().WhisperTokenizer
    try:
        return kind.from_pretrained(folder, pad_token=END)
    except Exception as error:  # what the library tokenizers raises is of no class of its own
        raise DataError(
            f"{folder / 'tokenizer.json'}: can't be read as Whisper's tokenizer ({error}); copy "
            "the file of the folder's origin"
        ) from error


def _special_tokens(path: Path) -> dict[str, int]:
    added = read_mapping(path).get("added_tokens", [])
    try:
        found = {str(entry["content"]): int(entry["id"]) for entry in added}
    except (TypeError, KeyError, ValueError) as error:
        raise DataError(
            f"{path}: added_tokens: entries with `content` and `id` were expected; copy the file "
            "of the folder's origin"
        ) from error
    missing = [token for token in (END, START, "<|notimestamps|>") if token not in found]
    if missing:
        raise DataError(f"{path}: lacks {', '.join(missing)}; expected Whisper's own tokenizer")
    return found


def _configuration(
    arrays: Mapping[str, numpy.ndarray], special: Mapping[str, int], path: Path
) -> dict:
    for name, (expected, meaning) in SETTINGS.items():
        if int(arrays.get(name, expected)) != expected:
            raise ModelError(f"{path}: {name} says {meaning}, which transformers' Whisper lacks")

    def shape(name: str) -> tuple[int, ...]:
        if name not in arrays:
            raise ModelError(f"{path}: {name} is missing; is this a Whisper model?")
        return arrays[name].shape

    config = {
        "vocab_size": shape("decoder/embeddings/weight")[0],
        "d_model": shape("decoder/embeddings/weight")[1],
        "num_mel_bins": shape("encoder/conv1/weight")[1],
        "max_source_positions": shape("encoder/position_encodings/encodings")[0],
        "max_target_positions": shape("decoder/position_encodings/encodings")[0],
        "activation_function": "gelu",
        "pad_token_id": special[END],
        "eos_token_id": special[END],
        "bos_token_id": special[START],
        "decoder_start_token_id": special[START],
        "suppress_tokens": None,
        "begin_suppress_tokens": None,
    }
    for stack in ("encoder", "decoder"):
        layers = {n.split("/")[1] for n in arrays if n.startswith(f"{stack}/layer_")}
        shape(f"{stack}/num_heads")
        config[f"{stack}_layers"] = len(layers - {"layer_norm"})
        config[f"{stack}_attention_heads"] = int(arrays[f"{stack}/num_heads"])
        config[f"{stack}_ffn_dim"] = shape(f"{stack}/layer_0/ffn/linear_0/weight")[0]
    return config


def _weights(arrays: dict[str, numpy.ndarray], config: Mapping, path: Path) -> dict[str, Tensor]:
    reader = _Reader(arrays, path)
    for stack in ("encoder", "decoder"):
        for index in range(config[f"{stack}_layers"]):
            source, target = f"{stack}/layer_{index}", f"model.{stack}.layers.{index}"
            reader.attention(f"{source}/self_attention", f"{target}.self_attn", (3,))
            if stack == "decoder":
                reader.attention(f"{source}/attention", f"{target}.encoder_attn", (1, 2))
            reader.copy(f"{source}/ffn/layer_norm", f"{target}.final_layer_norm", NORM)
            reader.copy(f"{source}/ffn/linear_0", f"{target}.fc1", LINEAR)
            reader.copy(f"{source}/ffn/linear_1", f"{target}.fc2", LINEAR)
        reader.copy(f"{stack}/layer_norm", f"model.{stack}.layer_norm", NORM)
        positions = f"model.{stack}.embed_positions"
        reader.copy(f"{stack}/position_encodings", positions, {"encodings": "weight"})
    for name in ("conv1", "conv2"):
        reader.copy(f"encoder/{name}", f"model.encoder.{name}", LINEAR)
    reader.copy("decoder/embeddings", "model.decoder.embed_tokens", {"weight": "weight"})
    reader.copy("decoder/projection", "proj_out", {"weight": "weight"})
    state = reader.state
    if not torch.equal(state["proj_out.weight"], state["model.decoder.embed_tokens.weight"]):
        raise ModelError(f"{path}: the output layer is not the embeddings' matrix, as in Whisper")
    known = {*SETTINGS, *UNUSED, "encoder/num_heads", "decoder/num_heads"}
    unknown = sorted(set(arrays) - reader.taken - known)
    if unknown:
        raise ModelError(f"{path}: arrays that Whisper doesn't have: {', '.join(unknown[:3])}")
    return state


class _Reader:
    """Takes arrays by CTranslate2's names into tensors by transformers' names."""

    def __init__(self, arrays: Mapping[str, numpy.ndarray], path: Path) -> None:
        self.arrays = arrays
        self.path = path
        self.state: dict[str, Tensor] = {}
        self.taken: set[str] = set()

    def take(self, name: str) -> Tensor:
        array = self.arrays.get(name)
        if array is None:
            raise ModelError(f"{self.path}: {name} is missing")
        if array.dtype not in PRECISIONS:
            raise ModelError(
                f"{self.path}: {name} is {array.dtype}; quantised weights can't be pruned, "
                "give a folder converted with float16 or float32"
            )
        self.taken.add(name)
        return torch.from_numpy(array.astype(numpy.float32))

    def copy(self, source: str, target: str, names: Mapping[str, str]) -> None:
        for theirs, ours in names.items():
            self.state[f"{target}.{ours}"] = self.take(f"{source}/{theirs}")

    def attention(self, source: str, target: str, stacked: tuple[int, ...]) -> None:
        """``stacked``: how many of query, key and value each of the first matrices holds."""
        self.copy(f"{source}/layer_norm", f"{target}_layer_norm", NORM)
        parts: dict[str, list[Tensor]] = {}
        for kind in ("weight", "bias"):
            each = (
                self.take(f"{source}/linear_{i}/{kind}").chunk(n) for i, n in enumerate(stacked)
            )
            parts[kind] = [part.clone() for chunks in each for part in chunks]
        for kind, tensors in parts.items():
            for name, tensor in zip(("q_proj", "k_proj", "v_proj"), tensors, strict=True):
                self.state[f"{target}.{name}.{kind}"] = tensor
        if self.state.pop(f"{target}.k_proj.bias").any():
            raise ModelError(f"{self.path}: {source} has a bias of its keys; Whisper has none")
        self.copy(f"{source}/linear_{len(stacked)}", f"{target}.out_proj", LINEAR)


def _generation(options: Mapping, special: Mapping[str, int], config: Mapping) -> dict:
    multilingual = config["vocab_size"] >= MULTILINGUAL_TOKENS
    settings = {
        key: config[key]
        for key in ("pad_token_id", "eos_token_id", "bos_token_id", "decoder_start_token_id")
    }
    settings |= {
        "alignment_heads": options.get("alignment_heads"),
        "suppress_tokens": options.get("suppress_ids"),
        "begin_suppress_tokens": options.get("suppress_ids_begin"),
        "max_length": config["max_target_positions"],
        "is_multilingual": multilingual,
        "no_timestamps_token_id": special["<|notimestamps|>"],
        "prev_sot_token_id": special.get("<|startofprev|>"),
        "max_initial_timestamp_index": LAST_FIRST_TIMESTAMP,
        "return_timestamps": False,
    }
    if multilingual:
        tasks = ("translate", "transcribe")
        settings["task_to_id"] = {task: special[f"<|{task}|>"] for task in tasks}
        between = range(special[START] + 1, special["<|translate|>"])
        settings["lang_to_id"] = {name: i for name, i in special.items() if i in between}
    return settings
