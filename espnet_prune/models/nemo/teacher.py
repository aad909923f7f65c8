"""A NeMo archive as a teacher: ESPnet's configuration and tokens, and a model with its weights."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from espnet_prune.data.tokens import BLANK, BPE_MODEL, END, UNKNOWN, write_tokens
from espnet_prune.errors import ModelError
from espnet_prune.io_torch import read_torch
from espnet_prune.models.espnet.build import build_asr_model
from espnet_prune.models.nemo.archive import WEIGHTS, NemoArchive
from espnet_prune.models.nemo.options import (
    DECODER,
    ENCODER,
    TOKENIZER,
    check_kind,
    encoder_conf,
    front_end_conf,
)
from espnet_prune.models.nemo.weights import espnet_weights
from espnet_prune.surgery.serialize import load_strictly

logger = logging.getLogger(__name__)


def token_list(archive: NemoArchive) -> list[str]:
    """ESPnet's tokens: the blank, NeMo's pieces in their order, and ``<sos/eos>``.

    Raises:
        ModelError: the tokenizer can't be read, isn't the output layer's, or lacks ``<unk>``.
    """
    import sentencepiece

    TOKENIZER.values(archive.config, archive.source)
    try:
        processor = sentencepiece.SentencePieceProcessor(model_file=str(archive.tokenizer))
    except (OSError, RuntimeError) as error:
        raise ModelError(
            f"{archive.source}: its tokenizer can't be read as a sentencepiece model ({error})"
        ) from error
    pieces = [processor.id_to_piece(i) for i in range(processor.get_piece_size())]
    vocabulary = DECODER.values(archive.config, archive.source)["vocabulary"]
    if vocabulary is not None and list(vocabulary) != pieces:
        raise ModelError(
            f"{archive.source}: the {len(pieces)} pieces of its tokenizer aren't the "
            f"{len(vocabulary)} of decoder: vocabulary; a tokenizer that belongs to the weights "
            "was expected"
        )
    if pieces.count(UNKNOWN) != 1 or {BLANK, END} & set(pieces):
        raise ModelError(
            f"{archive.source}: its tokenizer must have the piece {UNKNOWN}, and neither {BLANK} "
            f"nor {END}"
        )
    return [BLANK, *pieces, END]


def espnet_config(archive: NemoArchive, bpe_model: Path) -> dict[str, Any]:
    """The configuration of the ESPnetASRModel that an archive is.

    Args:
        archive: unpacked.
        bpe_model: where its sentencepiece model stands.

    Raises:
        ModelError: a key or value that isn't known; names it.
    """
    for key in check_kind(archive.config, archive.source):
        logger.warning("%s: model_config.yaml: %s isn't read", archive.source, key)
    front_end = front_end_conf(archive.config, archive.source)
    return {
        "token_list": token_list(archive),
        "token_type": "bpe",
        "bpemodel": str(bpe_model),
        "frontend": "nemo",
        "frontend_conf": front_end,
        "specaug": None,
        "normalize": None,
        "encoder": "nemo_conformer",
        "encoder_conf": encoder_conf(archive.config, archive.source),
        "decoder": None,
        "model_conf": {"ctc_weight": 1.0, "report_cer": False, "report_wer": False},
        "ctc_conf": {"ignore_nan_grad": True},
    }


class NemoTeacher:
    """An unpacked archive as an ``Origin``."""

    def __init__(self, archive: NemoArchive) -> None:
        self.archive = archive

    def write_tokens(self, out: Path) -> list[str]:
        """Writes the token list, its description and the sentencepiece model."""
        tokens = token_list(self.archive)
        write_tokens(out, tokens, "bpe", self.archive.tokenizer)
        return tokens

    def build(self, tokens: Path) -> nn.Module:
        """The ESPnetASRModel with NeMo's weights, strictly, in evaluation mode.

        Args:
            tokens: the folder that ``write_tokens`` made.

        Raises:
            ModelError: a key, value or weight that isn't known; weights that don't fit.
        """
        archive = self.archive
        model = build_asr_model(espnet_config(archive, tokens / BPE_MODEL))
        state = read_torch(archive.weights)
        if not isinstance(state, Mapping):
            raise ModelError(f"{archive.source}: {WEIGHTS}: weights by name were expected")
        scaled = bool(ENCODER.values(archive.config, archive.source)["xscaling"])
        load_strictly(model, espnet_weights(state, scaled, archive.source), archive.source)
        return model.eval()
