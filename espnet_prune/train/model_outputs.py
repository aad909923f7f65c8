"""What one model makes of a batch: everything that a loss of stages 8 and 10 looks at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from espnet2.asr.espnet_model import ESPnetASRModel
from espnet2.legacy.nets.pytorch_backend.transformer.add_sos_eos import add_sos_eos
from torch import Tensor

from espnet_prune.surgery.families import find_family


@dataclass(frozen=True)
class Outputs:
    """A model's outputs; what is chosen of the teacher's may be kept on disk.

    Attributes:
        encoded: (B, T, D), after the last norm; None where only the rest was kept.
        lengths: (B,), frames; None likewise.
        hidden: (B, T, D) by block, as ``models.family.Encoded`` has it.
        ctc_logits: (B, T, V), None without CTC.
        decoded: (B, L, V), None without an attention decoder.
        targets: (B, L), the text with its end; None likewise.
        heard: (B, T, D) by each layer of intermediate CTC.
    """

    encoded: Tensor | None
    lengths: Tensor | None
    hidden: Sequence[Tensor] | Mapping[int, Tensor]
    ctc_logits: Tensor | None
    decoded: Tensor | None
    targets: Tensor | None
    heard: Sequence[Tensor] = ()

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
    made = find_family(model.encoder).encode(model, feats, lengths)
    encoded, lengths = made.output, made.lengths
    logits = None if model.ctc is None else model.ctc.ctc_lo(encoded)
    decoded = targets = None
    if model.decoder is not None and not model.use_transducer_decoder:
        inputs, targets = add_sos_eos(text, model.sos, model.eos, model.ignore_id)
        decoded, _ = model.decoder(encoded, lengths, inputs, text_lengths + 1)
    return Outputs(encoded, lengths, made.hidden, logits, decoded, targets, made.heard)
