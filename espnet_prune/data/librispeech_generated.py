"""The synthetic corpus in LibriSpeech's layout, so that its recipes run where it is not.

A set becomes a part, a voice a reader with one chapter in every part. Its readers are numbered from
``FIRST_READER`` on, above all of LibriSpeech's, so that nobody takes it for the genuine thing.
"""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from espnet_prune.data import synth
from espnet_prune.data.librispeech_layout import SPEAKERS_FILE, TRANSCRIPT
from espnet_prune.data.parallel import parallel_map
from espnet_prune.io_atomic import write_text
from espnet_prune.record import OTHER_WORK_DIR, finished, mark_finished

CORPUS = "LibriSpeech"
FIRST_READER = 100_001
FEMALE = ("slt",)  # of flite's voices


def generate(corpus: synth.Corpus, out: Path, jobs: int = 1, where: str = "corpus") -> Path:
    """Makes the corpus as FLAC in ``out/LibriSpeech``, unless it is there.

    Args:
        corpus: what to speak.
        out: the folder.
        jobs: number of processes.
        where: the file that errors about the corpus name.

    Returns:
        The folder that holds the parts.

    Raises:
        ConfigError: a value of the corpus is wrong, or ``out`` holds another corpus.
        EnvironmentProblem: flite is missing or fails, or the disk is full.
    """
    root = out / CORPUS
    synth.check(corpus, where)
    settings = dataclasses.asdict(corpus)
    if finished(out, settings, OTHER_WORK_DIR):
        return root
    synth.check_voices(corpus, where)
    readers = {voice: FIRST_READER + i for i, voice in enumerate(corpus.voices)}
    for number, (part, utterances) in enumerate(synth.plan(corpus, out, where).items(), 1):
        for voice, reader in readers.items():
            chosen = [u for u in utterances if u.voice == voice]
            _write_chapter(root / part / str(reader) / str(number), chosen, jobs)
    lines = [f"{r} | {'F' if v in FEMALE else 'M'} | generated | {v}" for v, r in readers.items()]
    write_text(root / SPEAKERS_FILE, "\n".join(["; by flite", *lines]) + "\n")
    mark_finished(out, settings)
    return root


def _write_chapter(folder: Path, utterances: Iterable[synth.Utterance], jobs: int) -> None:
    """``PART/READER/CHAPTER``; a reader without utterances in a part has no chapter there."""
    name = f"{folder.parent.name}-{folder.name}"
    named = [
        dataclasses.replace(u, name=f"{name}-{i:04d}", path=folder / f"{name}-{i:04d}.flac")
        for i, u in enumerate(utterances)
    ]
    if named:
        parallel_map(synth.make, named, jobs, name)
        lines = [f"{u.name} {u.text}" for u in named]
        write_text(folder / f"{name}{TRANSCRIPT}", "\n".join(lines) + "\n")
