"""Stage 12: MACs, real-time factors and speed-up of a system, beside the teacher in one run."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_prune.bin import run_main


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--system", type=Path, required=True, help="the system's folder")
    parser.add_argument("--teacher", type=Path, required=True, help="the teacher's folder")
    parser.add_argument("--config", type=Path, required=True, help="profile.yaml")
    parser.add_argument("--data", type=Path, required=True, help="dump folder, for real speech")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Profiles, unless it is done already with this configuration."""
    from espnet_prune.config import load_yaml, to_dataclass
    from espnet_prune.io_atomic import read_json, write_json

    args = get_parser().parse_args(argv)
    values = load_yaml(args.config)
    target = args.system / "profile.json"
    if target.exists() and read_json(target).get("config") == values:
        return 0
    from espnet_prune.evaluate.profile import ProfileConfig, profile

    config = to_dataclass(ProfileConfig, values, str(args.config))
    result = profile(args.system, args.teacher, args.data, config)
    write_json(target, {**result, "config": values})
    rtf, speedup = result["rtf"], result["speedup"]
    print(
        f"{args.system.name}: encoder {speedup['encoder']:.2f} times as fast as dense "
        f"({speedup['predicted']:.2f} by MACs); real-time factors: encoder {rtf['encoder']:.4f}, "
        f"CTC greedy {rtf['ctc_greedy']:.4f}, joint {rtf['joint']:.3f} "
        f"({rtf['threads']} thread, batch 1)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
