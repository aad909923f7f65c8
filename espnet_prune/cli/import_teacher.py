"""Stage 6 with --teacher: a model that was trained elsewhere, as the teacher."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_prune.cli import run_main


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--teacher",
        required=True,
        help="a .nemo archive of a Conformer with CTC, or its name on the hub, such as "
        "nvidia/stt_en_conformer_ctc_small",
    )
    parser.add_argument("--tokens", type=Path, help="folder of its tokens; made beside if missing")
    parser.add_argument("--out", type=Path, required=True, help="folder of the teacher")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Imports, unless it is done already."""
    from espnet_prune.data.tokens import DESCRIPTION
    from espnet_prune.stage import finished, mark_finished

    args = get_parser().parse_args(argv)
    made_by = {"teacher": args.teacher}
    if finished(args.out, made_by):
        return 0
    from espnet_prune.models.origins import open_origin
    from espnet_prune.train.system import finish_teacher

    tokens = args.tokens or args.out / "tokens"
    with open_origin(args.teacher) as origin:
        if not (tokens / DESCRIPTION).exists():
            origin.write_tokens(tokens)
        finish_teacher(args.out, made_by, origin.build(tokens))
    mark_finished(args.out, made_by)
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
