"""Seconds and memory of a training's batch on this machine, measured on noise.

The model, its optimisers and the losses are those of the configuration; nothing is learned. A GPU
measures whole batches; a CPU may measure a smaller one, and what it takes is proportional to the
number of utterances.
"""

import contextlib
import resource
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import nn

from espnet_prune.errors import EnvironmentProblem
from espnet_prune.methods import make_method, options_of
from espnet_prune.models.espnet.build import build_asr_model
from espnet_prune.surgery import cut, inject, load, save
from espnet_prune.train.precision import bfloat16_passes, cpu_has_bfloat16
from espnet_prune.train.prune_task import FinetuneTask, PruneTask, Setting
from espnet_prune.train.run_cost import SAMPLE_RATE, Corpus, Step
from espnet_prune.train.system_config import SystemConfig, plain
from espnet_prune.train.teacher_task import TeacherTask

SPECIAL_TOKENS = ("<blank>", "<unk>", "<sos/eos>")
AMPLITUDE = 0.1


class StepTimer:
    """Measures the trainings of one recipe.

    Args:
        corpus: says how long utterances and texts are.
        utterances: in the measured batch; None for as many as a GPU's share of the batch has.
        updates: measured, after one that isn't.
        ngpu: GPUs that share a batch; 0 for the CPU.
        processor_seconds: counts the time of this process's threads instead of the clock's, on a
            CPU that others use too.
    """

    def __init__(
        self,
        corpus: Corpus,
        utterances: int | None,
        updates: int = 2,
        ngpu: int = 0,
        processor_seconds: bool = False,
    ) -> None:
        if ngpu and not torch.cuda.is_available():
            raise EnvironmentProblem(
                "--ngpu: no CUDA device can be used here; measure on the machine that will train, "
                "or leave --ngpu out to measure a CPU"
            )
        self.device = torch.device("cuda" if ngpu else "cpu")
        self.processes = max(1, ngpu)
        self.corpus = corpus
        self.utterances = utterances
        self.updates = updates
        self.clock = time.process_time if processor_seconds else time.perf_counter

    def teacher(self, config: Mapping, folder: Path) -> Step:
        """Stage 6; leaves its model, which knows nothing, in a folder for the other stages."""
        model = build_asr_model(config)
        save(model, folder)
        arguments = _arguments(TeacherTask, config)
        return self._measure(model, TeacherTask.build_optimizers(arguments, model), config)

    def prune(self, config: SystemConfig, teacher: Path) -> Step:
        """Stage 8 of a system that learns its masks."""
        task = PruneTask.of(Setting(config.build_method(), teacher))
        return self._distilled(task, config.prune.training)

    def finetune(self, config: SystemConfig, teacher: Path, folder: Path) -> Step:
        """Stage 10: the teacher cut by random masks to the system's size, distilled."""
        student = load(teacher)
        if config.target:  # else it is finetuned whole
            options = options_of("random", plain(config.finetune.method))
            random = make_method("random", options, target=config.target)
            gated = inject(student, random)
            student = cut(gated, random.aligned(gated, random.masks(gated)))
        save(student, folder)
        task = FinetuneTask.of(Setting(config.build_method("finetune"), teacher, folder))
        return self._distilled(task, config.finetune.training)

    def _distilled(self, task: type, training: Mapping) -> Step:
        arguments = _arguments(task, training)
        model = task.build_model(arguments)
        return self._measure(model, task.build_optimizers(arguments, model), training)

    def _measure(self, model: nn.Module, optimizers: list, config: Mapping) -> Step:
        model.to(self.device).train()
        batch = self._batch(_vocabulary(model), config["batch_bins"])
        mixed = config.get("use_amp")
        with contextlib.ExitStack() as stack:
            if mixed and self.device.type == "cpu" and cpu_has_bfloat16():
                stack.enter_context(bfloat16_passes(model))
            return self._timed(model, optimizers, batch, mixed and self.device.type == "cuda")

    def _timed(self, model: nn.Module, optimizers: list, batch: dict, on_cuda: bool) -> Step:
        amp = partial(torch.autocast, self.device.type, torch.bfloat16, enabled=bool(on_cuda))

        def backward() -> None:
            with amp():
                loss = model(**batch)[0]
            loss.backward()

        def forward() -> None:
            with torch.no_grad(), amp():
                model(**batch)

        def update() -> None:
            for optimizer in optimizers:
                optimizer.step()
            for optimizer in optimizers:
                optimizer.zero_grad()

        with self._memory() as peak:
            backward(), update()
            passes, steps = [], []
            for _ in range(self.updates):
                passes.append(self._seconds(backward))
                steps.append(self._seconds(update))
        model.eval()
        states = [optimizer.state_dict() for optimizer in optimizers]
        return Step(
            batch_samples=batch["speech"].numel(),
            batch_seconds=min(passes),
            forward_seconds=self._seconds(forward),
            update_seconds=min(steps),
            peak_bytes=peak[0],
            weight_bytes=_bytes(model.state_dict()),
            optimizer_bytes=_bytes(states),
        )

    def _batch(self, vocabulary: int, bins: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        seconds = self.corpus.utterance_seconds
        samples = round(seconds * SAMPLE_RATE)
        number = self.utterances or max(1, bins // self.processes // samples)
        tokens = max(1, round(seconds * self.corpus.tokens_per_second))
        batch = {
            "speech": AMPLITUDE * torch.randn(number, samples, generator=generator),
            "speech_lengths": torch.full((number,), samples),
            "text": torch.randint(2, vocabulary - 1, (number, tokens), generator=generator),
            "text_lengths": torch.full((number,), tokens),
        }
        return {name: value.to(self.device) for name, value in batch.items()}

    def _seconds(self, action: Callable[[], None]) -> float:
        self._wait()
        began = self.clock()
        action()
        self._wait()
        return self.clock() - began

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    @contextlib.contextmanager
    def _memory(self) -> Iterator[list[int]]:
        """Its only element is the peak in bytes, afterwards."""
        peak = [0]
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        yield peak
        if self.device.type == "cuda":
            peak[0] = torch.cuda.max_memory_allocated()
        else:  # KiB on Linux; of everything so far
            peak[0] = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def teacher_config(training: Mapping, vocabulary: int) -> dict:
    """A checked teacher.yaml with tokens that nobody made."""
    tokens = [f"t{number}" for number in range(vocabulary - len(SPECIAL_TOKENS))]
    blank, unknown, end = SPECIAL_TOKENS
    return {**training, "token_list": [blank, unknown, *tokens, end], "token_type": "char"}


def _arguments(task: type, config: Mapping) -> Namespace:
    """ESPnet's options with the configuration's values."""
    defaults, _ = task.get_parser().parse_known_args([])
    return Namespace(**{**vars(defaults), **config})


def _vocabulary(model: nn.Module) -> int:
    return getattr(model, "student", model).vocab_size


def _bytes(value: object) -> int:
    """Bytes of all tensors in it."""
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, Mapping):
        return sum(_bytes(inner) for inner in value.values())
    return sum(_bytes(inner) for inner in value) if isinstance(value, (list, tuple)) else 0
