"""The recognisers of small_english.py, behind one interface, and what each of them lacks.

Each is opened on its own, so that a package or a folder that isn't there costs its rows alone. All
run on the CPU with one thread, one recording at a time, and with the settings that their own
documentation starts with, except where a note here says why not.
"""

import functools
import importlib
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy

from espnet_prune.errors import EnvironmentProblem, ModelError

SAMPLE_RATE = 16000
FULL_SCALE = 32768.0  # of int16
MOONSHINE = "moonshine-voice==0.0.49"
POCKETSPHINX = "pocketsphinx==5.1.1"
FASTER_WHISPER = "faster-whisper==1.2.1 ctranslate2==4.8.5"
GRAPHS = {"ONNX fp32": False, "ONNX int8": True}  # runtime of ours: whether in 8 bits


class Recogniser(ABC):
    """What turns samples into text.

    Attributes:
        size_bytes: of the files that it needs beside its program: weights, settings, vocabulary.
    """

    size_bytes: int

    @abstractmethod
    def transcribe(self, samples: numpy.ndarray) -> str:
        """The text of int16 samples (samples,) at 16 kHz, in any case, with any punctuation."""


@dataclass(frozen=True)
class Entry:
    """A recogniser that may be opened.

    Attributes:
        name: its row's.
        ours: whether it is this project's or a rival.
        open: opens it; what it lacks is an EspnetPruneError that names the remedy.
    """

    name: str
    ours: bool
    open: Callable[[], Recogniser]


class OursInTorch(Recogniser):
    """A model of ``espnet_prune.save`` that has CTC, dense or cut; greedy."""

    def __init__(self, folder: Path) -> None:
        from espnet_prune.decode.saved import SavedRecogniser

        self.size_bytes = files_bytes([folder])
        self.recogniser = SavedRecogniser(folder)
        _check_rate(folder, self.recogniser.rate)

    def transcribe(self, samples: numpy.ndarray) -> str:
        """As the base class says."""
        return self.recogniser.transcribe(samples)


class OursInOnnx(Recogniser):
    """Its export for ONNX Runtime, which exists as long as ``stack`` is open; greedy."""

    def __init__(self, folder: Path, int8: bool, stack: ExitStack) -> None:
        from espnet_prune.decode.int8 import exported
        from espnet_prune.export.exported import open_exported

        made = stack.enter_context(exported(folder, int8))
        self.size_bytes = files_bytes([made])
        self.recogniser = open_exported(made)
        _check_rate(folder, self.recogniser.rate)

    def transcribe(self, samples: numpy.ndarray) -> str:
        """As the base class says."""
        return self.recogniser.transcribe(samples)


class WhisperFolders:
    """A Whisper in the format of each of its runtimes, made on first use.

    Args:
        source: a folder of CTranslate2 in float16 or float32, or of ``save_pretrained``.
        stack: what is made exists as long as it is open.
    """

    def __init__(self, source: Path, stack: ExitStack) -> None:
        self.source = source
        self.stack = stack

    def _new(self) -> Path:
        return Path(self.stack.enter_context(tempfile.TemporaryDirectory()))

    @functools.cached_property
    def transformers(self) -> Path:
        """Float32, as the hub has it.

        Raises:
            ModelError: there is no such folder, or no Whisper in it.
        """
        from espnet_prune.models.whisper.get_whisper import get_whisper

        if not self.source.is_dir():
            raise ModelError(f"{self.source}: no such folder; get the weights as --help says")
        made = self._new()
        get_whisper(str(self.source), made)
        return made

    @functools.cached_property
    def int8(self) -> Path:
        """CTranslate2's file in 8 bits, so that its size is that of what runs."""
        _need("faster_whisper", FASTER_WHISPER)
        converters = _need("ctranslate2.converters", FASTER_WHISPER)
        made = self._new() / "int8"
        converter = converters.TransformersConverter(
            str(self.transformers), copy_files=["tokenizer.json"]
        )
        converter.convert(str(made), quantization="int8")
        return made


class FasterWhisper(Recogniser):
    """Whisper by CTranslate2 in int8; its fallback to higher temperatures is on, as by default."""

    def __init__(self, folders: WhisperFolders, beam: int) -> None:
        package = _need("faster_whisper", FASTER_WHISPER)
        self.size_bytes = files_bytes([folders.int8])
        self.beam = beam
        self.model = package.WhisperModel(
            str(folders.int8), device="cpu", compute_type="int8", cpu_threads=1
        )

    def transcribe(self, samples: numpy.ndarray) -> str:
        """As the base class says."""
        segments, _ = self.model.transcribe(_as_float(samples), language="en", beam_size=self.beam)
        return " ".join(segment.text for segment in segments)


class TransformersWhisper(Recogniser):
    """Whisper by the pipeline of transformers, float32, greedy.

    With timestamps, by which recordings longer than its window of 30 s are whole.
    """

    def __init__(self, folders: WhisperFolders) -> None:
        from espnet_prune.models.huggingface.build import import_transformers

        transformers = import_transformers()
        self.size_bytes = files_bytes([folders.transformers])
        self.pipeline = transformers.pipeline(
            "automatic-speech-recognition", model=str(folders.transformers), device="cpu"
        )
        multilingual = self.pipeline.model.generation_config.is_multilingual
        self.told = {"language": "en", "task": "transcribe"} if multilingual else {}

    def transcribe(self, samples: numpy.ndarray) -> str:
        """As the base class says."""
        speech = {"raw": _as_float(samples), "sampling_rate": SAMPLE_RATE}
        # a copy, since the pipeline adds to what it is given
        told = dict(self.told)
        return self.pipeline(speech, return_timestamps=True, generate_kwargs=told)["text"]


class Moonshine(Recogniser):
    """Moonshine tiny in the int8 of its package, by the package's library.

    Its search for pauses is off: on utterances that are cut already it splits words and adds
    others, and takes longer.
    """

    def __init__(self) -> None:
        package = _need("moonshine_voice", MOONSHINE)
        folder = package.get_model_path("tiny-en")
        self.size_bytes = files_bytes([folder])
        self.transcriber = package.Transcriber(
            str(folder), package.ModelArch.TINY, options={"vad_threshold": 0}
        )

    def transcribe(self, samples: numpy.ndarray) -> str:
        """As the base class says."""
        speech = _as_float(samples).tolist()
        found = self.transcriber.transcribe_without_streaming(speech, SAMPLE_RATE)
        return " ".join(line.text for line in found.lines)


class Pocketsphinx(Recogniser):
    """CMU's recogniser with the acoustic model, language model and words of its package."""

    def __init__(self) -> None:
        package = _need("pocketsphinx", POCKETSPHINX)
        folder = Path(package.get_model_path("en-us"))
        self.size_bytes = files_bytes(
            [folder / name for name in ("en-us", "en-us.lm.bin", "cmudict-en-us.dict")]
        )
        self.decoder = package.Decoder(samprate=SAMPLE_RATE, loglevel="FATAL")

    def transcribe(self, samples: numpy.ndarray) -> str:
        """As the base class says."""
        self.decoder.start_utt()
        self.decoder.process_raw(samples.tobytes(), full_utt=True)
        self.decoder.end_utt()
        found = self.decoder.hyp()
        return found.hypstr if found else ""


def ours(name: str, folder: Path, stack: ExitStack) -> Iterator[Entry]:
    """A saved model in torch and in ONNX Runtime."""
    yield Entry(f"{name}, torch", True, lambda: OursInTorch(folder))
    for runtime, int8 in GRAPHS.items():
        opened = functools.partial(OursInOnnx, folder, int8, stack)
        yield Entry(f"{name}, {runtime}", True, opened)


def whisper(name: str, folder: Path, beams: Sequence[int], stack: ExitStack) -> Iterator[Entry]:
    """A Whisper by faster-whisper, with each width of its search, and by transformers."""
    folders = WhisperFolders(folder, stack)
    for beam in beams:
        opened = functools.partial(FasterWhisper, folders, beam)
        yield Entry(f"{name}, faster-whisper int8, beam {beam}", False, opened)
    yield Entry(f"{name}, transformers fp32", False, lambda: TransformersWhisper(folders))


def files_bytes(paths: Sequence[Path]) -> int:
    """Bytes of files, and of those that lie in folders, not deeper, hidden ones left out."""
    files = [p for path in paths for p in (path.iterdir() if path.is_dir() else [path])]
    return sum(p.stat().st_size for p in files if p.is_file() and not p.name.startswith("."))


def _need(module: str, requirements: str):
    """A module of a rival's package; EnvironmentProblem with the command that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise EnvironmentProblem(
            f"{module} can't be imported ({error}); pip install --no-deps {requirements}"
        ) from error


def _check_rate(folder: Path, rate: int) -> None:
    if rate != SAMPLE_RATE:
        raise ModelError(
            f"{folder}: a model of {rate} Hz; all are given {SAMPLE_RATE} Hz here, leave it out"
        )


def _as_float(samples: numpy.ndarray) -> numpy.ndarray:
    return (samples / FULL_SCALE).astype(numpy.float32)
