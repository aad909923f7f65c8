"""The model that stages 8 and 10 train: a student, its teacher, and all parts of the loss.

Both see the same features: extracted and augmented once. The teacher is set aside of the module's
state, so checkpoints hold the student, its gates and the distillation's linear map alone; a resumed
training builds the teacher anew.
"""

import logging
from collections.abc import Mapping, Sequence
from functools import partial

import torch
from espnet2.asr.espnet_model import ESPnetASRModel
from espnet2.legacy.nets.pytorch_backend.nets_utils import th_accuracy
from espnet2.torch_utils.device_funcs import force_gatherable
from espnet2.train.abs_espnet_model import AbsESPnetModel
from torch import Tensor, nn

from espnet_prune.distill import (
    ClassBalance,
    DistillConfig,
    LayerwiseDistillation,
    kl_loss,
    length_mask,
    near_tokens,
)
from espnet_prune.errors import ConfigError, ModelError
from espnet_prune.methods.base import LearningMethod
from espnet_prune.methods.options import StudentConfig
from espnet_prune.models.conformer.fast_training import speed_up_training
from espnet_prune.sites import DECODER
from espnet_prune.surgery import GatedModel, plan_of
from espnet_prune.surgery.plan import encoder_blocks
from espnet_prune.train.disturbed import Disturbed
from espnet_prune.train.model_outputs import Outputs, features, outputs
from espnet_prune.train.quant_noise import QuantNoise
from espnet_prune.train.sharpness import SharpnessAware
from espnet_prune.train.teacher_outputs import KeptOutputs

logger = logging.getLogger(__name__)
NOT_COMPARED = (
    "distillation: of a transducer, the encoder's layers and CTC's output are compared with the "
    "teacher's; the joint network's output isn't, it learns from the labels"
)


class DistilledModel(AbsESPnetModel):
    """A student with the losses of pruning (gated) or of finetuning (cut).

    Args:
        student: the gated model of the pruning stage, or a plain ESPnetASRModel.
        teacher: the uncompressed ESPnetASRModel.
        distillation: weights of the parts.
        options: how the student is trained.
        method: gives the size term of a gated student.
        seed: seed of what is drawn where updates see changed weights.
        kept: the teacher's outputs, read instead of computed.

    Raises:
        ModelError: a part of the model that this loss doesn't know.
        ConfigError: the teacher's outputs were kept, but SpecAugment alters what it hears.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: ESPnetASRModel,
        distillation: DistillConfig,
        options: StudentConfig,
        method: LearningMethod | None = None,
        kept: KeptOutputs | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.gated = student if isinstance(student, GatedModel) else None
        self.plain = None if self.gated is not None else student
        self.distillation = distillation
        self.options = options
        self.method = method
        self.kept = kept
        _check(self.student)
        if self.student.use_transducer_decoder and distillation.attention_weight > 0:
            logger.info(NOT_COMPARED)
        self.augments = options.spec_augment and self.student.specaug is not None
        if kept is not None and self.augments:
            raise ConfigError(
                "distillation: keep_teacher_outputs: SpecAugment masks what the teacher hears, so "
                "that its outputs can't be kept; set student: {spec_augment: false}, or leave "
                "keep_teacher_outputs out"
            )
        if options.dropout is not None:
            set_dropout(self.student, options.dropout)
        if options.stochastic_depth is not None:
            for block in self.student.encoder.encoders:
                block.stochastic_depth_rate = options.stochastic_depth
        for model in (self.student, teacher):
            speed_up_training(model.encoder)
        teacher.requires_grad_(False)
        object.__setattr__(self, "teacher", teacher.eval())
        numbers = {block: index for index, block in enumerate(encoder_blocks(teacher))}
        self.teacher_blocks = blocks = len(numbers)
        self.blocks = [numbers[block] for block in encoder_blocks(self.student)]
        self.attending = attending_blocks(self.student, numbers)
        self.layerwise = None
        if distillation.layer_weight > 0:
            size = teacher.encoder.output_size()
            self.layerwise = LayerwiseDistillation(distillation, blocks, size)
        norm = getattr(self.student.encoder, "after_norm", None)
        if options.intermediate_ctc.blocks and (self.student.ctc is None or norm is None):
            raise ConfigError(
                f"student: intermediate_ctc: {type(self.student.encoder).__name__} has no CTC, or "
                "no norm behind its blocks; leave it out"
            )
        self.disturbed = _disturbed(self.student, options, seed)
        self.balances = nn.ModuleDict()  # of the frames' classes and of the tokens'
        if distillation.balance > 0:
            self.balances["attention"] = ClassBalance(self.student.vocab_size, distillation.balance)
            if self.student.ctc is not None:
                classes = self.student.ctc.ctc_lo.out_features
                self.balances["ctc"] = ClassBalance(classes, distillation.balance)

    def train(self, mode: bool = True) -> "DistilledModel":
        """As torch's, but for batch norms whose statistics are frozen.

        Weights that are still disturbed, because their update was skipped, are put back.
        """
        if self.disturbed is not None:
            self.disturbed.restore()
        super().train(mode)
        if self.options.norm_statistics == "frozen":
            for module in self.student.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

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
        utt_id: Sequence[str] = (),
        **unused,
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """The loss of a batch.

        Args:
            speech: (B, samples).
            speech_lengths: (B,).
            text: (B, tokens), padded by -1; left as it is.
            text_lengths: (B,).
            utt_id: names of the utterances, by which kept outputs are found.

        Returns:
            The loss, its parts and the sizes, the batch size.
        """
        text = text[:, : text_lengths.max()].clone()
        text[text == -1] = self.student.ignore_id
        augment = self.augments and self.training
        feats, lengths = features(self.student, speech, speech_lengths, augment)
        theirs = None
        if self.distillation.needs_teacher:
            theirs = self._theirs(feats, lengths, text, text_lengths, utt_id)
        run = partial(self._loss, feats, lengths, text, text_lengths, theirs)
        changes = self.disturbed is not None and self.training and torch.is_grad_enabled()
        loss, stats = self.disturbed(run) if changes else run()
        return force_gatherable((loss, stats, len(speech)), loss.device)

    def _loss(
        self,
        feats: Tensor,
        lengths: Tensor,
        text: Tensor,
        text_lengths: Tensor,
        theirs: Outputs | None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum of all parts, (), and each of them; ``theirs`` where the teacher teaches."""
        ours = outputs(self.student, feats, lengths, text, text_lengths)
        loss, stats = self._label_loss(ours, text, text_lengths)
        loss = loss * self.distillation.label_weight
        if theirs is not None:
            for name, weight, value in self._distillation_losses(ours, theirs):
                stats[name] = value.detach()
                loss = loss + weight * value
        if self.gated is not None:
            size_loss = self.method.loss(self.gated)
            stats.update(self._size_stats(size_loss))
            loss = loss + size_loss.to(loss.dtype)
        stats["loss"] = loss.detach()
        return loss, stats

    def collect_feats(
        self, speech: Tensor, speech_lengths: Tensor, text: Tensor, text_lengths: Tensor, **unused
    ) -> dict[str, Tensor]:
        """Features for statistics, as the student extracts them."""
        return self.student.collect_feats(speech, speech_lengths, text, text_lengths)

    @torch.no_grad()
    def _theirs(
        self,
        feats: Tensor,
        lengths: Tensor,
        text: Tensor,
        text_lengths: Tensor,
        utterances: Sequence[str],
    ) -> Outputs:
        if self.kept is not None:
            return self.kept.batch(utterances).to(feats.device)
        self.teacher.to(feats.device)
        return outputs(self.teacher, feats, lengths, text, text_lengths)

    def _label_loss(
        self, ours: Outputs, text: Tensor, text_lengths: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The task's own loss: CTC with attention or transducer, as in the teacher's training."""
        student, stats = self.student, {}
        loss = ours.encoded.new_zeros(())
        if student.ctc is not None:
            ctc = student.ctc(ours.encoded, ours.lengths, text, text_lengths)
            if ours.heard and student.interctc_weight:
                each = [student.ctc(h, ours.lengths, text, text_lengths) for h in ours.heard]
                between = torch.stack(each).mean(dim=0)
                stats["loss_interctc"] = between.detach()
                ctc = (1 - student.interctc_weight) * ctc + student.interctc_weight * between
            stats["loss_ctc"] = ctc.detach()
            weight = self.options.intermediate_ctc.weight
            losses = self._intermediate_losses(ours, text, text_lengths)
            if losses:
                stats["loss_intermediate_ctc"] = torch.stack(losses).mean().detach()
                ctc = (1 - weight) * ctc + weight * torch.stack(losses).mean()
            loss = loss + student.ctc_weight * ctc
        if student.use_transducer_decoder:
            transducer, *_ = student._calc_transducer_loss(ours.encoded, ours.lengths, text)
            stats["loss_transducer"] = transducer.detach()
            loss = loss + transducer
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

    def _intermediate_losses(
        self, ours: Outputs, text: Tensor, text_lengths: Tensor
    ) -> list[Tensor]:
        """CTC of some blocks' outputs, behind the encoder's last norm; of evenly many each."""
        number, depth = self.options.intermediate_ctc.blocks, len(ours.hidden)
        if not number:
            return []
        places = {depth * (i + 1) // (number + 1) for i in range(number)} - {0, depth}
        norm = self.student.encoder.after_norm
        return [
            self.student.ctc(norm(ours.hidden[place - 1]), ours.lengths, text, text_lengths)
            for place in sorted(places)
        ]

    def _distillation_losses(
        self, ours: Outputs, theirs: Outputs
    ) -> list[tuple[str, float, Tensor]]:
        """Each part's name, its weight times what an utterance has of it, and its mean of one."""
        config = self.distillation
        frames = length_mask(ours.lengths, ours.encoded.shape[1])
        frames_an_utterance = float(frames.sum()) / len(frames)
        losses = []
        if self.layerwise is not None:
            eligible = self.attending if self.gated is None else self.gated.open_attention
            if eligible is not None:  # the decoder's may be among them
                eligible = [block for block in eligible if block < self.teacher_blocks]
            value = self.layerwise(ours.hidden, theirs.hidden, frames, self.blocks, eligible)
            losses.append(("loss_layer", config.layer_weight * frames_an_utterance, value))
        if config.ctc_weight > 0 and ours.ctc_logits is not None:
            heard = frames
            if config.blank_context is not None:
                heard = near_tokens(theirs.ctc_logits, frames, config.blank_context)
            value = ours.ctc_logits.new_zeros(())  # where the teacher hears nothing
            if heard.any():
                value = self._kl("ctc", ours.ctc_logits, theirs.ctc_logits, heard)
            weight = config.ctc_weight * float(heard.sum()) / len(heard)
            losses.append(("loss_ctc_kl", weight, value))
        if config.attention_weight > 0 and ours.decoded is not None:
            tokens = ours.targets != self.student.ignore_id
            tokens_an_utterance = float(tokens.sum()) / len(tokens)
            value = self._kl("attention", ours.decoded, theirs.decoded, tokens)
            losses.append(("loss_att_kl", config.attention_weight * tokens_an_utterance, value))
        return losses

    def _kl(self, part: str, ours: Tensor, theirs: Tensor, valid: Tensor) -> Tensor:
        weights = self.balances[part](theirs, valid) if part in self.balances else None
        return kl_loss(ours, theirs, valid, self.distillation.temperature, weights)

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


def attending_blocks(student: nn.Module, numbers: Mapping[int, int]) -> list[int] | None:
    """Encoder blocks of a student that attend, by the teacher's indices; None where all do.

    Args:
        student: cut or not.
        numbers: the teacher's index of each block, by that in the model that was never cut.
    """
    plan = plan_of(student)
    found = None if plan is None else plan.without(DECODER).attending_blocks()
    return None if found is None else [numbers[block] for block in found]


def _disturbed(student: nn.Module, options: StudentConfig, seed: int) -> Disturbed | None:
    """What changes the student's weights for the pass that gradients come from, if anything."""
    weights = [p for p in student.parameters() if p.requires_grad]
    if options.sharpness.kind != "none":
        return SharpnessAware(weights, options.sharpness, seed)
    if options.quant_noise.bits:
        return QuantNoise(weights, options.quant_noise, seed)
    return None


def set_dropout(model: nn.Module, rate: float) -> None:
    """Sets every rate of dropout in a model, of modules and of attributes that have its name."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = rate
        for name, value in vars(module).items():
            if "dropout" in name and isinstance(value, float):
                setattr(module, name, rate)


def _check(model: ESPnetASRModel) -> None:
    for name in ("preencoder", "postencoder"):
        if getattr(model, name, None) is not None:
            raise ModelError(f"{name}: can't be joined with distillation yet; leave it out")
    if model.use_linear_decoder:
        raise ModelError("decoder: linear_decoder: classifiers can't be joined with distillation")
    if getattr(model, "transducer_multi_blank_durations", None):
        raise ModelError(
            "model_conf: transducer_multi_blank_durations: a transducer with several blanks can't "
            "be joined with distillation; leave it out"
        )
    if getattr(model, "aux_ctc", None):
        raise ModelError(
            "model_conf: aux_ctc: intermediate CTC on other transcripts can't be joined with "
            "pruning; leave it out"
        )
