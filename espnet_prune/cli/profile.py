"""Stage 12: MACs, real-time factors and speed-up of a system, beside the teacher in one run."""

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from espnet_prune.cli import run_main

logger = logging.getLogger(__name__)


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--system", type=Path, required=True, help="the system's folder")
    parser.add_argument("--teacher", type=Path, required=True, help="the teacher's folder")
    parser.add_argument("--config", type=Path, required=True, help="profile.yaml")
    parser.add_argument("--data", type=Path, required=True, help="dump folder, for real speech")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Profiles, unless it is done already with this configuration, these models and this data."""
    from espnet_prune.config import load_yaml, to_dataclass
    from espnet_prune.io_atomic import read_json, write_json
    from espnet_prune.score.profile import made_from, profile
    from espnet_prune.score.timing import ProfileConfig

    args = get_parser().parse_args(argv)
    config = to_dataclass(ProfileConfig, load_yaml(args.config), str(args.config))
    wanted = made_from(args.system, args.teacher, args.data, asdict(config))
    target = args.system / "profile.json"
    if target.exists() and read_json(target).get("made_from") == wanted:
        logger.info("%s: already done, nothing to do", target)
        return 0
    result = profile(args.system, args.teacher, args.data, config)
    write_json(target, {**result, "made_from": wanted})
    rtf, speedup = result["rtf"], result["speedup"]
    greedy = f", greedy {rtf['ctc_greedy']:.4f}" if "ctc_greedy" in rtf else ""
    joint = f", joint {rtf['joint']:.3f}" if "joint" in rtf else ""
    print(
        f"{args.system.resolve().name}: encoder {speedup['encoder']:.2f} times as fast as dense "
        f"({speedup['predicted']:.2f} by its MACs alone); real-time factors: "
        f"encoder {rtf['encoder']:.4f}{greedy}{joint} "
        f"({rtf['threads']} thread, batch 1)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
