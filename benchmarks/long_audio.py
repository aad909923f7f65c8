"""Memory and real-time factor of transcribing one recording of minutes to an hour.

The recording is FILE repeated; each length is a process of its own. A real-time factor is seconds
of computing a second of audio, loading the model included; by the processor's clock it hardly
depends on what else the machine does, by the wall's it does.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

MEBIBYTE_KIB = 1024
PROGRAM = (sys.executable, "-m", "espnet_prune", "transcribe")
# A process begins with the peak of the one that starts it, so a small one does.
METER = """
import json, resource, subprocess, sys
status = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([status, usage.ru_maxrss, usage.ru_utime + usage.ru_stime]))
"""


@dataclass(frozen=True)
class Cost:
    """What one recording cost.

    Attributes:
        minutes: length of the audio.
        peak_mib: most memory.
        processor_rtf: seconds of all processors' time a second of audio.
        wall_rtf: seconds by the clock a second of audio.
    """

    minutes: float
    peak_mib: float
    processor_rtf: float
    wall_rtf: float


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recording", type=Path, help="audio to repeat")
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--model", type=Path, help="a model's folder")
    model.add_argument("--onnx", type=Path, help="a folder of export_onnx, decoded greedily")
    parser.add_argument(
        "--mode", default="greedy", help="greedy, ctc_prefix or joint, with --model"
    )
    parser.add_argument("--segment_seconds", type=float, help="longest piece; default: the model's")
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 10, 60])
    parser.add_argument("--out", type=Path, help="JSON file to write")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints a line a length."""
    args = get_parser().parse_args(argv)
    chosen = ["--onnx", args.onnx] if args.onnx else ["--model", args.model, "--mode", args.mode]
    if args.segment_seconds:
        chosen += ["--segment_seconds", args.segment_seconds]
    threads = os.environ.get("OMP_NUM_THREADS", "unset")
    print(f"OMP_NUM_THREADS={threads}, batch 1")
    costs = []
    for minutes in args.minutes:
        cost = measure(args.recording, minutes, [str(word) for word in chosen])
        if cost is None:
            print(f"{minutes:g} min: transcribe failed", file=sys.stderr)
            return 1
        costs.append(cost)
        print(
            f"{minutes:6g} min: {cost.peak_mib:6.0f} MiB, real-time factor "
            f"{cost.processor_rtf:.4f} (processor), {cost.wall_rtf:.4f} (wall)"
        )
    if args.out:
        record = {"threads": threads, "command": chosen, "costs": [asdict(c) for c in costs]}
        args.out.write_text(json.dumps(record, indent=2, default=str) + "\n")
    return 0


def measure(recording: Path, minutes: float, options: Sequence[str]) -> Cost | None:
    """What a process costs that transcribes so many minutes; None where it fails."""
    import numpy

    from espnet_prune.data.audio_io import read_audio, write_audio

    samples, rate = read_audio(str(recording), "recording")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.flac"
        write_audio(path, numpy.resize(samples, int(60 * minutes * rate)), rate)
        started = time.monotonic()
        command = [sys.executable, "-c", METER, *PROGRAM, *options, str(path)]
        metered = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        wall = time.monotonic() - started
    status, peak_kib, processor = json.loads(metered)
    if status:
        return None
    seconds = 60 * minutes
    return Cost(minutes, peak_kib / MEBIBYTE_KIB, processor / seconds, wall / seconds)


if __name__ == "__main__":
    sys.exit(main())
