"""A folder of transformers' ``save_pretrained`` as a teacher: letters by CTC on samples.

wav2vec 2.0 and its kin with an output layer become ``encoder: ssl`` of an ESPnet model, and that
layer its CTC. ESPnet wants the blank first and ``<sos/eos>`` last, which CTC here never gives.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from espnet_prune.data.tokens import BLANK, END, SPACE, UNKNOWN, write_tokens
from espnet_prune.errors import DataError, ModelError
from espnet_prune.io_atomic import read_json
from espnet_prune.models.huggingface.build import known_classes, load_pretrained
from espnet_prune.surgery.serialize import load_strictly

CONFIG, VOCABULARY, FEATURES = "config.json", "vocab.json", "preprocessor_config.json"
# models with an output layer that can be a teacher: the same without one, and the attribute of that
CORES = {
    "Wav2Vec2ForCTC": ("Wav2Vec2Model", "wav2vec2"),
    "HubertForCTC": ("HubertModel", "hubert"),
    "WavLMForCTC": ("WavLMModel", "wavlm"),
    "Wav2Vec2ConformerForCTC": ("Wav2Vec2ConformerModel", "wav2vec2_conformer"),
}
ADAPTERS = ("add_adapter", "adapter_attn_dim")  # options that can't be pruned
DELIMITER = "|"  # of words, where the folder doesn't say
NEVER = -50.0  # a logit that is never the best, nor felt by the rest


def class_of(folder: Path) -> str | None:
    """Which known class of transformers a folder was saved of; None for any other folder."""
    if not (folder / CONFIG).is_file():
        return None
    config = read_json(folder / CONFIG)
    names = config.get("architectures") if isinstance(config, dict) else None
    return next((name for name in names or () if name in known_classes()), None)


class TransformersTeacher:
    """What ``save_pretrained`` wrote, as an ``Origin``.

    Args:
        folder: with ``config.json`` and weights; for tokens, with ``vocab.json``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.class_name = class_of(folder)

    def load(self) -> nn.Module:
        """transformers' own class, in evaluation mode."""
        return load_pretrained(str(self.folder), self.class_name, offline=True)

    def write_tokens(self, out: Path) -> list[str]:
        """Writes a folder of the letters that its output layer gives, and returns the list."""
        tokens = [token for token, _ in self._tokens()] + [END]
        write_tokens(out, tokens, "char", None)
        return tokens

    def build(self, tokens: Path) -> nn.Module:
        """The ESPnetASRModel with its weights, in evaluation mode.

        Raises:
            ModelError: its preprocessing or a part of it isn't known.
        """
        from espnet_prune.models.espnet.build import build_asr_model

        self._check_input()
        listed = self._tokens()
        pretrained = self.load()
        core_class, attribute = CORES[self.class_name]
        core = getattr(pretrained, attribute)
        conf = {**core.config.to_dict(), "layerdrop": 0.0}  # a dropped layer would hide its gates
        model = build_asr_model(
            asr_config(
                [*(token for token, _ in listed), END],
                {"model": conf, "class_name": core_class},
                report_cer=False,
                report_wer=False,
            )
        )
        load_strictly(model.encoder.model, core.state_dict(), str(self.folder))
        rows = torch.tensor([index for _, index in listed])
        layer = pretrained.lm_head
        state = {
            "weight": _with_end(layer.weight.detach()[rows], 0.0),
            "bias": _with_end(layer.bias.detach()[rows], NEVER),
        }
        load_strictly(model.ctc.ctc_lo, state, f"{self.folder}: lm_head")
        return model.eval()

    def _tokens(self) -> list[tuple[str, int]]:
        """Tokens by ESPnet's names, the blank first, and their rows of the output layer."""
        if self.class_name not in CORES:
            raise ModelError(
                f"{self.folder}: a {self.class_name} can't be imported as a teacher; known are "
                f"{', '.join(CORES)}. A Whisper is one by egs/librispeech_10/pinch_whisper1"
            )
        path = self.folder / VOCABULARY
        if not path.is_file():
            raise DataError(
                f"{path}: no such file, which says what letters the output layer gives; copy it "
                "there from where the model was made"
            )
        config, found = read_json(self.folder / CONFIG), _checked(read_json(path), path)
        size, blank = config.get("vocab_size", len(found)), config.get("pad_token_id", 0)
        by_row = {index: token for token, index in found.items()}
        if sorted(by_row) != list(range(size)) or blank not in by_row:
            raise ModelError(
                f"{path}: its {len(by_row)} tokens aren't those of an output layer of {size} rows "
                f"with the blank at {blank}"
            )
        names = self._names(by_row[blank])
        rows = [blank, *(row for row in range(size) if row != blank)]
        return [(names.get(by_row[row], by_row[row]), row) for row in rows]

    def _names(self, blank: str) -> dict[str, str]:
        """ESPnet's names of the folder's special tokens."""
        path = self.folder / "tokenizer_config.json"
        own: Mapping[str, Any] = read_json(path) if path.is_file() else {}
        unknown = own.get("unk_token") or UNKNOWN
        unknown = unknown["content"] if isinstance(unknown, dict) else unknown
        space = own.get("word_delimiter_token") or DELIMITER
        return {blank: BLANK, unknown: UNKNOWN, space: SPACE}

    def _check_input(self) -> None:
        """ModelError where it reads samples otherwise than ``encoder: ssl`` gives them."""
        path = self.folder / FEATURES
        own: Mapping[str, Any] = read_json(path) if path.is_file() else {}
        for key, expected in (("do_normalize", True), ("sampling_rate", 16000)):
            if own.get(key, expected) != expected:
                raise ModelError(
                    f"{path}: {key}: {own[key]} can't be imported; expected {expected}"
                )
        config = read_json(self.folder / CONFIG)
        for key in ADAPTERS:
            if config.get(key):
                raise ModelError(
                    f"{self.folder / CONFIG}: {key}: {config[key]} can't be imported; give a model "
                    "without adapters"
                )


def asr_config(tokens: Sequence[str], encoder_conf: Mapping, **model_conf: object) -> dict:
    """ESPnet's configuration of ``encoder: ssl`` with CTC on letters.

    Args:
        tokens: ESPnet's list of tokens.
        encoder_conf: options of ``SslEncoder``.
        **model_conf: options of the ESPnetASRModel besides.
    """
    return {
        "token_list": list(tokens),
        "token_type": "char",
        "frontend": None,
        "input_size": 1,
        "normalize": None,
        "specaug": None,
        "encoder": "ssl",
        "encoder_conf": dict(encoder_conf),
        "decoder": None,
        "model_conf": {"ctc_weight": 1.0, **model_conf},
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
