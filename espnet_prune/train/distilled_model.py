"""The model that stages 8 and 10 train: a student, its teacher, and all parts of the loss.

Both see the same features: extracted and augmented once. The teacher is set aside of the module's
state, so checkpoints hold the student, its gates and the distillation's linear map alone; a resumed
training builds the teacher anew.
"""

from collections.abc import Sequence

import torch
from espnet2.asr.espnet_model import ESPnetASRModel
from espnet2.legacy.nets.pytorch_backend.nets_utils import th_accuracy
from espnet2.legacy.nets.pytorch_backend.transformer.add_sos_eos import add_sos_eos
from espnet2.torch_utils.device_funcs import force_gatherable
from espnet2.train.abs_espnet_model import AbsESPnetModel
from torch import Tensor, nn

from espnet_prune.distill import DistillConfig, LayerwiseDistillation, kl_loss, length_mask
from espnet_prune.errors import ModelError
from espnet_prune.methods.base import LearningMethod
from espnet_prune.surgery import GatedModel, plan_of


class DistilledModel(AbsESPnetModel):
    """A student with the losses of pruning (gated) or of finetuning (cut).

    Args:
        student: the gated model of the pruning stage, or a plain ESPnetASRModel.
        teacher: the uncompressed ESPnetASRModel.
        distillation: weights of the parts.
        method: gives the size term of a gated student.

    Raises:
        ModelError: a part of the model that this loss doesn't know.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: ESPnetASRModel,
        distillation: DistillConfig,
        method: LearningMethod | None = None,
    ) -> None:
        super().__init__()
        self.gated = student if isinstance(student, GatedModel) else None
        self.plain = None if self.gated is not None else student
        self.distillation = distillation
        self.method = method
        _check(self.student)
        teacher.requires_grad_(False)
        object.__setattr__(self, "teacher", teacher.eval())
        blocks = len(teacher.encoder.encoders)
        plan = plan_of(self.student)
        kept = range(blocks) if plan is None else plan.kept_blocks()
        self.blocks = [block for block in kept if block < blocks]  # of the encoder alone
        self.attending = None if plan is None else plan.attending_blocks()
        self.layerwise = None
        if distillation.layer_weight > 0:
            size = teacher.encoder.output_size()
            self.layerwise = LayerwiseDistillation(distillation, blocks, size)

    @property
    def student(self) -> ESPnetASRModel:
        """The ESPnet model that learns, without its gates."""
        return self.plain if self.gated is None else self.gated.model

    def forward(
        self,
        speech: Tensor,
        speech_lengths: Tensor,
        text: Tensor,
        text_lengths: Tensor,
        **unused,
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """The loss of a batch.

        Args:
            speech: (B, samples).
            speech_lengths: (B,).
            text: (B, tokens), padded by -1; left as it is.
            text_lengths: (B,).

        Returns:
            The loss, its parts and the sizes, the batch size.
        """
        text = text[:, : text_lengths.max()].clone()
        text[text == -1] = self.student.ignore_id
        feats, lengths = self._features(speech, speech_lengths)
        ours = _Outputs(self.student, feats, lengths, text, text_lengths)
        loss, stats = self._label_loss(ours, text, text_lengths)
        loss = loss * self.distillation.label_weight
        if self.distillation.needs_teacher:
            self.teacher.to(speech.device)
            with torch.no_grad():
                theirs = _Outputs(self.teacher, feats, lengths, text, text_lengths)
            for name, weight, value in self._distillation_losses(ours, theirs):
                stats[name] = value.detach()
                loss = loss + weight * value
        if self.gated is not None:
            size_loss = self.method.loss(self.gated)
            stats.update(self._size_stats(size_loss))
            loss = loss + size_loss.to(loss.dtype)
        stats["loss"] = loss.detach()
        return force_gatherable((loss, stats, len(speech)), loss.device)

    def collect_feats(
        self, speech: Tensor, speech_lengths: Tensor, text: Tensor, text_lengths: Tensor, **unused
    ) -> dict[str, Tensor]:
        """Features for statistics, as the student extracts them."""
        return self.student.collect_feats(speech, speech_lengths, text, text_lengths)

    @torch.no_grad()
    def _features(self, speech: Tensor, speech_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """In float32 under mixed precision too, as ESPnet extracts them itself."""
        student = self.student
        with torch.autocast(speech.device.type, enabled=False):
            feats, lengths = student._extract_feats(speech, speech_lengths)
            if student.specaug is not None and self.training:
                feats, lengths = student.specaug(feats, lengths)
            if student.normalize is not None:
                feats, lengths = student.normalize(feats, lengths)
        return feats, lengths

    def _label_loss(
        self, ours: "_Outputs", text: Tensor, text_lengths: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The task's own loss: CTC and attention, weighted as in the teacher's training."""
        student, stats = self.student, {}
        loss = ours.encoded.new_zeros(())
        if student.ctc is not None:
            ctc = student.ctc(ours.encoded, ours.lengths, text, text_lengths)
            stats["loss_ctc"] = ctc.detach()
            loss = loss + student.ctc_weight * ctc
        if ours.decoded is not None:
            attention = student.criterion_att(ours.decoded, ours.targets)
            stats["loss_att"] = attention.detach()
            accuracy = th_accuracy(
                ours.decoded.view(-1, student.vocab_size), ours.targets, student.ignore_id
            )
            stats["acc"] = torch.as_tensor(accuracy)
            loss = loss + (1 - student.ctc_weight) * attention
        stats["loss_label"] = loss.detach()
        return loss, stats

    def _distillation_losses(
        self, ours: "_Outputs", theirs: "_Outputs"
    ) -> list[tuple[str, float, Tensor]]:
        config = self.distillation
        frames = length_mask(ours.lengths, ours.encoded.shape[1])
        losses = []
        if self.layerwise is not None:
            eligible = self.attending if self.gated is None else self.gated.open_attention
            if eligible is not None:
                eligible = [block for block in eligible if block < len(theirs.hidden)]
            value = self.layerwise(ours.hidden, theirs.hidden, frames, self.blocks, eligible)
            losses.append(("loss_layer", config.layer_weight, value))
        if config.ctc_weight > 0 and ours.ctc_logits is not None:
            value = kl_loss(ours.ctc_logits, theirs.ctc_logits, frames, config.temperature)
            losses.append(("loss_ctc_kl", config.ctc_weight, value))
        if config.attention_weight > 0 and ours.decoded is not None:
            tokens = ours.targets != self.student.ignore_id
            value = kl_loss(ours.decoded, theirs.decoded, tokens, config.temperature)
            losses.append(("loss_att_kl", config.attention_weight, value))
        return losses

    @torch.no_grad()
    def _size_stats(self, size_loss: Tensor) -> dict[str, Tensor]:
        gated = self.gated
        stats = {
            "loss_sparsity": size_loss,
            "target_sparsity": torch.tensor(self.method.target_now(gated)),
            "expected_sparsity": gated.expected_sparsity(),
            "hard_sparsity": torch.tensor(gated.hard_sparsity()),
            **gated.controller.values(),
        }
        return {name: value.detach().float() for name, value in stats.items()}


class _Outputs:
    """What one model makes of a batch.

    Attributes:
        encoded: (B, T, D), after the last norm.
        lengths: (B,), frames.
        hidden: (B, T, D) of every block; of the last, before the encoder's last norm where it has
            one, but after it in Whisper, whose last is ``encoded``.
        ctc_logits: (B, T, V), None without CTC.
        decoded: (B, L, V), None without a decoder.
        targets: (B, L), the text with its end.
    """

    def __init__(
        self,
        model: ESPnetASRModel,
        feats: Tensor,
        feats_lengths: Tensor,
        text: Tensor,
        text_lengths: Tensor,
    ) -> None:
        encoded, self.lengths, _ = model.encoder(feats, feats_lengths, return_all_hs=True)
        self.hidden: Sequence[Tensor] = ()
        if isinstance(encoded, tuple):
            encoded, self.hidden = encoded
        self.encoded = encoded
        self.ctc_logits = None if model.ctc is None else model.ctc.ctc_lo(encoded)
        self.decoded = self.targets = None
        if model.decoder is not None:
            inputs, self.targets = add_sos_eos(text, model.sos, model.eos, model.ignore_id)
            self.decoded, _ = model.decoder(encoded, self.lengths, inputs, text_lengths + 1)


def _check(model: ESPnetASRModel) -> None:
    for name in ("preencoder", "postencoder"):
        if getattr(model, name, None) is not None:
            raise ModelError(f"{name}: can't be joined with distillation yet; leave it out")
    if model.use_transducer_decoder or model.use_linear_decoder:
        raise ModelError("decoder: only CTC and attention models can be pruned yet")
