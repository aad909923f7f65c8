"""What a recipe's trainings cost on this machine: hours, memory, disk.

Measures a few updates of stages 6, 8 and 10 on noise, with the models, losses and optimisers of the
recipe's configurations, and derives the rest from their numbers of epochs and batches. A GPU
measures whole batches, so that its memory is the trainings' own; a CPU measures one utterance.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_prune.cli import run_main


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--conf_dir", type=Path, required=True, help="a recipe's conf/")
    parser.add_argument("--train_hours", type=float, required=True, help="of the training set")
    parser.add_argument("--valid_hours", type=float, required=True, help="of the development set")
    parser.add_argument("--speed_factors", default="1.0", help='as in the recipe: "0.9 1.0 1.1"')
    parser.add_argument("--vocab_size", type=int, required=True, help="number of tokens")
    parser.add_argument("--utterance_seconds", type=float, default=12.3, help="mean length")
    parser.add_argument("--tokens_per_second", type=float, default=4.0, help="of the texts")
    parser.add_argument("--ngpu", type=int, default=0, help="GPUs that share a batch; one measures")
    parser.add_argument("--utterances", type=int, help="in a measured batch")
    parser.add_argument("--updates", type=int, default=2, help="measured of each training")
    parser.add_argument(
        "--processor_seconds",
        action="store_true",
        help="count the time that the process itself computes, on a CPU that others use too",
    )
    parser.add_argument("--out", type=Path, help="JSON file")
    return parser


def read_factors(text: str) -> tuple[float, ...]:
    """The speeds of ``--speed_factors``.

    Raises:
        ConfigError: one is no number.
    """
    from espnet_prune.errors import ConfigError

    try:
        return tuple(float(word) for word in text.split())
    except ValueError as error:
        raise ConfigError(
            f"--speed_factors: '{text}' was expected as numbers between spaces: \"0.9 1.0 1.1\""
        ) from error


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, and prints the table."""
    import torch

    from espnet_prune.config import check_range
    from espnet_prune.errors import ConfigError
    from espnet_prune.io_atomic import write_json
    from espnet_prune.score.profile import machine
    from espnet_prune.train.recipe_cost import recipe_rows
    from espnet_prune.train.run_cost import Corpus, record, table
    from espnet_prune.train.step_time import StepTimer

    args = get_parser().parse_args(argv)
    check_range("--updates", args.updates, 1, 1e6)
    check_range("--vocab_size", args.vocab_size, 5, 1e6)
    check_range("--ngpu", args.ngpu, 0, 1e6)
    if args.utterances is not None:
        check_range("--utterances", args.utterances, 1, 1e6)
    if args.processor_seconds and args.ngpu:
        raise ConfigError("--processor_seconds: a GPU's time is the clock's; leave one of both out")
    factors = read_factors(args.speed_factors)
    lengths = (args.utterance_seconds, args.tokens_per_second)
    corpus = Corpus(args.train_hours, args.valid_hours, factors, *lengths)
    utterances = args.utterances
    if utterances is None and not args.ngpu:
        utterances = 1
    timer = StepTimer(corpus, utterances, args.updates, args.ngpu, args.processor_seconds)
    rows = recipe_rows(args.conf_dir, timer, corpus, args.vocab_size)
    about = {
        "device": torch.cuda.get_device_name() if args.ngpu else machine()["cpu"],
        "devices": max(1, args.ngpu),
        "threads": torch.get_num_threads(),
        "clock": "processor" if args.processor_seconds else "wall",
        "measured_utterances": utterances or "a whole batch",
    }
    print("{devices} x {device}, {threads} threads, {clock} time".format(**about))
    print(table(rows, corpus))
    if args.out is not None:
        write_json(args.out, record(rows, corpus, about))
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
