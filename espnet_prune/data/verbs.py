"""Verbs of the stages that make data: corpora, speeds, formats, tokens."""

import argparse
import contextlib
import logging
import os
from pathlib import Path

from espnet_prune.data.options import add_reading_options, reading_of
from espnet_prune.data.parallel import add_jobs, share_of

logger = logging.getLogger(__name__)
VALID_MARK = ".valid.json"
SHOWN = 10  # of the lines that were left out


def prepare_synth_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, help="the recipe's data folder")
    parser.add_argument("--config", type=Path, help="corpus.yaml; without it, the defaults")
    _add_processes(parser)


def prepare_synth(args: argparse.Namespace) -> None:
    """Makes the corpus."""
    from espnet_prune.config import load_yaml, to_dataclass
    from espnet_prune.data import synth

    where = str(args.config or "corpus")
    settings = load_yaml(args.config) if args.config else {}
    synth.prepare(to_dataclass(synth.Corpus, settings, where), args.out, args.nj, where)


def prepare_an4_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--an4", type=Path, help="folder with etc/ and wav/; else downloaded")
    parser.add_argument("--out", type=Path, required=True, help="the recipe's data folder")


def prepare_an4(args: argparse.Namespace) -> None:
    """Prepares AN4."""
    from espnet_prune.data import an4

    an4.prepare(args.an4 or an4.download(args.out.parent / "downloads"), args.out)


def prepare_librispeech_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--librispeech",
        type=Path,
        help="folder with the parts, such as test-clean; else they are downloaded",
    )
    parser.add_argument("--sets", type=Path, required=True, help="data.yaml: what each set is of")
    parser.add_argument("--out", type=Path, required=True, help="the recipe's data folder")
    _add_processes(parser)
    parser.add_argument(
        "--skip_bad", action="store_true", help="leave out what is damaged or missing, and say so"
    )
    parser.add_argument("--mirror", help="download from this URL instead of openslr.org's")


def prepare_librispeech(args: argparse.Namespace) -> None:
    """Prepares LibriSpeech, unless it is done already."""
    from espnet_prune.data import librispeech, librispeech_download
    from espnet_prune.data.librispeech_layout import find_root
    from espnet_prune.record import OTHER_WORK_DIR, finished, mark_finished

    corpus = librispeech.read_corpus(args.sets)
    if args.librispeech is None:
        url = (args.mirror or librispeech_download.URL).rstrip("/")
        folder = args.out.parent / "downloads"
        given = librispeech_download.download(corpus.download, folder, url)
    else:
        given = args.librispeech
    root = find_root(given)
    config = {
        "librispeech": str(root),
        "sets": librispeech.describe(corpus),
        "skip_bad": args.skip_bad,
    }
    whole = all((args.out / name / "wav.scp").exists() for name in corpus.sets)
    if not (finished(args.out, config, OTHER_WORK_DIR) and whole):
        librispeech.prepare(root, corpus, args.out, args.nj, args.skip_bad)
        mark_finished(args.out, config)


def generate_librispeech_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, help="gets the folder LibriSpeech")
    parser.add_argument("--config", type=Path, required=True, help="corpus.yaml")
    _add_processes(parser)


def generate_librispeech(args: argparse.Namespace) -> None:
    """Makes the corpus, unless it is there."""
    from espnet_prune.config import load_yaml, to_dataclass
    from espnet_prune.data import synth
    from espnet_prune.data.librispeech_generated import generate

    corpus = to_dataclass(synth.Corpus, load_yaml(args.config), str(args.config))
    generate(corpus, args.out, args.nj, str(args.config))


def prepare_lhotse_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cuts", type=Path, required=True, help="a manifest, or a folder of Shar")
    _add_out(parser)


def prepare_lhotse(args: argparse.Namespace) -> None:
    """Prepares, unless it is done already."""
    from espnet_prune.data.collection import sizes_of
    from espnet_prune.data.lhotse_cuts import collect_cuts
    from espnet_prune.record import OTHER_WORK_DIR, finished, mark_finished

    config = {"cuts": str(args.cuts), "sizes": sizes_of(args.cuts) if args.cuts.exists() else None}
    if not finished(args.out, config, OTHER_WORK_DIR):
        utterances = collect_cuts(args.cuts, args.out)
        mark_finished(args.out, config)
        print(f"{args.out}: {utterances} utterances")


def prepare_hugging_face_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dataset", type=Path, required=True, help="its folder")
    _add_out(parser)
    parser.add_argument("--split", default="train", help="which part of it")
    for name, default in (("audio", "audio"), ("text", "text"), ("speaker", None), ("id", None)):
        parser.add_argument(f"--{name}", default=default, help="name of its column")


def prepare_hugging_face(args: argparse.Namespace) -> None:
    """Prepares, unless it is done already."""
    from espnet_prune.data.collection import sizes_of
    from espnet_prune.data.hugging_face_set import collect_hugging_face
    from espnet_prune.record import OTHER_WORK_DIR, finished, mark_finished

    columns = {name: getattr(args, name) for name in ("audio", "text", "speaker", "id")}
    config = {
        "dataset": str(args.dataset),
        "sizes": sizes_of(args.dataset) if args.dataset.exists() else None,
        "split": args.split,
        **columns,
    }
    if not finished(args.out, config, OTHER_WORK_DIR):
        utterances = collect_hugging_face(args.dataset, args.out, args.split, columns)
        mark_finished(args.out, config)
        print(f"{args.out}: {utterances} utterances")


def list_chapters_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("part", type=Path, metavar="DIR", help="such as LibriSpeech/dev-clean-2")


def list_chapters(args: argparse.Namespace) -> None:
    """Prints the list."""
    from espnet_prune.data.librispeech_layout import write_chapter_list

    print(write_chapter_list(args.part), end="")


def validate_data_arguments(parser: argparse.ArgumentParser) -> None:
    _add_folders(parser)
    add_reading_options(parser)


def validate_data(args: argparse.Namespace) -> None:
    """Validates, unless the same data were found valid before, and says what they hold."""
    for folder in args.folders:
        holding = _validated(folder, args)
        for note in holding.notes:
            logger.warning("%s: %s", folder, note)
        print(f"{folder}: {holding}")


def _validated(folder: Path, args: argparse.Namespace):
    from espnet_prune.data.resume import file_fingerprint, fingerprint
    from espnet_prune.data.validate import Holding, validate
    from espnet_prune.io_atomic import read_json, write_json

    config = {
        "data": fingerprint(folder),
        "speakers": file_fingerprint(folder / "spk2utt"),
        "sample_rate": args.sample_rate,
        "channel": args.channel,
        "pipes": args.pipes,
    }
    mark = folder / VALID_MARK
    if mark.exists() and (found := read_json(mark))["config"] == config:
        return Holding(**found["holding"])
    _, holding = validate(folder, reading_of(args), args.nj)
    with contextlib.suppress(OSError):  # a folder that mayn't be written is checked every time
        write_json(mark, {"config": config, "holding": holding.to_json()})
    return holding


def fix_data_arguments(parser: argparse.ArgumentParser) -> None:
    _add_folders(parser)
    add_reading_options(parser)


def fix_data(args: argparse.Namespace) -> None:
    """Fixes each directory where it is; its lists as they were stay in DIR/.backup."""
    from espnet_prune.data import fix

    for folder in args.folders:
        fixed = fix.fix_data(folder, reading_of(args), args.nj)
        for name, reason in list(fixed.left_out.items())[:SHOWN]:
            logger.warning("%s: left out '%s': %s", folder, name, reason)
        print(
            f"{folder}: {fixed.kept} utterances are left, {len(fixed.left_out)} lines left out "
            f"({folder / fix.LEFT_OUT}), {fixed.cleaned} texts without invisible characters now"
            if fixed.left_out or fixed.cleaned
            else f"{folder}: {fixed.kept} utterances, nothing is left out"
        )


def perturb_speed_arguments(parser: argparse.ArgumentParser) -> None:
    _add_source(parser)
    parser.add_argument("--factors", type=float, nargs="+", required=True, help="such as 0.9 1.0")


def perturb_speed(args: argparse.Namespace) -> None:
    """Perturbs, unless it is done already."""
    from espnet_prune.data.perturbed import perturb_data
    from espnet_prune.data.resume import fingerprint
    from espnet_prune.record import OTHER_WORK_DIR, finished, mark_finished

    config = {
        "source": str(args.source),
        "fingerprint": fingerprint(args.source),
        "factors": args.factors,
    }
    if not finished(args.out, config, OTHER_WORK_DIR):
        data = perturb_data(args.source, args.out, args.factors)
        mark_finished(args.out, config)
        print(f"{args.out}: {len(data.texts)} utterances")


def format_audio_arguments(parser: argparse.ArgumentParser) -> None:
    _add_source(parser)
    parser.add_argument("--format", default="flac", help="flac, ark or keep")
    parser.add_argument("--min_seconds", type=float, default=0.0, help="shorter ones are left out")
    parser.add_argument(
        "--max_seconds", type=float, default=float("inf"), help="longer ones are left out"
    )
    parser.add_argument(
        "--text_case", default="keep", help="case of the texts: keep, lower or upper"
    )
    add_reading_options(parser)
    add_jobs(parser)


def format_audio(args: argparse.Namespace) -> None:
    """Formats, unless it is done already."""
    from espnet_prune.data.format import KEEP, Formatting, format_data
    from espnet_prune.data.resume import fingerprint
    from espnet_prune.record import OTHER_WORK_DIR, finished, mark_finished

    names = ("sample_rate", "format", "min_seconds", "max_seconds")
    config = {
        "source": str(args.source),
        "fingerprint": fingerprint(args.source),
        **{name: getattr(args, name) for name in names},
    }
    if args.text_case != KEEP:
        config["text_case"] = args.text_case
    if args.channel is not None:
        config["channel"] = args.channel
    if finished(args.out, config, OTHER_WORK_DIR):
        return
    lengths = (args.min_seconds, args.max_seconds)
    how = Formatting(reading_of(args), args.format, *lengths, args.text_case)
    counts = format_data(args.source, args.out, how, args.nj, share_of(args))
    if counts is not None:
        mark_finished(args.out, config)
        print(f"{args.out}: {counts[0]} utterances, {counts[1]} left out by length")


def _add_folders(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", type=Path, nargs="+", metavar="DIR", help="data directories")
    parser.add_argument("--nj", type=int, default=1, help="processes")


def add_noise_arguments(parser: argparse.ArgumentParser) -> None:
    _add_source(parser)
    parser.add_argument("--kind", default="white", help="white, or babble of other speakers")
    parser.add_argument("--snr", type=float, required=True, help="speech to noise, in dB")
    parser.add_argument("--talkers", type=int, default=5, help="voices of babble")
    parser.add_argument("--seed", type=int, default=0, help="decides all that is drawn")
    parser.add_argument("--nj", type=int, default=os.cpu_count() or 1, help="parallel jobs")


def add_noise(args: argparse.Namespace) -> None:
    """Adds the noise, unless it is done already."""
    from espnet_prune.data.noise import Noise, add_noise_to
    from espnet_prune.data.resume import fingerprint
    from espnet_prune.record import OTHER_WORK_DIR, finished, mark_finished

    noise = Noise(args.kind, args.snr, args.talkers, args.seed)
    source = {"source": str(args.source), "fingerprint": fingerprint(args.source)}
    config = {**source, **vars(noise)}
    if finished(args.out, config, OTHER_WORK_DIR):
        return
    number = add_noise_to(args.source, args.out, noise, args.nj)
    mark_finished(args.out, config)
    print(f"{args.out}: {number} utterances")


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source", type=Path, required=True, help="data directory")
    _add_out(parser)


def _add_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, help="data directory to make")


def _add_processes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nj", type=int, default=os.cpu_count() or 1, help="parallel jobs")
