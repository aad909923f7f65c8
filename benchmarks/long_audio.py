"""Memory and time of transcribing one recording of minutes to an hour.

The recording is FILE repeated; each length is a process of its own, whose peak memory and time are
printed beside those of the shortest one.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

MEGABYTE_KIB = 1024


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recording", type=Path, help="audio to repeat")
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--model", type=Path, help="a model's folder, decoded greedily")
    model.add_argument("--onnx", type=Path, help="a folder of export_onnx")
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 10, 60])
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints a line a length."""
    import numpy

    from espnet_prune.data.audio_io import read_audio, write_audio

    args = get_parser().parse_args(argv)
    samples, rate = read_audio(str(args.recording), "recording")
    chosen = ["--onnx", str(args.onnx)]
    if args.model:
        chosen = ["--model", str(args.model), "--mode", "greedy"]
    print(f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}, batch 1")
    first: tuple[float, float] | None = None
    with tempfile.TemporaryDirectory() as folder:
        for minutes in args.minutes:
            path = Path(folder) / "long.flac"
            write_audio(path, numpy.resize(samples, int(60 * minutes * rate)), rate)
            command = ["-m", "espnet_prune", "transcribe", *chosen, str(path)]
            process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
            if status:
                print(f"{minutes:g} min: transcribe failed", file=sys.stderr)
                return 1
            memory, seconds = usage.ru_maxrss / MEGABYTE_KIB, usage.ru_utime + usage.ru_stime
            first = first or (memory, seconds)
            print(
                f"{minutes:6g} min: {memory:6.0f} MB ({memory / first[0]:.2f} x), "
                f"{seconds:6.1f} s of CPU ({seconds / first[1]:.2f} x)"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
