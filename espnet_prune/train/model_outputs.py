"""What one model makes of a batch: everything that a loss of stages 8 and 10 looks at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from espnet2.asr.espnet_model import ESPnetASRModel
from espnet2.legacy.nets.pytorch_backend.transformer.add_sos_eos import add_sos_eos
from torch import Tensor


@dataclass(frozen=True)
class Outputs:
    """A model's outputs; what is chosen of the teacher's may be kept on disk.

    Attributes:
        encoded: (B, T, D), after the last norm; None where only the rest was kept.
        lengths: (B,), frames; None likewise.
        hidden: (B, T, D) by block; of the last, before the encoder's last norm where it has one,
            but after it in Whisper, whose last is ``encoded``.
        ctc_logits: (B, T, V), None without CTC.
        decoded: (B, L, V), None without a decoder.
        targets: (B, L), the text with its end; None without a decoder.
    """

    encoded: Tensor | None
    lengths: Tensor | None
    hidden: Sequence[Tensor] | Mapping[int, Tensor]
    ctc_logits: Tensor | None
    decoded: Tensor | None
    targets: Tensor | None

    def to(self, device: torch.device) -> "Outputs":
        """What was kept of a teacher's, on another device."""
        hidden = {block: value.to(device) for block, value in self.hidden.items()}
        logits, decoded = (
            v if v is None else v.to(device) for v in (self.ctc_logits, self.decoded)
        )
        return replace(self, hidden=hidden, ctc_logits=logits, decoded=decoded)


@torch.no_grad()
def features(
    model: ESPnetASRModel, speech: Tensor, speech_lengths: Tensor, augment: bool
) -> tuple[Tensor, Tensor]:
    """What a model's encoder reads; in float32 under mixed precision too, as ESPnet extracts it.

    Args:
        model: with its front-end.
        speech: (B, samples).
        speech_lengths: (B,).
        augment: whether SpecAugment, if the model has one, masks it.

    Returns:
        (B, T, F) features, or samples where there is no front-end, and their lengths (B,).
    """
    with torch.autocast(speech.device.type, enabled=False):
        feats, lengths = model._extract_feats(speech, speech_lengths)
        if augment and model.specaug is not None:
            feats, lengths = model.specaug(feats, lengths)
        if model.normalize is not None:
            feats, lengths = model.normalize(feats, lengths)
    return feats, lengths


def outputs(
    model: ESPnetASRModel, feats: Tensor, lengths: Tensor, text: Tensor, text_lengths: Tensor
) -> Outputs:
    """A model's outputs for what ``features`` made; text (B, tokens) is padded by its ignore_id."""
    encoded, lengths, _ = model.encoder(feats, lengths, return_all_hs=True)
    hidden: Sequence[Tensor] = ()
    if isinstance(encoded, tuple):
        encoded, hidden = encoded
    logits = None if model.ctc is None else model.ctc.ctc_lo(encoded)
    decoded = targets = None
    if model.decoder is not None:
        inputs, targets = add_sos_eos(text, model.sos, model.eos, model.ignore_id)
        decoded, _ = model.decoder(encoded, lengths, inputs, text_lengths + 1)
    return Outputs(encoded, lengths, hidden, logits, decoded, targets)
