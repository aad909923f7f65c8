"""Recordings to text, by a saved or an exported model: files, folders, or a list on stdin."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from espnet_prune.bin import run_main

SUFFIXES = (".flac", ".wav", ".ogg", ".opus", ".mp3", ".sph")


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--model", type=Path, help="a system's model folder; needs ESPnet")
    model.add_argument("--onnx", type=Path, help="a folder of export_onnx; greedy CTC")
    parser.add_argument("--mode", choices=("greedy", "joint"), help="with --model; default: joint")
    parser.add_argument("--timestamps", action="store_true", help="with --onnx: a line a word")
    parser.add_argument(
        "inputs", nargs="+", help="audio files, folders, or - for a list of files on stdin"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Prints a line `FILE<tab>TEXT` each, or `FILE<tab>START<tab>END<tab>WORD` with times."""
    from espnet_prune.data.audio_io import read_speech

    parser = get_parser()
    args = parser.parse_args(argv)
    if args.onnx and args.mode:
        parser.error("--mode goes with --model; an exported graph decodes greedily")
    if args.timestamps and not args.onnx:
        parser.error("--timestamps goes with --onnx")
    recogniser, rate = _load(args)
    for path in _files(args.inputs):
        samples = read_speech(str(path), str(path), rate)
        if args.timestamps:
            for word in recogniser.words(samples):
                print(f"{path}\t{word.start:.2f}\t{word.end:.2f}\t{word.text}", flush=True)
        elif args.onnx:
            print(f"{path}\t{recogniser.transcribe(samples)}", flush=True)
        else:
            text = recogniser.transcribe(samples, args.mode or "joint", str(path))
            print(f"{path}\t{text}", flush=True)
    return 0


def _load(args: argparse.Namespace) -> tuple:
    """The recogniser and its sampling rate in Hz."""
    if args.onnx:
        from espnet_prune.export.recogniser import OnnxRecogniser

        recogniser = OnnxRecogniser(args.onnx)
        return recogniser, recogniser.rate
    from espnet_prune.espnet.decoding import SAMPLE_RATE, DecodeConfig, Recogniser

    return Recogniser(args.model, DecodeConfig()), SAMPLE_RATE


def _files(inputs: Sequence[str]) -> Iterator[Path]:
    """The recordings in their order; those of a folder sorted.

    Raises:
        DataError: a file or folder is missing, or a folder holds no recording.
    """
    from espnet_prune.errors import DataError

    for name in inputs:
        if name == "-":
            yield from (Path(line.strip()) for line in sys.stdin if line.strip())
            continue
        path = Path(name)
        if not path.exists():
            raise DataError(f"{path}: there is no such file or folder")
        if not path.is_dir():
            yield path
            continue
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
        if not found:
            raise DataError(f"{path}: no recording in it ({', '.join(SUFFIXES)})")
        yield from found


if __name__ == "__main__":
    sys.exit(run_main(main))
