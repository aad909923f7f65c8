"""Stage 10: the cut model trained on, distilled from the uncompressed one."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_prune.bin import run_main


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--systems", type=Path, required=True, help="systems.yaml")
    parser.add_argument("--system", required=True, help="a name in it")
    parser.add_argument("--teacher", type=Path, required=True, help="the teacher's folder")
    parser.add_argument("--train", type=Path, required=True, help="dump folder")
    parser.add_argument("--valid", type=Path, required=True, help="dump folder")
    parser.add_argument("--tokens", type=Path, required=True, help="folder of the tokens")
    parser.add_argument("--stats", type=Path, required=True, help="folder of stage 5")
    parser.add_argument("--out", type=Path, required=True, help="the system's folder")
    parser.add_argument("--ngpu", type=int, default=0)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs, goes on, or finds it done."""
    from espnet_prune.config import load_yaml
    from espnet_prune.stage import finished, mark_finished

    args = get_parser().parse_args(argv)
    entry = (load_yaml(args.systems).get("systems") or {}).get(args.system)
    made_by = {"config": load_yaml(args.config), "system": entry, "teacher": str(args.teacher)}
    done = args.out / "finetune"
    if finished(done, made_by):
        return 0
    from espnet_prune.espnet import stages

    recipe = stages.read_recipe(args.config, stages.FinetuneTask)
    system = stages.read_system(args.systems, args.system)
    folders = stages.Folders(args.train, args.valid, args.tokens, args.stats)
    stages.finetune(recipe, args.teacher, folders, args.out, args.ngpu, system)
    mark_finished(done, made_by)
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
