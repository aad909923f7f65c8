"""Around imports of ESPnet: stubs of what it can do without, quiet, and in half the time."""

import contextlib
import functools
import importlib.util
import inspect
import io
import sys
import types
from collections.abc import Callable, Iterator
from unittest import mock

import torch
import typeguard

from espnet_prune.models.espnet.editdistance_stub import ensure_editdistance
from espnet_prune.models.espnet.torchaudio_stub import ensure_torchaudio
from espnet_prune.models.espnet.warprnnt_stub import ensure_warprnnt

JETS = "espnet2.gan_tts.jets"
QWEN = "espnet2.text.qwen2audio_tokenizer"
BART = "transformers.models.bart.modeling_bart"
WAV2VEC2 = "transformers.models.wav2vec2.modeling_wav2vec2"
TRACED = ("espnet2.asr.", "espnet2.layers.")  # what an export may run: checked as ESPnet has it


@contextlib.contextmanager
def importing_espnet() -> Iterator[None]:
    """Within it, ESPnet is imported without its regret that flash_attn isn't installed."""
    ensure_torchaudio()
    ensure_editdistance()
    ensure_warprnnt()
    checked = functools.partial(_checked_from_the_first_call, typeguard.typechecked)
    disabled = functools.partial(_disabled_where_compiled, torch.compiler.disable)
    with (
        contextlib.redirect_stderr(io.StringIO()),
        mock.patch.object(typeguard, "typechecked", checked),
        mock.patch.object(torch.compiler, "disable", disabled),
        _spared(),
    ):
        yield


@contextlib.contextmanager
def _spared() -> Iterator[None]:
    """Within it, what takes half of ESPnet's import for functions that nothing here calls.

    These are classes of transformers, for adapters of models of s3prl and for BEATs, one of speech
    synthesis, whose attention would be drawn, and a tokenizer. Afterwards all can be imported.
    """
    alignments, qwen = types.ModuleType(f"{JETS}.alignments"), types.ModuleType(QWEN)
    alignments.AlignmentModule = type("AlignmentModule", (), {})
    qwen.Qwen2AudioTokenizer = _qwen_tokenizer
    spared = {JETS: types.ModuleType(JETS), alignments.__name__: alignments, QWEN: qwen, BART: None}
    if importlib.util.find_spec("s3prl") is None:
        spared[WAV2VEC2] = None
    spared = {name: module for name, module in spared.items() if name not in sys.modules}
    sys.modules.update(spared)
    try:
        yield
    finally:
        for name in spared:
            del sys.modules[name]


def _qwen_tokenizer() -> object:
    from espnet2.text.qwen2audio_tokenizer import Qwen2AudioTokenizer

    return Qwen2AudioTokenizer()


def _disabled_where_compiled(disable: Callable, function: object = None, **options: object):
    """``torch.compiler.disable``, without its import of the compiler, which takes a second."""
    if not inspect.isfunction(function) or not function.__module__.startswith("espnet2."):
        return disable(function, **options)
    disabled = functools.cache(lambda: disable(function))

    @functools.wraps(function)
    def call(*args: object, **keywords: object) -> object:
        return (disabled() if "torch._dynamo" in sys.modules else function)(*args, **keywords)

    return call


def _checked_from_the_first_call(typechecked: Callable, target: object = None, **options: object):
    """Typeguard's decorator, which does its work when a function is first called.

    For each function it parses and compiles the whole module again, and ESPnet's modules of tasks
    and preprocessing have many that a process never calls.
    """
    plain = inspect.isfunction(target) and "<locals>" not in target.__qualname__ and not options
    if not plain or target.__module__.startswith(TRACED):
        return typechecked(target, **options)
    checked = functools.cache(lambda: typechecked(target))

    @functools.wraps(target)
    def call(*args: object, **keywords: object) -> object:
        return checked()(*args, **keywords)

    return call
