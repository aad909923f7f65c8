"""Stage 5: shapes of all utterances, mean and variance of the features."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_prune.cli import run_main


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, help="the teacher's configuration")
    parser.add_argument("--teacher", help="shapes alone: this model brings its normalisation")
    parser.add_argument("--train", type=Path, required=True, help="dump folder")
    parser.add_argument("--valid", type=Path, required=True, help="dump folder")
    parser.add_argument("--tokens", type=Path, required=True, help="folder of the tokens")
    parser.add_argument("--out", type=Path, required=True)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Collects, unless it is done already."""
    from espnet_prune.config import load_yaml
    from espnet_prune.errors import ConfigError
    from espnet_prune.stage import finished, mark_finished

    args = get_parser().parse_args(argv)
    if args.teacher is not None:
        return _shapes(args)
    if args.config is None:
        raise ConfigError("--config is missing: name the teacher's configuration, or --teacher")
    config = load_yaml(args.config)
    reads = ("frontend", "frontend_conf", "input_size")
    made_by = {"train": str(args.train), "valid": str(args.valid)}
    made_by.update({key: config.get(key) for key in reads})
    if finished(args.out, made_by):
        return 0
    from espnet_prune.train.options import check_training_config
    from espnet_prune.train.teacher_task import TeacherTask
    from espnet_prune.train.training import collect_stats

    config = check_training_config(TeacherTask, config, str(args.config))
    collect_stats(TeacherTask, config, args.train, args.valid, args.tokens, args.out)
    mark_finished(args.out, made_by)
    return 0


def _shapes(args: argparse.Namespace) -> int:
    """Shapes as the formatted data has them."""
    from espnet_prune.stage import finished, mark_finished
    from espnet_prune.train.training import write_shapes

    made_by = {"train": str(args.train), "valid": str(args.valid), "teacher": args.teacher}
    if not finished(args.out, made_by):
        write_shapes(args.train, args.valid, args.out)
        mark_finished(args.out, made_by)
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
