"""Decoding of a data folder: CTC greedy, and stock ESPnet's joint beam search.

A cut model is read by stock ``Speech2Text`` from ``model/espnet``; that every result goes through
it is the proof that ESPnet loads it. Each process uses one thread.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy

from espnet_prune.config import check_choice, check_range
from espnet_prune.data.audio_io import read_audio
from espnet_prune.data.kaldi_dir import read_data, write_map
from espnet_prune.data.parallel import parallel_map
from espnet_prune.errors import ModelError

logger = logging.getLogger(__name__)
MODES = ("greedy", "joint")
SAMPLE_RATE = 16000
FULL_SCALE = 32768.0  # int16 to the range of ESPnet's audio reader


@dataclass(frozen=True)
class DecodeConfig:
    """How a set is decoded; there is no language model.

    Attributes:
        modes: ``greedy`` (CTC argmax) and/or ``joint`` (beam search, CTC and attention).
        beam_size: of the joint search.
        ctc_weight: of CTC in the joint search, the decoder has the rest.
        penalty: added for each token.
        maxlenratio: longest hypothesis, of the encoder's frames; 0 for ESPnet's end detection.
        minlenratio: shortest one.
    """

    modes: tuple[str, ...] = MODES
    beam_size: int = 10
    ctc_weight: float = 0.3
    penalty: float = 0.0
    maxlenratio: float = 0.0
    minlenratio: float = 0.0

    def __post_init__(self) -> None:
        for mode in self.modes:
            check_choice("modes", mode, MODES)
        check_range("beam_size", self.beam_size, 1, 1000)
        check_range("ctc_weight", self.ctc_weight, 0, 1)


class Recogniser:
    """A saved model that turns samples into text.

    Args:
        folder: the model's folder, with ``espnet`` in it.
        config: the search's options.

    Raises:
        ModelError: the folder lacks the files.
    """

    def __init__(self, folder: Path, config: DecodeConfig) -> None:
        from espnet_prune.espnet.registry import register

        register()  # before ESPnet's tasks are imported
        from espnet2.bin.asr_inference import Speech2Text

        files = folder / "espnet" / "config.yaml", folder / "espnet" / "model.pth"
        for path in files:
            if not path.exists():
                raise ModelError(f"{path}: no such file; run the stages that make this model")
        self.search = Speech2Text(
            *map(str, files),
            beam_size=config.beam_size,
            ctc_weight=config.ctc_weight,
            lm_weight=0.0,
            penalty=config.penalty,
            maxlenratio=config.maxlenratio,
            minlenratio=config.minlenratio,
        )
        self.model = self.search.asr_model

    def transcribe(self, samples: numpy.ndarray, mode: str) -> str:
        """Text of int16 samples (samples,); empty if the recording is too short to subsample."""
        from espnet2.legacy.nets.pytorch_backend.transformer.subsampling import TooShortUttError

        speech = samples.astype(numpy.float32) / FULL_SCALE
        try:
            if mode == "greedy":
                return self._greedy(speech)
            results = self.search(speech)
        except TooShortUttError as error:
            logger.warning("too short to decode, empty text: %s", error)
            return ""
        return (results[0][0] or "") if results else ""

    def _greedy(self, speech: numpy.ndarray) -> str:
        import torch

        with torch.no_grad():
            lengths = torch.tensor([len(speech)])
            encoded, _ = self.model.encode(torch.from_numpy(speech)[None], lengths)
            best = self.model.ctc.argmax(encoded)[0]
        collapsed = torch.unique_consecutive(best).tolist()
        ids = [i for i in collapsed if i != self.model.blank_id]
        tokens = self.search.converter.ids2tokens(ids)
        return self.search.tokenizer.tokens2text(tokens)


_recogniser: Recogniser | None = None


Job = tuple[Path, DecodeConfig, Sequence[str], Sequence[tuple[str, str]]]


def _work(job: Job) -> dict[str, dict[str, str]]:
    """Decodes one part in this process, texts by mode; the model is loaded once a process."""
    import torch

    global _recogniser
    folder, config, modes, entries = job
    torch.set_num_threads(1)
    if _recogniser is None:
        _recogniser = Recogniser(folder, config)
    texts: dict[str, dict[str, str]] = {mode: {} for mode in modes}
    for utterance, entry in entries:
        samples, _ = read_audio(entry, f"utterance '{utterance}'", SAMPLE_RATE)
        for mode in modes:
            texts[mode][utterance] = _recogniser.transcribe(samples, mode)
    return texts


def decode(model: Path, data: Path, config: DecodeConfig, out: Path, jobs: int = 1) -> None:
    """Decodes a data folder in every mode that isn't there yet.

    Args:
        model: the model's folder.
        data: a dump folder.
        config: modes and search.
        out: gets ``<mode>/hyp``, in the order of the data, written at once when a mode is done.
        jobs: number of processes.

    Raises:
        DataError: a recording can't be read.
        ModelError: the model can't be loaded.
    """
    global _recogniser
    _recogniser = None
    entries = list(read_data(data).recordings.items())
    modes = [mode for mode in config.modes if not (out / mode / "hyp").exists()]
    if not modes:
        return
    size = max(1, min(8, len(entries) // max(1, 2 * jobs)))
    parts = [entries[i : i + size] for i in range(0, len(entries), size)]
    work = [(model, config, modes, part) for part in parts]
    results = parallel_map(_work, work, jobs, "decode", fresh_processes=True)
    for mode in modes:
        texts = {utterance: text for part in results for utterance, text in part[mode].items()}
        write_map(out / mode / "hyp", texts)
