"""Decoding of a data folder: CTC greedy, CTC prefix beam search, ESPnet's joint beam search.

A cut model is read by stock ``Speech2Text`` from ``model/espnet``; that every result goes through
it is the proof that ESPnet loads it. Each process uses one thread.
"""

import contextlib
import functools
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Protocol

import numpy

from espnet_prune.config import check_choice, check_range
from espnet_prune.data.audio_io import read_audio
from espnet_prune.data.kaldi_dir import read_data, read_map, where, write_map
from espnet_prune.data.parallel import WHOLE, Share, parallel_map
from espnet_prune.data.resume import begin, fingerprint
from espnet_prune.data.segments import split_at_pauses
from espnet_prune.errors import ConfigError, EnvironmentProblem, ModelError
from espnet_prune.export.int8 import INT8_MODES, base_mode, by_onnx
from espnet_prune.models.espnet.sample_rate import sample_rate_of
from espnet_prune.models.model_folder import is_whisper_folder, model_files, read_espnet_config
from espnet_prune.provenance import file_digest
from espnet_prune.stage import finished, mark_finished

logger = logging.getLogger(__name__)
MODES = ("greedy", "ctc_prefix", "joint")
ALL_MODES = (*MODES, *INT8_MODES)
DEFAULT_MODES = ("greedy", "joint")
PART_UTTERANCES = 8  # decoded between two writes
PARTS, BEGUN = "parts", ".begun.json"
FULL_SCALE = 32768.0  # int16 to the range of ESPnet's audio reader


@dataclass(frozen=True)
class DecodeConfig:
    """How a set is decoded; there is no language model.

    Attributes:
        modes: ``greedy`` (CTC argmax), ``ctc_prefix`` (beam search, CTC alone) and/or ``joint``
            (beam search, CTC and attention); with ``_int8`` behind it, by dynamic int8 in torch;
            ``greedy_onnx_int8`` by that in ONNX Runtime.
        beam_size: of either search.
        ctc_weight: of CTC in the joint search, the decoder has the rest.
        penalty: added for each token.
        maxlenratio: longest hypothesis, of the encoder's frames; 0 for ESPnet's end detection.
        minlenratio: shortest one.
        segment_seconds: a longer recording is cut at its quietest points into pieces of at most
            this length, since attention over it would need memory by its square.
    """

    modes: tuple[str, ...] = DEFAULT_MODES
    beam_size: int = 10
    ctc_weight: float = 0.3
    penalty: float = 0.0
    maxlenratio: float = 0.0
    minlenratio: float = 0.0
    segment_seconds: float = 40.0

    def __post_init__(self) -> None:
        for mode in self.modes:
            check_choice("modes", mode, ALL_MODES)
        if not self.modes or len(set(self.modes)) < len(self.modes):
            raise ConfigError(f"modes: {list(self.modes)}; expected some of {ALL_MODES}, each once")
        check_range("beam_size", self.beam_size, 1, 1000)
        check_range("ctc_weight", self.ctc_weight, 0, 1)
        check_range("segment_seconds", self.segment_seconds, 1, 1e6)


class Recogniser:
    """A saved model that turns samples into text.

    Args:
        folder: the model's folder, with ``espnet`` in it.
        config: the search's options.
        int8: whether its linear layers are quantised.

    Raises:
        DataError: ESPnet's configuration is damaged.
        ModelError: the folder lacks the files.
    """

    def __init__(self, folder: Path, config: DecodeConfig, int8: bool = False) -> None:
        import torch

        from espnet_prune.models.espnet.registry import register
        from espnet_prune.surgery import load_strictly

        register()  # before ESPnet's tasks are imported
        from espnet2.bin.asr_inference import Speech2Text

        from espnet_prune.decode.int8 import quantise_linear
        from espnet_prune.models.conformer import fast_encoder
        from espnet_prune.models.transformer_decoder import fast_decoder

        files = model_files(folder)
        self.config = config
        asr_config = read_espnet_config(files[0])
        has_ctc = (asr_config.get("model_conf") or {}).get("ctc_weight") != 0.0
        try:
            self.search = Speech2Text(
                *map(str, files),
                beam_size=config.beam_size,
                ctc_weight=config.ctc_weight if has_ctc else 0.0,
                lm_weight=0.0,
                penalty=config.penalty,
                maxlenratio=config.maxlenratio,
                minlenratio=config.minlenratio,
            )
            state = torch.load(files[1], map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, ValueError, UnpicklingError) as error:
            raise ModelError(
                f"{files[1].parent}: ESPnet can't load this model ({error}); its files are "
                "damaged or moved: make it again where it shall stand"
            ) from error
        self.model = self.search.asr_model
        self.model.espnet_prune_config = asr_config
        needed = zip(MODES, (self.model.ctc, self.model.ctc, self.model.decoder), strict=True)
        self.modes = tuple(mode for mode, part in needed if part is not None)
        # ESPnet itself would leave weights that it doesn't find random, without a word
        load_strictly(self.model, state, str(files[1]))
        if int8:
            quantise_linear(self.model)
        fast_decoder.speed_up(self.search.beam_search)
        fast_encoder.speed_up(self.model.encoder)

    def transcribe(self, samples: numpy.ndarray, mode: str, name: str = "") -> str:
        """Recognised text, its words separated by single spaces.

        Args:
            samples: int16 (samples,), at the rate ``rate_of`` gives.
            mode: one of ``modes``.
            name: of the utterance, for the warning.

        Returns:
            The text; empty if the recording is too short for the front-end, with a warning.

        Raises:
            ModelError: the mode needs CTC or a decoder, and the model has none.
        """
        if mode not in self.modes:
            lacks = "CTC" if self.model.ctc is None else "decoder"
            raise ModelError(
                f"modes: {mode}: this model has no {lacks}; give modes: [{', '.join(self.modes)}]"
            )
        pieces = split_at_pauses(samples, rate_of(self), self.config.segment_seconds)
        return " ".join(filter(None, (self._piece(piece, mode, name) for piece in pieces)))

    def _piece(self, samples: numpy.ndarray, mode: str, name: str) -> str:
        from espnet2.legacy.nets.pytorch_backend.transformer.subsampling import TooShortUttError

        speech = samples.astype(numpy.float32) / FULL_SCALE
        try:
            least = least_samples(self.model)
            if len(speech) < least:
                raise TooShortUttError(f"the front-end needs {least}", len(speech), least)
            decoders = dict(zip(MODES, (self._greedy, self._ctc_prefix, self._joint), strict=True))
            text = decoders[mode](speech)
        except TooShortUttError as error:
            logger.warning(
                "utterance '%s': %d samples are too short to decode, its text is empty (%s)",
                name,
                len(samples),
                error,
            )
            return ""
        return " ".join(text.split())

    def _joint(self, speech: numpy.ndarray) -> str:
        results = self.search(speech)
        return (results[0][0] or "") if results else ""

    def _greedy(self, speech: numpy.ndarray) -> str:
        return self.collapsed(ctc_log_probs(self.model, speech).argmax(dim=1))

    def collapsed(self, best) -> str:
        """Text of each frame's best token, int (T,)."""
        import torch

        collapsed = torch.unique_consecutive(best).tolist()
        return self._text([i for i in collapsed if i not in (self.model.blank_id, self.model.eos)])

    def _ctc_prefix(self, speech: numpy.ndarray) -> str:
        from espnet_prune.decode.prefix_search import prefix_search

        ids, _ = prefix_search(
            ctc_log_probs(self.model, speech),
            self.model.blank_id,
            self.config.beam_size,
            never=(self.model.eos,),
            penalty=self.config.penalty,
            maxlenratio=self.config.maxlenratio,
            minlenratio=self.config.minlenratio,
        )
        return self._text(ids)

    def _text(self, ids: list[int]) -> str:
        tokens = self.search.converter.ids2tokens(ids)
        return self.search.tokenizer.tokens2text(tokens)


class Transcriber(Protocol):
    """What turns samples into text."""

    model: Any
    modes: Sequence[str]

    def transcribe(self, samples: numpy.ndarray, mode: str, name: str = "") -> str: ...


def rate_of(recogniser: Transcriber) -> int:
    """Rate in Hz of the samples that ``transcribe`` takes."""
    return sample_rate_of(recogniser.model.espnet_prune_config)


def ctc_log_probs(model: Any, speech: numpy.ndarray):
    """Log-probabilities (T, V) of an ESPnetASRModel's CTC, of samples (samples,) within -1 to 1."""
    import torch

    with torch.no_grad():
        lengths = torch.tensor([len(speech)])
        encoded, _ = model.encode(torch.from_numpy(speech)[None], lengths)
        # of a model with intermediate CTC: the last layer's, and those that it was trained on
        encoded = encoded[0] if isinstance(encoded, tuple) else encoded
        return model.ctc.log_softmax(encoded)[0]


def least_samples(model: Any) -> int:
    """Least number of samples that an ESPnetASRModel encodes.

    The front-end's padding mirrors half a window; the frames are then subsampled.
    """
    from espnet2.legacy.nets.pytorch_backend.transformer.subsampling import check_short_utt

    front_end = model.frontend
    if front_end is None:
        return model.encoder.least() if hasattr(model.encoder, "least") else 1
    frames = check_short_utt(getattr(model.encoder, "embed", None), 0)[1]
    if hasattr(front_end, "least_samples"):
        return max(front_end.least_samples(), frames * front_end.hop_length)
    return max(front_end.stft.n_fft // 2 + 1, (frames - 1) * front_end.hop_length)


def open_recogniser(folder: Path, config: DecodeConfig, int8: bool = False) -> Transcriber:
    """What decodes with the model in a folder: stock ESPnet's search, or Whisper's own.

    Raises:
        ModelError: the folder lacks the files, or they are damaged; int8 of a Whisper.
    """
    if not is_whisper_folder(folder):
        return Recogniser(folder, config, int8)
    if int8:
        raise ModelError(f"{folder}: no int8 of a Whisper in torch; see export_onnx --int8")
    from espnet_prune.models.whisper.decoding import WhisperRecogniser

    return WhisperRecogniser(folder, config.segment_seconds)


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
    """
    wanted = _made_by(model, data, config)
    modes = [mode for mode in sorted(wanted) if not finished(out / mode, wanted[mode])]
    entries = dict(read_data(data).recordings)
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
