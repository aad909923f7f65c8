"""Mixed precision: on the CPU, and of several optimisers under one scale of gradients.

ESPnet's ``use_amp`` knows CUDA alone; on the CPU, products are in bfloat16 where the processor
multiplies it itself. Weights, gradients, optimiser, gates and losses stay float32, and so do the
features, whose products would lose what decoding has.
"""

import contextlib
from collections.abc import Iterator, Sequence

import torch
from espnet2.asr.ctc import CTC
from espnet2.asr.frontend.abs_frontend import AbsFrontend
from espnet2.legacy.nets.pytorch_backend.transformer.label_smoothing_loss import LabelSmoothingLoss
from torch import nn
from torch.amp import GradScaler

IN_FLOAT32 = (AbsFrontend, CTC, LabelSmoothingLoss)


def cpu_has_bfloat16() -> bool:
    """Whether this processor has AVX-512 BF16 or AMX; others emulate it, slower than float32."""
    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def in_bfloat16(task: type) -> type:
    """The same ESPnet task, whose training and validation passes are in mixed precision.

    Args:
        task: with a ``trainer``, ESPnet's or one derived from it.
    """

    class Bfloat16Trainer(task.trainer):
        """Enters ``bfloat16_passes`` around the training."""

        @classmethod
        def run(cls, model: nn.Module, **keywords) -> None:
            with bfloat16_passes(model):
                super().run(model=model, **keywords)

    return type(task.__name__, (task,), {"trainer": Bfloat16Trainer})


@contextlib.contextmanager
def bfloat16_passes(model: nn.Module) -> Iterator[None]:
    """Within it, the model's forward passes on the CPU multiply in bfloat16.

    Args:
        model: each call of it is one; its ``IN_FLOAT32`` modules take and give float32.
    """
    handles = _around(model, enabled=True)
    for module in model.modules():
        if isinstance(module, IN_FLOAT32):
            handles += _around(module, enabled=False)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def one_scale(scaler: GradScaler | None, optimizers: Sequence[torch.optim.Optimizer]) -> Iterator:
    """Within it, the steps of several optimisers are one update of the gradients' scale.

    ESPnet's loop updates the scale after the step of each: the state of the others is lost then,
    and their gradients, which are in their own units already, are divided by the scale once more.
    Where one optimiser's gradients overflowed, the others would step alone.

    Args:
        scaler: ESPnet's; None without mixed precision.
        optimizers: all that step, in turn, in every update.
    """
    if scaler is None or len(optimizers) < 2:
        yield
        return
    stock_step, stock_update, updates = scaler.step, scaler.update, 0

    def step(optimizer: torch.optim.Optimizer, *arguments, **keywords) -> float | None:
        finite = all(map(_has_finite_gradients, optimizers))
        return stock_step(optimizer, *arguments, **keywords) if finite else None

    def update(*arguments, **keywords) -> None:
        nonlocal updates
        updates += 1
        if updates % len(optimizers) == 0:
            stock_update(*arguments, **keywords)

    scaler.step, scaler.update = step, update
    try:
        yield
    finally:
        del scaler.step, scaler.update  # the class's own again


def _has_finite_gradients(optimizer: torch.optim.Optimizer) -> bool:
    parameters = (p for group in optimizer.param_groups for p in group["params"])
    gradients = [p.grad for p in parameters if p.grad is not None]
    return bool(torch.isfinite(torch.nn.utils.get_total_norm(gradients)))


def _around(module: nn.Module, enabled: bool) -> list:
    entered: list[torch.autocast] = []

    def enter(_module: nn.Module, inputs: tuple) -> tuple | None:
        context = torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled)
        context.__enter__()
        entered.append(context)
        return None if enabled else tuple(_float32(value) for value in inputs)

    def leave(_module: nn.Module, inputs: tuple, output: object) -> None:
        entered.pop().__exit__(None, None, None)

    return [
        module.register_forward_pre_hook(enter),
        module.register_forward_hook(leave, always_call=True),
    ]


def _float32(value: object) -> object:
    is_half = isinstance(value, torch.Tensor) and value.dtype == torch.bfloat16
    return value.float() if is_half else value
