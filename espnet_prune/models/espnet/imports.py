"""Around imports of ESPnet: stubs of what it can do without, quiet, and in half the time."""

import contextlib
import functools
import inspect
import io
from collections.abc import Callable, Iterator
from unittest import mock

import typeguard

from espnet_prune.models.espnet.editdistance_stub import ensure_editdistance
from espnet_prune.models.espnet.torchaudio_stub import ensure_torchaudio
from espnet_prune.models.espnet.warprnnt_stub import ensure_warprnnt

TRACED = ("espnet2.asr.", "espnet2.layers.")  # what an export may run: checked as ESPnet has it


@contextlib.contextmanager
def importing_espnet() -> Iterator[None]:
    """Within it, ESPnet is imported without its regret that flash_attn isn't installed."""
    ensure_torchaudio()
    ensure_editdistance()
    ensure_warprnnt()
    checked = functools.partial(_checked_from_the_first_call, typeguard.typechecked)
    with (
        contextlib.redirect_stderr(io.StringIO()),
        mock.patch.object(typeguard, "typechecked", checked),
    ):
        yield


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
