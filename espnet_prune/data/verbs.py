"""Verbs of the stages that make data: corpora, speeds, formats, tokens."""

import argparse
import os
from pathlib import Path

from espnet_prune.data.parallel import add_jobs, share_of


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


def list_chapters_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("part", type=Path, metavar="DIR", help="such as LibriSpeech/dev-clean-2")


def list_chapters(args: argparse.Namespace) -> None:
    """Prints the list."""
    from espnet_prune.data.librispeech_layout import write_chapter_list

    print(write_chapter_list(args.part), end="")


def validate_data_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", type=Path, nargs="+", metavar="DIR", help="data directories")
    _add_rate(parser)


def validate_data(args: argparse.Namespace) -> None:
    """Validates and says what each directory holds."""
    from espnet_prune.data.kaldi_dir import validate

    for folder in args.folders:
        data, seconds = validate(folder, args.sample_rate)
        words = sum(len(text.split()) for text in data.texts.values())
        speakers = len(set(data.speakers.values()))
        print(
            f"{folder}: {len(data.texts)} utterances, {speakers} speakers, {words} words, "
            f"{seconds / 60:.1f} min"
        )


def perturb_speed_arguments(parser: argparse.ArgumentParser) -> None:
    _add_source(parser)
    parser.add_argument("--audio", type=Path, required=True, help="folder of the new recordings")
    parser.add_argument("--factors", type=float, nargs="+", required=True, help="such as 0.9 1.0")
    add_jobs(parser)


def perturb_speed(args: argparse.Namespace) -> None:
    """Perturbs, unless it is done already."""
    from espnet_prune.data.resume import fingerprint
    from espnet_prune.data.speed import perturb_data
    from espnet_prune.record import OTHER_WORK_DIR, finished, mark_finished

    config = {
        "source": str(args.source),
        "fingerprint": fingerprint(args.source),
        "factors": args.factors,
    }
    if finished(args.out, config, OTHER_WORK_DIR):
        return
    share = share_of(args)
    data = perturb_data(args.source, args.out, args.audio, args.factors, args.nj, share)
    if share is None:
        mark_finished(args.out, config)
        print(f"{args.out}: {len(data.texts)} utterances")


def format_audio_arguments(parser: argparse.ArgumentParser) -> None:
    _add_source(parser)
    _add_rate(parser)
    parser.add_argument("--format", default="flac", help="flac, ark or keep")
    parser.add_argument("--min_seconds", type=float, default=0.0, help="shorter ones are left out")
    parser.add_argument(
        "--max_seconds", type=float, default=float("inf"), help="longer ones are left out"
    )
    parser.add_argument("--text_case", default="keep", help="of the texts: keep, lower or upper")
    add_jobs(parser)


def format_audio(args: argparse.Namespace) -> None:
    """Formats, unless it is done already."""
    from espnet_prune.data.format import KEEP, format_data
    from espnet_prune.data.resume import fingerprint
    from espnet_prune.record import OTHER_WORK_DIR, finished, mark_finished

    names = ("sample_rate", "format", "min_seconds", "max_seconds")
    options = {name: getattr(args, name) for name in names}
    config = {"source": str(args.source), "fingerprint": fingerprint(args.source), **options}
    if args.text_case != KEEP:
        config["text_case"] = args.text_case
    if finished(args.out, config, OTHER_WORK_DIR):
        return
    counts = format_data(
        args.source,
        args.out,
        *options.values(),
        jobs=args.nj,
        share=share_of(args),
        text_case=args.text_case,
    )
    if counts is not None:
        mark_finished(args.out, config)
        print(f"{args.out}: {counts[0]} utterances, {counts[1]} left out by length")


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source", type=Path, required=True, help="data directory")
    parser.add_argument("--out", type=Path, required=True, help="data directory to make")


def _add_rate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sample_rate", type=int, default=16000, help="expected, in Hz")


def _add_processes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nj", type=int, default=os.cpu_count() or 1, help="parallel jobs")
