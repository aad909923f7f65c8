"""Recordings to text, by a saved or an exported model: files, folders, or a list on stdin."""

import argparse
import contextlib
import io
import logging
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TextIO

from espnet_prune.errors import ConfigError, DataError
from espnet_prune.io_atomic import read_json

logger = logging.getLogger(__name__)
# what each option's folder holds, and what to give, as users know it
HOLDS = {"--model": ("model.json", "model.safetensors"), "--onnx": ("model.json", "model.onnx")}
GIVE = {
    "--model": "a system's model folder",
    "--onnx": "a folder that `espnet-prune export_onnx` made",
}
BREAKS = re.compile(r"[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]")  # where Python ends lines, and tabs
BYTE_ORDER_MARK = "\ufeff"
WHOLE = "espnet_asr"  # the kind of a saved model that has words


def transcribe_arguments(parser: argparse.ArgumentParser) -> None:
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--model", type=Path, help="a system's model folder; needs ESPnet")
    model.add_argument("--onnx", type=Path, help="a folder of export_onnx; greedy")
    modes = ("greedy", "ctc_prefix", "joint")
    parser.add_argument("--mode", choices=modes, help="with --model; default: joint")
    parser.add_argument(
        "--channel",
        type=int,
        help="which of several channels is transcribed, from 1; default: their mean",
    )
    parser.add_argument(
        "--segment_seconds",
        type=float,
        help="longest piece of a recording, cut at pauses; default: the model's longest training "
        "utterance, at most 40",
    )
    parser.add_argument("--timestamps", action="store_true", help="greedy CTC, a line a word")
    parser.add_argument(
        "inputs", nargs="+", help="audio files, folders, or - for a list of them on stdin"
    )


def transcribe(args: argparse.Namespace) -> None:
    """Prints a line `FILE<tab>TEXT` each, or `FILE<tab>START<tab>END<tab>WORD` with times.

    What is named twice, itself or by its folder, is transcribed once, where it comes first. A
    recording that can't be read doesn't stop the others: it is named, and the status is 2.
    """
    if args.onnx and args.mode:
        raise ConfigError("--mode goes with --model; an exported graph decodes greedily")
    if args.timestamps and args.mode in ("ctc_prefix", "joint"):
        raise ConfigError("--timestamps is of greedy CTC; a beam search has no frames")
    if args.channel is not None and args.channel < 1:
        raise ConfigError(f"--channel {args.channel}: channels are counted from 1")
    _let_any_name_through(sys.stdout)
    files = _files(args.inputs)
    with tempfile.TemporaryDirectory() as folder:
        total, failed = _transcribe_all(*_load(args, Path(folder)), files, args)
    if not total:
        raise DataError("-: no recording is listed on stdin; give one path a line")
    if failed:
        raise DataError(f"{failed} of {total} recordings couldn't be read; they are named above")


def _transcribe_all(
    recogniser, rate: int, files: Iterable[Path | DataError], args: argparse.Namespace
) -> tuple[int, int]:
    """Prints the text of each; returns how many there were and how many couldn't be read."""
    from espnet_prune.data.audio_io import read_speech

    total, failed, averaged = 0, 0, False
    for path in files:
        total += 1
        try:
            if isinstance(path, DataError):
                raise path
            found, channels = read_speech(str(path), rate, args.channel)
            if channels > 1 and not averaged:
                averaged = True
                said = "'%s': its %d channels are averaged, and so are those of other recordings"
                logger.info(said, path, channels)
            for note in found.notes:
                logger.warning("'%s': %s", path, note)
            _print(recogniser, found.samples, path, args)
        except DataError as error:
            failed += 1
            logger.error("%s", error)
    return total, failed


def _print(recogniser, samples, path: Path, args: argparse.Namespace) -> None:
    """Prints what is said in int16 samples (samples,) at the recogniser's rate."""
    shown = _on_one_line(path)
    if args.timestamps:
        for word in recogniser.words(samples, str(path)):
            print(f"{shown}\t{word.start:.2f}\t{word.end:.2f}\t{word.text}", flush=True)
        return
    mode = () if args.onnx else (args.mode or recogniser.modes[-1],)
    print(f"{shown}\t{recogniser.transcribe(samples, *mode, name=str(path))}", flush=True)


def _on_one_line(path: Path) -> str:
    """A path without the tabs and line breaks that would end its column of the output."""
    shown = BREAKS.sub(lambda found: repr(found[0])[1:-1], str(path))
    if shown != str(path):
        logger.warning("%s: its name has a tab or line break, which is printed so", shown)
    return shown


def _load(args: argparse.Namespace, folder: Path) -> tuple:
    """The recogniser and its sampling rate in Hz; it may read an empty folder that stays."""
    _check_folder(*(("--onnx", args.onnx) if args.onnx else ("--model", args.model)))
    if args.model:
        _check_whole(args.model)
    if args.onnx or args.timestamps:
        if args.onnx:
            from espnet_prune.export.exported import open_exported

            recogniser = open_exported(args.onnx, args.timestamps, args.segment_seconds)
        else:
            from espnet_prune.decode.saved import SavedRecogniser

            recogniser = SavedRecogniser(args.model, args.segment_seconds)
        _warn_beyond(recogniser.trained_seconds, recogniser.segment_seconds)
        return recogniser, recogniser.rate
    from espnet_prune.data.segments import segment_seconds_for
    from espnet_prune.decode.decode_config import DecodeConfig
    from espnet_prune.decode.recogniser import open_recogniser, rate_of
    from espnet_prune.models.espnet.folder import trained_seconds

    trained = trained_seconds(args.model)
    longest = segment_seconds_for(trained, args.segment_seconds)
    _warn_beyond(trained, longest)
    config = DecodeConfig(segment_seconds=longest)
    recogniser = open_recogniser(_for_espnet(args.model, folder), config)
    return recogniser, rate_of(recogniser)


def _warn_beyond(trained: float | None, longest: float) -> None:
    """Warns of pieces that are longer than what the model was trained on."""
    if trained is not None and longest > max(trained, 1):
        logger.warning(
            "--segment_seconds %g: the model was trained on utterances of at most %.1f s; it makes "
            "little of longer pieces",
            longest,
            trained,
        )


def _check_folder(option: str, folder: Path) -> None:
    """ConfigError where a folder isn't what its option takes; names one nearby that would do."""
    lacks = _lacks(option, folder)
    if not lacks:
        return
    nearby = (folder, folder / "model", folder.parent, folder.parent / "model")
    options = sorted(HOLDS, key=lambda name: name != option)
    found = [f"{name} {path}" for name in options for path in nearby if not _lacks(name, path)]
    what = f"no {lacks[0]} in it" if folder.is_dir() else "there is no such folder"
    hint = f"; did you mean {found[0]}?" if found else ""
    raise ConfigError(f"{option} {folder}: {what}; give {GIVE[option]}{hint}")


def _lacks(option: str, folder: Path) -> list[str]:
    return [name for name in HOLDS[option] if not (folder / name).is_file()]


def _check_whole(folder: Path) -> None:
    """ConfigError for a saved model that has no words: an encoder alone, or of transformers."""
    path = folder / HOLDS["--model"][0]
    description = read_json(path)
    kind = description.get("kind") if isinstance(description, dict) else None
    if kind != WHOLE:
        raise ConfigError(
            f"{path}: kind {kind!r}, expected {WHOLE!r}: an encoder alone, or a model that no "
            f"recipe trains, has no words here; give {GIVE['--model']}, or --onnx {GIVE['--onnx']}"
        )


def _for_espnet(model: Path, folder: Path) -> Path:
    """The model's folder; another of it where ESPnet's files weren't carried along, or moved."""
    from espnet_prune.models.espnet.folder import (
        CONFIG,
        ESPNET_FOLDER,
        WEIGHTS,
        names_other_places,
        own_family,
        write_model,
    )
    from espnet_prune.surgery import load

    if own_family(model) is not None:
        return model
    stock = [model / ESPNET_FOLDER / name for name in (CONFIG, WEIGHTS)]
    if all(path.exists() for path in stock) and not names_other_places(model):
        return model
    write_model(load(model), folder)
    return folder


def _files(inputs: Sequence[str]) -> Iterator[Path | DataError]:
    """The recordings in their order, each once; those of a folder sorted.

    What is named on the command line is looked up at once, before a model is loaded; a list on
    stdin is read line by line, while the recordings are transcribed, and an error about one of
    its folders stands in that folder's place.

    Raises:
        DataError: a file or folder is missing, or a folder holds no recording; ``-`` twice.
    """
    if list(inputs).count("-") > 1:
        raise DataError("'-' is given twice, but stdin can be read only once")
    found = [_listed() if name == "-" else _found(name) for name in inputs]
    return _once(chain.from_iterable(found))


def _once(files: Iterable[Path | DataError]) -> Iterator[Path | DataError]:
    """Each path where it comes first: `find` names folders and what is in them."""
    seen: set[Path] = set()
    for path in files:
        if isinstance(path, DataError):
            yield path
        elif path not in seen:
            seen.add(path)
            yield path


def _let_any_name_through(stream: TextIO) -> None:
    """Lets a standard stream pass on the bytes of a file's name that isn't UTF-8."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="surrogateescape")


def _listed() -> Iterator[Path | DataError]:
    """Recordings named on stdin; a file that is missing is an error where it is read."""
    _let_any_name_through(sys.stdin)
    for line in filter(None, (line.strip().lstrip(BYTE_ORDER_MARK) for line in sys.stdin)):
        try:
            yield from _recordings(Path(line))
        except DataError as error:
            yield error


@contextlib.contextmanager
def _looked_up(path: Path) -> Iterator[None]:
    """Turns an error of the file system into one about the path that it is of."""
    try:
        yield
    except OSError as error:  # too long a name, or a folder that mayn't be searched
        raise DataError(
            f"{error.filename or path}: it can't be looked up ({error.strerror}); correct the path "
            "or its permissions, or leave it out"
        ) from error


def _found(name: str) -> Sequence[Path]:
    path = Path(name)
    with _looked_up(path):
        there = path.exists()
    if not there:
        raise DataError(f"{path}: there is no such file or folder")
    return _recordings(path)


def _recordings(path: Path) -> Sequence[Path]:
    """Those of a folder, sorted; what is no folder itself."""
    from espnet_prune.data.find_recordings import find_recordings

    with _looked_up(path):
        if not path.is_dir():
            return [path]
        found = find_recordings(path)
    left_out = found.left_out(path)
    if not found.recordings:
        raise DataError(f"{path}: no recording in it{left_out and f'; {left_out}'}")
    if left_out:
        logger.warning("%s: %s", path, left_out)
    return found.recordings
