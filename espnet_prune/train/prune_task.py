"""The ESPnet tasks of stages 8 and 10: how the models and their optimisers are made."""

import argparse
import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from safetensors.torch import load_file
from torch import nn

from espnet_prune.errors import ConfigError
from espnet_prune.methods import Method
from espnet_prune.methods.base import LearningMethod
from espnet_prune.models.espnet import choices  # noqa: F401  (registers the encoder, spawned ones too)
from espnet_prune.models.whisper.preprocessing import OwnText
from espnet_prune.surgery import inject, load
from espnet_prune.surgery.sparse import hold_zeros
from espnet_prune.train import schedule
from espnet_prune.train.criterion import check_decoder_for
from espnet_prune.train.distributed import process_rank, processes
from espnet_prune.train.disturbed import Disturbed
from espnet_prune.train.ladder_trainer import LadderTrainer
from espnet_prune.train.teacher_outputs import KeptOutputs
from espnet_prune.train.trainer import GuardedTrainer

from espnet2.tasks.abs_task import optim_classes  # isort: skip  (after the stubs)
from espnet2.tasks.asr import ASRTask  # isort: skip

schedule.register()  # here, so that spawned processes have it, too


@dataclass(frozen=True)
class Setting:
    """What the tasks below train, as objects: ESPnet's own options say the rest.

    Attributes:
        method: with the target, the options, the length of the run.
        teacher: folder of the uncompressed model.
        student: folder of the cut model, for finetuning.
        origin: folder of the model that is pruned, where that isn't the teacher.
        order: file of the scores by which gates begin, if the method asks for them.
        teacher_outputs: folders of what the teacher says of the data, where that was kept.
    """

    method: Method
    teacher: Path
    student: Path | None = None
    origin: Path | None = None
    order: Path | None = None
    teacher_outputs: tuple[Path, ...] = ()

    def kept_outputs(self) -> KeptOutputs | None:
        """The teacher's outputs, if they were kept."""
        return KeptOutputs(self.teacher_outputs) if self.teacher_outputs else None


class _DistillTask(OwnText, ASRTask):
    """What both stages share: the setting, and clipping each group apart."""

    trainer = GuardedTrainer
    setting: ClassVar[Setting]

    @classmethod
    def of(cls, setting: Setting) -> type:
        """The task that trains this setting."""
        return type(cls.__name__, (cls,), {"setting": setting})

    @classmethod
    def check_processes(cls) -> None:
        """ConfigError for gradients to be compressed that no process sends."""
        kind = cls.setting.method.student.gradients.kind
        if kind != "none" and processes() == 1:
            raise ConfigError(
                f"student: gradients: kind: {kind}: one process sends no gradients; leave it out, "
                "or train on several GPUs or nodes"
            )

    @classmethod
    def weights_optimizer(
        cls,
        args: argparse.Namespace,
        parameters: list[nn.Parameter],
        clip: float,
        disturbed: Disturbed | None = None,
    ) -> torch.optim.Optimizer:
        """The configured optimiser over the weights, clipped by themselves."""
        optimizer = optim_classes[args.optim](parameters, **args.optim_conf)
        if disturbed is not None:  # first: clipping then sees what the step takes
            optimizer.register_step_pre_hook(disturbed.restore)
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]  # asked for by schedulers that don't begin at 0
        clip_before_steps(optimizer, {0: clip})
        return optimizer


class PruneTask(_DistillTask):
    """Stage 8: the teacher's copy with gates, learned and distilled."""

    num_optimizers = 2
    trainer = LadderTrainer

    @classmethod
    def build_model(cls, args: argparse.Namespace) -> nn.Module:
        """The gated student beside its teacher."""
        from espnet_prune.train.distilled_model import DistilledModel

        cls.check_processes()
        setting, method = cls.setting, cls.setting.method
        teacher = load(setting.teacher)
        student = load(setting.origin) if setting.origin else copy.deepcopy(teacher)
        gated = inject(student, method)
        if isinstance(method, LearningMethod):
            method.begin(gated, load_file(setting.order) if setting.order else None)
        gated.rank = process_rank()
        return DistilledModel(
            gated,
            teacher,
            method.distillation,
            method.student,
            method,
            setting.kept_outputs(),
            args.seed,
        )

    @classmethod
    def build_optimizers(
        cls, args: argparse.Namespace, model: nn.Module
    ) -> list[torch.optim.Optimizer]:
        """One optimiser for the weights, one for gates and multipliers, which don't decay.

        Raises:
            ConfigError: ``optim2`` doesn't read what the method sets for its gates.
        """
        method, clip = model.method, model.method.config.clip
        groups = method.parameter_groups(model.gated)
        special = {id(p) for group in groups for p in group["params"]}
        weights = [p for p in model.parameters() if id(p) not in special and p.requires_grad]
        gates = optim_classes[args.optim2](groups, **args.optim2_conf)
        if unread := {key for group in groups for key in group} - {"params", *gates.defaults}:
            raise ConfigError(
                f"optim2: '{args.optim2}' doesn't read {sorted(unread)}, which "
                f"{type(model.method).__name__} sets for its gates; choose adam or adamw"
            )
        norms = dict(enumerate((clip.gates, clip.multipliers)[: len(groups)]))
        clip_before_steps(gates, norms)
        gates.register_step_post_hook(lambda *unused: model.gated.after_update())
        optimizer = cls.weights_optimizer(args, weights, clip.weights, model.disturbed)
        hold_zeros(model.gated.model, optimizer)  # of a model that lost single weights before
        return [optimizer, gates]


class FinetuneTask(_DistillTask):
    """Stage 10: the cut model, distilled from the same teacher."""

    @classmethod
    def build_model(cls, args: argparse.Namespace) -> nn.Module:
        """The cut student beside its teacher."""
        from espnet_prune.train.distilled_model import DistilledModel

        cls.check_processes()
        setting, method = cls.setting, cls.setting.method
        student = load(setting.student)
        student.train()
        check_decoder_for(args, student)
        return DistilledModel(
            student,
            load(setting.teacher),
            method.distillation,
            method.student,
            kept=setting.kept_outputs(),
            seed=args.seed,
        )

    @classmethod
    def build_optimizers(
        cls, args: argparse.Namespace, model: nn.Module
    ) -> list[torch.optim.Optimizer]:
        """The configured optimiser over all weights of the student and the linear map."""
        weights = [p for p in model.parameters() if p.requires_grad]
        clip = cls.setting.method.config.clip.weights
        optimizer = cls.weights_optimizer(args, weights, clip, model.disturbed)
        hold_zeros(model.plain, optimizer)
        return [optimizer]


def clip_before_steps(optimizer: torch.optim.Optimizer, norms: dict[int, float]) -> None:
    """Clips each parameter group to its own gradient norm before every step.

    ESPnet clips all parameters as one norm, in which large gradients of gates and multipliers
    would shrink the weights' steps; its own clipping is therefore turned off for these tasks.
    """
    optimizer.register_step_pre_hook(_clipper(norms))


def _clipper(norms: dict[int, float]) -> Callable:
    def clip(optimizer: torch.optim.Optimizer, *unused) -> None:
        for index, norm in norms.items():
            torch.nn.utils.clip_grad_norm_(optimizer.param_groups[index]["params"], norm)

    return clip
