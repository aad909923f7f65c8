"""Decoding of a data folder in every mode, in parts, so that any number of processes share it.

Each process uses one thread; what was killed goes on with the parts that are missing.
"""

import contextlib
import functools
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from espnet_prune.data.audio_io import read_audio
from espnet_prune.data.kaldi_dir import read_data, read_map, where, write_map
from espnet_prune.data.parallel import WHOLE, Share, parallel_map
from espnet_prune.data.resume import begin, fingerprint
from espnet_prune.decode.decode_checks import warn_of_long
from espnet_prune.decode.decode_config import DecodeConfig
from espnet_prune.decode.recogniser import open_recogniser, rate_of
from espnet_prune.errors import EnvironmentProblem
from espnet_prune.export.int8 import base_mode, by_onnx
from espnet_prune.job_control import only_writer
from espnet_prune.models.espnet.folder import model_files
from espnet_prune.models.family import Transcriber
from espnet_prune.record import file_digest, finished, mark_finished

PART_UTTERANCES = 8  # decoded between two writes
PARTS, BEGUN = "parts", ".begun.json"


@dataclass(frozen=True)
class _Part:
    """Some utterances of ``data`` to decode in one mode; ``model`` is a folder, or its export's."""

    model: Path
    digest: str
    config: DecodeConfig
    mode: str
    data: Path
    entries: dict[str, str]
    target: Path


@functools.lru_cache(maxsize=1)
def _recogniser(model: Path, digest: str, config: DecodeConfig, int8: bool) -> Transcriber:
    """Loaded once a process; ``digest`` tells a model from an earlier one in the same folder."""
    return open_recogniser(model, config, int8)


def _decode_part(part: _Part) -> None:
    """Decodes one part in this process and writes its texts."""
    import torch

    torch.set_num_threads(1)
    recognise, rate = _opened(part)
    texts = {}
    for utterance, entry in part.entries.items():
        samples, _ = read_audio(entry, where(part.data, utterance), rate)
        texts[utterance] = recognise(samples, name=utterance)
    write_map(part.target, texts)


def _opened(part: _Part) -> tuple[Callable[..., str], int]:
    """What makes a text of samples and an utterance's name, and its rate in Hz."""
    if by_onnx(part.mode):
        from espnet_prune.decode.int8 import onnx_recogniser

        by_graph = onnx_recogniser(part.model, part.config.segment_seconds)
        return by_graph.transcribe, by_graph.rate
    mode = base_mode(part.mode)
    recogniser = _recogniser(part.model, part.digest, part.config, mode != part.mode)
    return functools.partial(recogniser.transcribe, mode=mode), rate_of(recogniser)


def _made_by(model: Path, data: Path, config: DecodeConfig) -> dict[str, dict]:
    """What the result of each mode depends on; greedy decoding doesn't on the search."""
    common = {
        "model": file_digest(model_files(model)[1]),
        "data": fingerprint(data),
        "segment_seconds": config.segment_seconds,
    }
    search = {key: value for key, value in asdict(config).items() if key != "modes"}
    joint = {**common, **search}
    prefix = {key: value for key, value in joint.items() if key != "ctc_weight"}
    made_by = {"greedy": common, "ctc_prefix": prefix, "joint": joint}
    return {mode: made_by[base_mode(mode)] for mode in config.modes}


def _parts_to_do(template: _Part, folder: Path, share: Share) -> list[_Part]:
    """A share's parts without a result; their size doesn't depend on the jobs: any may resume."""
    entries = list(template.entries.items())
    parts = []
    for start in share.of(range(0, len(entries), PART_UTTERANCES)):
        target = folder / PARTS / f"hyp.{start:08d}"
        if not target.exists():
            chosen = dict(entries[start : start + PART_UTTERANCES])
            parts.append(replace(template, entries=chosen, target=target))
    return parts


@contextlib.contextmanager
def _for_onnx(model: Path, parts: list[_Part]) -> Iterator[list[_Part]]:
    """The parts; those that ONNX Runtime decodes, with an export made for the time being."""
    if not any(by_onnx(part.mode) for part in parts):
        yield parts
        return
    from espnet_prune.decode.int8 import exported

    with exported(model, int8=True) as folder:
        yield [replace(p, model=folder) if by_onnx(p.mode) else p for p in parts]


def _join_parts(folder: Path) -> None:
    """Writes ``hyp`` from the parts."""
    texts: dict[str, str] = {}
    for path in sorted((folder / PARTS).glob("hyp.*")):
        texts.update(read_map(path, empty_values=True))
    write_map(folder / "hyp", texts)


def decode(
    model: Path,
    data: Path,
    config: DecodeConfig,
    out: Path,
    jobs: int = 1,
    share: Share | None = None,
) -> None:
    """Decodes a data folder in every mode; goes on where a killed decoding stopped.

    Args:
        model: the model's folder.
        data: a dump folder.
        config: modes and search.
        out: gets ``<mode>/hyp``, in the order of the data, when a mode is done.
        jobs: number of processes.
        share: only decode these parts; a call without a share then makes ``hyp``.

    Raises:
        ConfigError: ``out`` has results of another model, data or search.
        DataError: a recording can't be read.
        ModelError: the model can't be loaded.
        EnvironmentProblem: a process died.
        TrainingError: another process decodes into the same folder.
    """
    with contextlib.nullcontext() if share else only_writer(out, "decodes"):
        _decode(model, data, config, out, jobs, share)


def _decode(
    model: Path, data: Path, config: DecodeConfig, out: Path, jobs: int, share: Share | None
) -> None:
    wanted = _made_by(model, data, config)
    modes = [mode for mode in sorted(wanted) if not finished(out / mode, wanted[mode])]
    entries = dict(read_data(data).recordings)
    if modes:
        warn_of_long(model, data, config.segment_seconds)
    parts = []
    for mode in reversed(modes):  # joint first, which takes longest
        folder, made_by = out / mode, wanted[mode]
        begin(folder / BEGUN, made_by, (folder / PARTS).glob("hyp.*"))
        template = _Part(model, made_by["model"], config, mode, data, entries, folder)
        parts += _parts_to_do(template, folder, share or WHOLE)
    with _for_onnx(model, parts) as parts:
        try:
            parallel_map(_decode_part, parts, jobs, "decode", fresh_processes=True)
        except BrokenProcessPool as error:
            raise EnvironmentProblem(
                f"{out}: a decoding process was killed, perhaps for want of memory; "
                "give the same command again with fewer --nj"
            ) from error
    for mode in modes if share is None else ():
        _join_parts(out / mode)
        mark_finished(out / mode, wanted[mode])
        shutil.rmtree(out / mode / PARTS)
        (out / mode / BEGUN).unlink()
