"""The ESPnet tasks of stages 8 and 10: how the models and their optimisers are made.

``prune_conf`` of the configuration says which system is pruned; it is read into dataclasses, so
an unknown key is an error.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from espnet_prune.budget import Rung
from espnet_prune.config import to_dataclass
from espnet_prune.errors import ConfigError
from espnet_prune.methods import Method, MethodConfig, make_method
from espnet_prune.methods.base import LearningMethod
from espnet_prune.models.espnet import choices  # noqa: F401  (registers the encoder, spawned ones too)
from espnet_prune.models.whisper.preprocessing import OwnText
from espnet_prune.surgery import GatedModel, inject, load
from espnet_prune.surgery.sparse import hold_zeros
from espnet_prune.train.criterion import check_decoder_for
from espnet_prune.train.distributed import process_rank
from espnet_prune.train.ladder_trainer import LadderTrainer
from espnet_prune.train.teacher_outputs import KeptOutputs
from espnet_prune.train.trainer import GuardedTrainer

from espnet2.tasks.abs_task import optim_classes  # isort: skip  (after the stubs)
from espnet2.tasks.asr import ASRTask  # isort: skip
from espnet2.utils.nested_dict_action import NestedDictAction  # isort: skip


@dataclass(frozen=True)
class SystemConfig:
    """One row of the table: a method with its target and seed.

    Attributes:
        method: a name in ``espnet_prune.methods.METHODS``.
        target: wanted sparsity.
        seed: of the gates' noise, the batches and everything else random.
        options: of the method; keys given here win over the recipe's prune.yaml.
        training: keys of ESPnet's training configuration that win over prune.yaml and
            finetune.yaml for this system, such as another learning rate.
        ladder: smaller targets that the run passes, by rising sparsity; the state of each is kept,
            and other systems can be made of it. None for none.
        taken_from: the system whose ladder has this one's target; nothing is learned for this one.
    """

    method: str
    target: float = 0.5
    seed: int = 0
    options: dict[str, object] = field(default_factory=dict)
    training: dict[str, object] = field(default_factory=dict)
    ladder: tuple[float, ...] | None = None
    taken_from: str | None = None


@dataclass(frozen=True)
class PruneConf:
    """What the tasks below must know.

    Attributes:
        teacher: folder of the uncompressed model.
        student: folder of the cut model, for finetuning.
        system: which method, target and seed.
        method: the method's options.
        updates: number of updates of the pruning stage.
        ladder_updates: after how many of them each rung of the system's ladder is kept.
        order: file of the scores by which gates begin, if a method asks for them.
        teacher_outputs: folders of what the teacher says of the data, where that was kept.
    """

    teacher: str
    system: SystemConfig
    method: MethodConfig = field(default_factory=MethodConfig)
    student: str | None = None
    updates: int = 1
    ladder_updates: tuple[int, ...] | None = None
    order: str | None = None
    teacher_outputs: tuple[str, ...] = ()

    def gated_model(self) -> tuple[GatedModel, Method]:
        """The teacher's copy with the method's gates, ready for the first update; the method."""
        from safetensors.torch import load_file

        method = self.build_method()
        gated = inject(load(self.teacher), method)
        if isinstance(method, LearningMethod):
            method.begin(gated, load_file(self.order) if self.order else None)
        return gated, method

    def kept_outputs(self) -> KeptOutputs | None:
        """The teacher's outputs, if they were kept."""
        return KeptOutputs(map(Path, self.teacher_outputs)) if self.teacher_outputs else None

    def build_method(self) -> Method:
        """The method itself."""
        system, options = self.system, {}
        if self.ladder_updates:
            pairs = zip(system.ladder or (), self.ladder_updates, strict=True)
            options["ladder"] = tuple(Rung(target, updates) for target, updates in pairs)
        return make_method(
            system.method,
            target=system.target,
            seed=system.seed,
            config=self.method,
            updates=self.updates,
            **options,
        )


class _DistillTask(OwnText, ASRTask):
    """What both stages share: the extra argument, and clipping each group apart."""

    trainer = GuardedTrainer

    @classmethod
    def add_task_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """ESPnet's arguments and ``--prune_conf``."""
        super().add_task_arguments(parser)
        parser.add_argument("--prune_conf", action=NestedDictAction, default={})

    @classmethod
    def prune_conf(cls, args: argparse.Namespace) -> PruneConf:
        """The checked ``prune_conf``."""
        return to_dataclass(PruneConf, args.prune_conf, "prune_conf")

    @classmethod
    def weights_optimizer(
        cls, args: argparse.Namespace, parameters: list[nn.Parameter], clip: float
    ) -> torch.optim.Optimizer:
        """The configured optimiser over the weights, clipped by themselves."""
        optimizer = optim_classes[args.optim](parameters, **args.optim_conf)
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

        conf = cls.prune_conf(args)
        gated, method = conf.gated_model()
        gated.rank = process_rank()
        return DistilledModel(
            gated,
            load(conf.teacher),
            method.distillation,
            method.student,
            method,
            conf.kept_outputs(),
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
        return [cls.weights_optimizer(args, weights, clip.weights), gates]


class FinetuneTask(_DistillTask):
    """Stage 10: the cut model, distilled from the same teacher."""

    @classmethod
    def build_model(cls, args: argparse.Namespace) -> nn.Module:
        """The cut student beside its teacher."""
        from espnet_prune.train.distilled_model import DistilledModel

        conf = cls.prune_conf(args)
        method = conf.build_method()
        student = load(conf.student)
        student.train()
        check_decoder_for(args, student)
        return DistilledModel(
            student,
            load(conf.teacher),
            method.distillation,
            method.student,
            kept=conf.kept_outputs(),
        )

    @classmethod
    def build_optimizers(
        cls, args: argparse.Namespace, model: nn.Module
    ) -> list[torch.optim.Optimizer]:
        """The configured optimiser over all weights of the student and the linear map."""
        weights = [p for p in model.parameters() if p.requires_grad]
        clip = cls.prune_conf(args).method.clip.weights
        optimizer = cls.weights_optimizer(args, weights, clip)
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
