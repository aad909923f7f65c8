"""Recordings to text, by a saved or an exported model: files, folders, or a list on stdin."""

import argparse
import logging
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from espnet_prune.bin import run_main
from espnet_prune.errors import DataError

logger = logging.getLogger(__name__)
SUFFIXES = (".flac", ".wav", ".ogg", ".opus", ".mp3", ".sph")


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--model", type=Path, help="a system's model folder; needs ESPnet")
    model.add_argument("--onnx", type=Path, help="a folder of export_onnx; greedy")
    modes = ("greedy", "ctc_prefix", "joint")
    parser.add_argument("--mode", choices=modes, help="with --model; default: joint")
    parser.add_argument("--timestamps", action="store_true", help="greedy CTC, a line a word")
    parser.add_argument(
        "inputs", nargs="+", help="audio files, folders, or - for a list of files on stdin"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Prints a line `FILE<tab>TEXT` each, or `FILE<tab>START<tab>END<tab>WORD` with times.

    A recording that can't be read doesn't stop the others: it is named, and the status is 2.
    """
    parser = get_parser()
    args = parser.parse_args(argv)
    if args.onnx and args.mode:
        parser.error("--mode goes with --model; an exported graph decodes greedily")
    if args.timestamps and args.mode in ("ctc_prefix", "joint"):
        parser.error("--timestamps is of greedy CTC; a beam search has no frames")
    files = _files(args.inputs)
    failed, total = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        recogniser, rate = _load(args, Path(folder))
        for path in files:
            total += 1
            try:
                _transcribe(recogniser, rate, path, args)
            except DataError as error:
                failed += 1
                logger.error("%s", error)
    if not total:
        raise DataError("-: no recording is listed on stdin; give one path a line")
    if failed:
        raise DataError(f"{failed} of {total} recordings couldn't be read; they are named above")
    return 0


def _transcribe(recogniser, rate: int, path: Path, args: argparse.Namespace) -> None:
    from espnet_prune.data.audio_io import read_speech

    samples = read_speech(str(path), str(path), rate)
    if args.timestamps:
        for word in recogniser.words(samples):
            print(f"{path}\t{word.start:.2f}\t{word.end:.2f}\t{word.text}", flush=True)
        return
    mode = () if args.onnx else (args.mode or recogniser.modes[-1], str(path))
    print(f"{path}\t{recogniser.transcribe(samples, *mode)}", flush=True)


def _load(args: argparse.Namespace, folder: Path) -> tuple:
    """The recogniser and its sampling rate in Hz; it may read an empty folder that stays."""
    if args.onnx or args.timestamps:
        if args.onnx:
            from espnet_prune.export.exported import open_exported

            recogniser = open_exported(args.onnx, args.timestamps)
        else:
            from espnet_prune.export.saved import SavedRecogniser

            recogniser = SavedRecogniser(args.model)
        return recogniser, recogniser.rate
    from espnet_prune.espnet.decoding import SAMPLE_RATE, DecodeConfig, open_recogniser

    return open_recogniser(_for_espnet(args.model, folder), DecodeConfig()), SAMPLE_RATE


def _for_espnet(model: Path, folder: Path) -> Path:
    """The model's folder; another of it where the files of ESPnet weren't carried along."""
    from espnet_prune.espnet.build import ESPNET_FOLDER
    from espnet_prune.espnet.decoding import is_whisper_folder
    from espnet_prune.espnet.system import write_model
    from espnet_prune.surgery import load

    if (model / ESPNET_FOLDER).exists() or is_whisper_folder(model):
        return model
    write_model(load(model), folder)
    return folder


def _files(inputs: Sequence[str]) -> Iterator[Path]:
    """The recordings in their order; those of a folder sorted.

    What is named on the command line is looked up at once, before a model is loaded; a list on
    stdin is read line by line, while the recordings are transcribed.

    Raises:
        DataError: a file or folder is missing, or a folder holds no recording; ``-`` twice.
    """
    if list(inputs).count("-") > 1:
        raise DataError("'-' is given twice, but stdin can be read only once")
    return chain.from_iterable([_listed() if name == "-" else _found(name) for name in inputs])


def _listed() -> Iterator[Path]:
    """Files named on stdin; one that is missing is an error where it is read."""
    return (Path(line.strip()) for line in sys.stdin if line.strip())


def _found(name: str) -> Iterable[Path]:
    path = Path(name)
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder")
    if not path.is_dir():
        return [path]
    found = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not found:
        raise DataError(f"{path}: no recording in it ({', '.join(SUFFIXES)})")
    return found


if __name__ == "__main__":
    sys.exit(run_main(main))
