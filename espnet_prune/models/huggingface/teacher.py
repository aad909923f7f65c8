"""A folder of transformers' ``save_pretrained`` as a teacher: letters or pieces by CTC.

The model without its output layer becomes the encoder of an ESPnet model, and that layer its CTC.
ESPnet wants the blank first and ``<sos/eos>`` last, which CTC here never gives.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from espnet_prune.data.tokens import BLANK, BPE_MODEL, END, SPACE, UNKNOWN, write_tokens
from espnet_prune.errors import DataError, ModelError
from espnet_prune.io_atomic import atomic_path, read_json
from espnet_prune.models import family_called
from espnet_prune.models.huggingface import pieces
from espnet_prune.models.huggingface.build import config_of, known_classes, load_pretrained
from espnet_prune.models.huggingface.preprocessing import read_mapping
from espnet_prune.surgery.serialize import load_strictly

CONFIG, VOCABULARY = "config.json", "vocab.json"
SAMPLES: Mapping[str, Any] = {"encoder": "ssl", "frontend": None, "input_size": 1}


@dataclass(frozen=True)
class Parts:
    """The parts of a model with an output layer.

    Attributes:
        core_class: the class of the same without one.
        core: attribute of that.
        head: attribute of the output layer.
        encoder: ESPnet's name of the encoder that it becomes.
        tokens: the file that says what the output layer gives.
    """

    core_class: str
    core: str
    head: str = "lm_head"
    encoder: str = SAMPLES["encoder"]
    tokens: str = VOCABULARY


# models with an output layer that can be a teacher
TEACHERS = {
    "Wav2Vec2ForCTC": Parts("Wav2Vec2Model", "wav2vec2"),
    "HubertForCTC": Parts("HubertModel", "hubert"),
    "WavLMForCTC": Parts("WavLMModel", "wavlm"),
    "Wav2Vec2ConformerForCTC": Parts("Wav2Vec2ConformerModel", "wav2vec2_conformer"),
    "Wav2Vec2BertForCTC": Parts("Wav2Vec2BertModel", "wav2vec2_bert", encoder="wav2vec2_bert"),
    "ParakeetForCTC": Parts("ParakeetEncoder", "encoder", "ctc_head", "parakeet", pieces.FILE),
}
ADAPTERS = ("add_adapter", "adapter_attn_dim")  # options that can't be pruned
ADDED = "added_tokens.json"
DELIMITER = "|"  # of words, where the folder doesn't say
NEVER = -50.0  # a logit that is never the best, nor felt by the rest


def class_of(folder: Path) -> str | None:
    """Which known class of transformers a folder was saved of; None for any other folder."""
    if not (folder / CONFIG).is_file():
        return None
    config = read_json(folder / CONFIG)
    names = config.get("architectures") if isinstance(config, dict) else None
    names = names if isinstance(names, list) else ()
    return next((name for name in names if name in known_classes()), None)


class TransformersTeacher:
    """What ``save_pretrained`` wrote, as an ``Origin``.

    Args:
        folder: with ``config.json`` and weights; for tokens, with ``vocab.json`` or
            ``tokenizer.json``; and with its feature extractor's settings.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.class_name = class_of(folder)

    def load(self) -> nn.Module:
        """transformers' own class, in evaluation mode."""
        return load_pretrained(str(self.folder), self.class_name, offline=True)

    def write_tokens(self, out: Path) -> list[str]:
        """Writes a folder of the tokens that its output layer gives, and returns the list."""
        tokens = [token for token, _ in self._tokens()] + [END]
        if self._parts().tokens == VOCABULARY:
            write_tokens(out, tokens, "char", None)
            return tokens
        _, model = self._pieces
        with atomic_path(out / BPE_MODEL) as temporary:
            temporary.write_bytes(model)
        write_tokens(out, tokens, "bpe", out / BPE_MODEL)
        return tokens

    def build(self, tokens: Path) -> nn.Module:
        """The ESPnetASRModel with its weights, in evaluation mode.

        Args:
            tokens: the folder that ``write_tokens`` made.

        Raises:
            DataError: a file is missing.
            ModelError: its preprocessing or a part of it isn't known.
        """
        from espnet_prune.models.espnet.build import build_asr_model

        parts, config = self._parts(), self._config
        self._check_adapters()
        own = getattr(config, "encoder_config", config)
        family = family_called(parts.encoder)
        about = {"encoder": parts.encoder, **family.espnet_input(self.folder, own)}
        listed = self._tokens()
        pretrained = self.load()
        core, layer = getattr(pretrained, parts.core), getattr(pretrained, parts.head)
        conf = {**core.config.to_dict(), "layerdrop": 0.0}  # a dropped layer would hide its gates
        encoder_conf = {"model": conf}
        if parts.encoder == SAMPLES["encoder"]:
            encoder_conf["class_name"] = parts.core_class
        if parts.tokens != VOCABULARY:
            about |= {"token_type": "bpe", "bpemodel": str((tokens / BPE_MODEL).resolve())}
        names = [*(token for token, _ in listed), END]
        rates = {"report_cer": False, "report_wer": False}
        model = build_asr_model(asr_config(names, encoder_conf, about, **rates))
        load_strictly(model.encoder.model, core.state_dict(), str(self.folder))
        rows = torch.tensor([index for _, index in listed])
        state = {
            "weight": _with_end(layer.weight.detach().flatten(1)[rows], 0.0),
            "bias": _with_end(layer.bias.detach()[rows], NEVER),
        }
        load_strictly(model.ctc.ctc_lo, state, f"{self.folder}: {parts.head}")
        return model.eval()

    def _parts(self) -> Parts:
        if self.class_name not in TEACHERS:
            raise ModelError(
                f"{self.folder}: a {self.class_name} can't be imported as a teacher; known are "
                f"{', '.join(TEACHERS)}. A Whisper is one by egs/librispeech_10/pinch_whisper1"
            )
        return TEACHERS[self.class_name]

    def _tokens(self) -> list[tuple[str, int]]:
        """Tokens by ESPnet's names, the blank first, and their rows of the output layer."""
        path = self.folder / self._parts().tokens
        if not path.is_file():
            raise DataError(
                f"{path}: no such file, which says what the output layer gives; copy it there from "
                "where the model was made"
            )
        config = self._config
        size, blank = config.vocab_size, config.pad_token_id
        found = self._letters(path) if path.name == VOCABULARY else self._pieces[0]
        by_row = {index: token for token, index in found.items()}
        if sorted(by_row) != list(range(size)) or blank not in by_row:
            raise ModelError(
                f"{path}: its {len(by_row)} tokens aren't those of an output layer of {size} rows "
                f"with the blank at {blank}"
            )
        names = self._names(by_row[blank])
        rows = [blank, *(row for row in range(size) if row != blank)]
        return [(names.get(by_row[row], by_row[row]), row) for row in rows]

    @cached_property
    def _config(self) -> Any:
        """transformers' own configuration, which has the defaults that config.json leaves out."""
        return config_of(self.class_name, read_json(self.folder / CONFIG))

    def _letters(self, path: Path) -> dict[str, int]:
        """Letters with their numbers; those that were added to the vocabulary are beside it."""
        added = self.folder / ADDED
        files = [path, added] if added.is_file() else [path]
        return {token: i for file in files for token, i in _checked(read_json(file), file).items()}

    @cached_property
    def _pieces(self) -> tuple[dict[str, int], bytes]:
        """Pieces with their numbers, and a sentencepiece model of them."""
        path = self.folder / pieces.FILE
        try:
            return pieces.read_pieces(path, self._config.pad_token_id)
        except (AttributeError, KeyError, TypeError) as error:
            raise ModelError(
                f"{path}: can't be read as a tokenizer ({error!r}); copy it there from where the "
                "model was made"
            ) from error

    def _names(self, blank: str) -> dict[str, str]:
        """ESPnet's names of the folder's special tokens."""
        path = self.folder / "tokenizer_config.json"
        own: Mapping[str, Any] = read_mapping(path) if path.is_file() else {}
        unknown = own.get("unk_token") or UNKNOWN
        unknown = unknown["content"] if isinstance(unknown, dict) else unknown
        space = own.get("word_delimiter_token") or DELIMITER
        return {blank: BLANK, unknown: UNKNOWN, space: SPACE}

    def _check_adapters(self) -> None:
        """ModelError for a part that can't be pruned."""
        config = read_json(self.folder / CONFIG)
        for key in ADAPTERS:
            if config.get(key):
                raise ModelError(
                    f"{self.folder / CONFIG}: {key}: {config[key]} can't be imported; give a model "
                    "without adapters"
                )


def asr_config(
    tokens: Sequence[str],
    encoder_conf: Mapping,
    about: Mapping[str, Any] = SAMPLES,
    **model_conf: object,
) -> dict:
    """ESPnet's configuration of such an encoder with CTC.

    Args:
        tokens: ESPnet's list of tokens.
        encoder_conf: options of the encoder.
        about: the encoder's name and its front-end; of pieces, ``token_type`` and ``bpemodel``.
        **model_conf: options of the ESPnetASRModel besides.
    """
    return {
        "token_list": list(tokens),
        "token_type": "char",
        "normalize": None,
        "specaug": None,
        "encoder_conf": dict(encoder_conf),
        "decoder": None,
        "model_conf": {"ctc_weight": 1.0, **model_conf},
        **about,
    }


def _checked(vocabulary: object, path: Path) -> dict[str, int]:
    if not isinstance(vocabulary, dict) or any(type(v) is not int for v in vocabulary.values()):
        raise ModelError(f"{path}: a number for each token was expected")
    return vocabulary


def _with_end(rows: Tensor, value: float) -> Tensor:
    """Rows of an output layer, and one more for ``<sos/eos>``."""
    return torch.cat([rows, torch.full_like(rows[:1], value)])


@contextmanager
def open_teacher(folder: str) -> Iterator[TransformersTeacher]:
    """What ``save_pretrained`` wrote."""
    yield TransformersTeacher(Path(folder))
