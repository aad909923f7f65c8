"""Layerwise distillation: chosen teacher layers teach the student's blocks through a linear map."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from espnet_prune.config import check_choice, check_range
from espnet_prune.distill.losses import LAYER_LOSSES, layer_loss
from espnet_prune.distill.mapping import MAPPINGS, choose, default_teacher_layers
from espnet_prune.errors import ConfigError


@dataclass(frozen=True)
class DistillConfig:
    """Weights and choices of distillation; a weight of 0 turns its part off.

    None of P1's were found. CoFi's code: 0.9 layers, 0.1 outputs, temperature 2, no label loss.

    All parts count alike: ESPnet's loss of the labels is a sum over an utterance, so the parts of
    distillation, which are made as means of a frame or token, are multiplied by how many of these
    an utterance of the batch has.

    Attributes:
        label_weight: weight of the task's own loss on the labels.
        layer_weight: weight of the layerwise loss.
        ctc_weight: weight of the KL divergence on CTC outputs.
        attention_weight: weight of the KL divergence on the attention decoder's outputs.
        temperature: temperature of both KL divergences.
        balance: beta of balanced distillation on outputs (``distill.balance``); 0 weighs what the
            teacher seldom says as much as what it often says.
        blank_context: frames of the KL on CTC outputs. None takes all; 0 those alone at which the
            teacher's likeliest token isn't the blank, and n also n blank frames on both sides of
            each (blank elimination and symmetric selection, Hilmes et al. 2025, arXiv 2506.01503).
        layer_loss: ``mse`` or ``l1_cosine``.
        mapping: ``fixed``, ``argmin``, ``monotone`` or ``roomy``.
        sum_layers: whether the losses of the pairs of layers are added, as CoFi's code does, and
            not averaged.
        teacher_layers: teacher blocks, from 0; empty for a quarter, half, three quarters, last.
        keep_teacher_outputs: whether what the teacher says of each utterance is computed once for
            all systems of an experiment and read from its folder at every update. It saves the
            teacher's pass, takes 3 GB for 10 hours and 1,000 tokens, and needs an input that
            nothing alters: no SpecAugment.
    """

    label_weight: float = 1.0
    layer_weight: float = 1.0
    ctc_weight: float = 1.0
    attention_weight: float = 1.0
    temperature: float = 2.0
    balance: float = 0.0
    blank_context: int | None = None
    layer_loss: str = "mse"
    mapping: str = "fixed"
    sum_layers: bool = False
    teacher_layers: tuple[int, ...] = ()
    keep_teacher_outputs: bool = False

    def __post_init__(self) -> None:
        check_choice("distillation: layer_loss", self.layer_loss, LAYER_LOSSES)
        check_choice("distillation: mapping", self.mapping, MAPPINGS)
        check_range("distillation: temperature", self.temperature, 0.01, 100)
        check_range("distillation: balance", self.balance, 0, 0.999999)
        if self.blank_context is not None:
            check_range("distillation: blank_context", self.blank_context, 0, 1000)
        for name in ("label_weight", "layer_weight", "ctc_weight", "attention_weight"):
            check_range(f"distillation: {name}", getattr(self, name), 0, 1e6)
        if not self.needs_teacher and not self.label_weight:
            raise ConfigError("distillation: all weights are 0, so nothing is learned; raise one")
        layers = self.teacher_layers
        rising = all(a < b for a, b in zip(layers, layers[1:], strict=False))
        if not rising or min(layers, default=0) < 0:
            raise ConfigError(
                f"distillation: teacher_layers: {list(layers)}; rising numbers from 0 were expected"
            )

    @property
    def needs_teacher(self) -> bool:
        """Whether any part of the loss needs the teacher's outputs."""
        return self.layer_weight > 0 or self.ctc_weight > 0 or self.attention_weight > 0


class LayerwiseDistillation(nn.Module):
    """The layerwise loss, with one linear map, started at the identity, for all layers.

    Args:
        config: loss, mapping and teacher layers.
        teacher_blocks: number of the teacher's blocks.
        size: model dimension D.

    Raises:
        ConfigError: a teacher layer that the teacher doesn't have.
    """

    def __init__(self, config: DistillConfig, teacher_blocks: int, size: int) -> None:
        super().__init__()
        self.config = config
        self.layers = config.teacher_layers or default_teacher_layers(teacher_blocks)
        for layer in self.layers:
            if layer >= teacher_blocks:
                raise ConfigError(
                    f"distillation: teacher_layers: {layer} is not below {teacher_blocks}, the "
                    "number of the teacher's blocks (counted from 0)"
                )
        self.map = nn.Linear(size, size)
        nn.init.eye_(self.map.weight)
        nn.init.zeros_(self.map.bias)

    def forward(
        self,
        student: Sequence[Tensor],
        teacher: Sequence[Tensor] | Mapping[int, Tensor],
        valid: Tensor,
        student_blocks: Sequence[int],
        eligible: Sequence[int] | None = None,
    ) -> Tensor:
        """The mean loss over the chosen pairs, or their sum, ().

        Args:
            student: hidden states (B, T, D) of the student's blocks.
            teacher: hidden states (B, T, D) of the teacher's blocks, by index; of ``layers``.
            valid: (B, T), True on real frames.
            student_blocks: original indices of the student's blocks.
            eligible: blocks that ``monotone`` and ``roomy`` may choose.
        """
        if not student:
            return teacher[self.layers[0]].new_zeros(())
        kind = self.config.layer_loss
        targets = [teacher[layer] for layer in self.layers]
        if self.config.mapping == "fixed":
            distances = valid.new_zeros((len(targets), len(student)), dtype=torch.float)
        else:
            with torch.no_grad():
                mapped = [self.map(hidden) for hidden in student]
                rows = [
                    torch.stack([layer_loss(kind, m, target, valid) for m in mapped])
                    for target in targets
                ]
                distances = torch.stack(rows)
        columns = choose(self.config.mapping, distances, self.layers, student_blocks, eligible)
        losses = [
            layer_loss(kind, self.map(student[column]), target, valid)
            for column, target in zip(columns, targets, strict=True)
        ]
        together = torch.stack(losses)
        return together.sum() if self.config.sum_layers else together.mean()
