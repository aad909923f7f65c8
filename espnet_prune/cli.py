"""One command, ``espnet-prune VERB``, and what all verbs share: errors, logging, ends of pipes.

A verb's parser stands near what it does, in the module that ``VERBS`` names, and is imported with
that module when the verb is asked for, so that ``espnet-prune --help`` starts at once.
"""

import argparse
import importlib
import logging
import os
import select
import sys
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from espnet_prune.config import nearest
from espnet_prune.errors import USERS_ERROR, ConfigError, EspnetPruneError
from espnet_prune.job_control import STOPPED_EXIT, StoppedOnRequest

PROGRAM = "espnet-prune"
BROKEN_PIPE_EXIT = 141  # 128 + SIGPIPE, as a shell says of a program that ended so
HELP_COLUMNS = 100
# Packages that an installation may be without, and what brings them.
REMEDIES = {
    "espnet2": "pip install --no-deps --ignore-requires-python espnet==202611 (docs/install.md)",
    "matplotlib": "pip install espnet_prune",
    "torch": "pip install espnet_prune",
    "transformers": "pip install 'espnet_prune[hf]'",
    "wandb": "pip install 'espnet_prune[wandb]'",
}


@dataclass(frozen=True)
class Verb:
    """One thing that the command does.

    Attributes:
        module: a module of the package; ``NAME_arguments(parser)`` there adds the options,
            ``NAME(args)`` does it and returns an exit status, or None for 0.
        help: what it does, in one line.
        passes_on: ``NAME(arguments)`` gets the words as they are, for somebody else's parser.
    """

    module: str
    help: str
    passes_on: bool = False


VERBS = {
    "Data, stages 1 to 4": {
        "prepare_synth": Verb(
            "data.verbs", "the synthetic corpus: Kaldi data directories of flite's voices"
        ),
        "prepare_an4": Verb("data.verbs", "AN4: Kaldi data directories train_nodev, dev and test"),
        "prepare_librispeech": Verb(
            "data.verbs", "LibriSpeech: Kaldi data directories of whole parts or of listed chapters"
        ),
        "generate_librispeech": Verb(
            "data.verbs", "a small corpus of flite's voices in LibriSpeech's layout, for --debug"
        ),
        "list_chapters": Verb(
            "data.verbs", "print the chapters of a part of LibriSpeech, for a recipe's data.yaml"
        ),
        "prepare_lhotse": Verb(
            "data.verbs", "a set of lhotse: cuts.jsonl.gz or Shar as a Kaldi data directory"
        ),
        "prepare_hugging_face": Verb(
            "data.verbs", "a data set of Hugging Face, here already, as a Kaldi data directory"
        ),
        "validate_data": Verb(
            "data.verbs", "check Kaldi data directories, and all recordings to their last samples"
        ),
        "fix_data": Verb(
            "data.verbs", "leave out of Kaldi data directories what can't be used, and list it"
        ),
        "perturb_speed": Verb(
            "data.verbs", "stage 2: every utterance at several speeds, named without a copy"
        ),
        "format_audio": Verb(
            "data.verbs", "stage 3: one format and rate; utterances of odd length left out"
        ),
        "add_noise": Verb(
            "data.verbs", "a data set in white noise or in others' babble, to be decoded"
        ),
        "make_tokens": Verb(
            "models.verbs", "stage 4: the token list, of BPE, characters, or a pretrained model"
        ),
        "get_whisper": Verb(
            "models.verbs", "a Whisper to start from: of the hub, a folder, or a package"
        ),
        "convert_whisper": Verb(
            "models.verbs", "a Whisper of CTranslate2 (faster-whisper) for transformers"
        ),
    },
    "Training and pruning, stages 5 to 10": {
        "configure": Verb(
            "train.verbs", "a recipe's YAML files resolved: a configuration for each system"
        ),
        "collect_stats": Verb(
            "train.verbs", "stage 5: shapes of all utterances, mean and variance of the features"
        ),
        "train_teacher": Verb(
            "train.verbs", "stage 6: the uncompressed model, by ESPnet's own task and trainer"
        ),
        "import_teacher": Verb(
            "train.verbs", "stage 6 with --teacher: a model that was trained elsewhere"
        ),
        "prune": Verb("train.verbs", "stage 8: gates on the teacher's copy, learned and distilled"),
        "cut": Verb("train.verbs", "stage 9: the masks fixed, the model cut, saved and checked"),
        "finetune": Verb(
            "train.verbs", "stage 10: the cut model trained on, distilled from the uncompressed one"
        ),
        "estimate_cost": Verb(
            "train.verbs", "what a recipe's trainings cost on this machine: hours, memory, disk"
        ),
    },
    "Results, stages 7 and 11 to 13": {
        "check_decoding": Verb(
            "decode.verbs", "whether decode.yaml will be taken, which is read after hours"
        ),
        "decode": Verb("decode.verbs", "decode a data folder: greedy, CTC prefix, joint search"),
        "score": Verb("score.verbs", "WER with interval and p of every decoded mode"),
        "profile": Verb("score.verbs", "MACs, real-time factors and speed-up beside the teacher"),
        "report": Verb("report.verbs", "report.json, RESULTS.md, plots and a page of experiments"),
        "pareto": Verb("report.verbs", "draw WER against size and speed, with Pareto fronts"),
        "table": Verb("report.verbs", "a paper's published figures beside ours"),
        "sensitivity": Verb(
            "report.verbs", "loss and WER without each site, or a part of its units; heat maps"
        ),
    },
    "Using models, stage 14": {
        "transcribe": Verb("decode.transcribe", "recordings to text, by a saved or exported model"),
        "export_onnx": Verb("export.verbs", "a saved model as ONNX, checked against torch"),
        "export_transformers": Verb(
            "export.verbs", "a saved model as a folder that transformers loads by itself"
        ),
        "pack": Verb("export.verbs", "stage 14: a model and its record as zip files"),
        "hub_folder": Verb("report.verbs", "a system as a folder for Hugging Face's hub"),
        "asr_inference": Verb(
            "decode.verbs", "ESPnet's own asr_inference, for cut models too", passes_on=True
        ),
    },
    "Jobs": {
        "status": Verb("cluster.verbs", "what ran, runs or failed in an experiment"),
        "jobs": Verb("cluster.verbs", "list, await or cancel an experiment's submitted jobs"),
        "nodes": Verb("cluster.verbs", "run a training verb on several nodes of a Slurm job"),
    },
}


def verbs() -> dict[str, Verb]:
    """All verbs by name."""
    return {name: verb for group in VERBS.values() for name, verb in group.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a verb; a user's error becomes one readable line and exit status 2.

    A training that saved and ended because its job is about to end has a status of its own, and
    so has a program whose output nobody reads any longer (``| head``), which ends quietly.
    """
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        datefmt="%H:%M:%S",
        stream=sys.stderr,
    )
    for handler in logging.getLogger().handlers:
        handler.addFilter(_worth_showing)
    warnings.filterwarnings("ignore", "No valid stats found")  # ESPnet's CER, which is off
    try:
        status = run(sys.argv[1:] if argv is None else argv)
        print(end="", flush=True)  # here, as nothing could catch it when the interpreter ends
        return status
    except BrokenPipeError:
        if not _nobody_reads():
            raise
        # Python's own recipe: otherwise the flush when the interpreter ends would fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE_EXIT
    except StoppedOnRequest as stopped:
        print(f"stopped as asked: {stopped}", file=sys.stderr)
        return STOPPED_EXIT
    except EspnetPruneError as error:
        print(f"error: {error}", file=sys.stderr)
        return USERS_ERROR
    except ModuleNotFoundError as error:
        remedy = REMEDIES.get((error.name or "").partition(".")[0])
        if remedy is None:
            raise
        print(f"error: {error.name} is missing; install it: {remedy}", file=sys.stderr)
        return USERS_ERROR


def run(argv: Sequence[str]) -> int:
    """Runs a verb and lets its errors through.

    Args:
        argv: the verb and its arguments.

    Returns:
        The exit status.

    Raises:
        ConfigError: there is no such verb.
    """
    name, *arguments = argv or ["--help"]
    if name in ("--help", "-h"):
        print(usage())
        return 0
    known = verbs()
    if name not in known:
        raise ConfigError(
            f"{PROGRAM}: there is no verb '{name}'{nearest(name, known)}; {PROGRAM} --help lists "
            "them"
        )
    verb = known[name]
    module = importlib.import_module(f"espnet_prune.{verb.module}")
    given = arguments if verb.passes_on else get_parser(name).parse_args(arguments)
    return getattr(module, name)(given) or 0


def get_parser(name: str) -> argparse.ArgumentParser:
    """The parser of a verb that has its own."""
    verb = verbs()[name]
    module = importlib.import_module(f"espnet_prune.{verb.module}")
    description = verb.help[0].upper() + verb.help[1:] + "."
    parser = argparse.ArgumentParser(prog=f"{PROGRAM} {name}", description=description)
    getattr(module, f"{name}_arguments")(parser)
    return parser


def usage() -> str:
    """The list of all verbs."""
    width = max(map(len, verbs())) + 2
    lines = [f"usage: {PROGRAM} VERB [OPTION...]", f"`{PROGRAM} VERB --help` lists its options."]
    for title, group in VERBS.items():
        lines += ["", title]
        for name, verb in group.items():
            indent = " " * (width + 2)
            lines.append(
                textwrap.fill(
                    f"  {name:{width}}{verb.help}", HELP_COLUMNS, subsequent_indent=indent
                )
            )
    return "\n".join(lines)


def _nobody_reads() -> bool:
    """Whether stdout is a pipe without a reader; another pipe may have broken too."""
    try:
        descriptor = sys.stdout.fileno()
    except (AttributeError, OSError):  # no stdout, or none of the system's
        return False
    poll = select.poll()
    poll.register(descriptor, 0)  # errors are told whatever is asked for
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _worth_showing(record: logging.LogRecord) -> bool:
    """This project's own records and everybody's warnings; the rest is for log files."""
    ours = record.name.startswith(("espnet_prune", "__main__"))
    return ours or record.levelno >= logging.WARNING
