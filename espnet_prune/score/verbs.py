"""Verbs that measure a system: word error rates, size and speed."""

import argparse
import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from espnet_prune.score.timing import ProfileConfig

logger = logging.getLogger(__name__)


def score_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description += (
        " With --compare_with also p against other systems, which must have been decoded. What "
        "was decoded in int8 is compared with the others in floating point."
    )
    parser.add_argument("--data", type=Path, required=True, help="dump folder, for its text")
    parser.add_argument("--system", type=Path, required=True, help="the system's folder")
    parser.add_argument("--set", required=True, help="name of the set, below SYSTEM/decode")
    parser.add_argument("--teacher", type=Path, help="the teacher's folder, for the p-value")
    parser.add_argument(
        "--compare_with", type=Path, nargs="+", default=[], help="other systems' folders, for more"
    )
    parser.add_argument(
        "--normalise", choices=["none", "english"], default="none", help="texts before they count"
    )
    parser.add_argument(
        "--tool",
        choices=["sclite", "alignment", "jiwer"],
        help="what counts the errors; default: sclite where it is installed, else alignment, which "
        "counts alike; jiwer may find fewer",
    )


def score(args: argparse.Namespace) -> None:
    """Scores and prints one line a mode."""
    from espnet_prune.score.system_score import score_system

    for line in score_system(
        args.system, args.set, args.data, args.teacher, args.compare_with, args.normalise, args.tool
    ):
        print(line)


def profile_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--system", type=Path, nargs="+", required=True, help="folders of one or more systems"
    )
    parser.add_argument("--teacher", type=Path, required=True, help="the teacher's folder")
    parser.add_argument("--config", type=Path, required=True, help="profile.yaml")
    parser.add_argument("--data", type=Path, required=True, help="dump folder, for real speech")


def profile(args: argparse.Namespace) -> None:
    """Profiles each, unless that is done already with this configuration, these models and data."""
    from espnet_prune.config import load_yaml, to_dataclass
    from espnet_prune.score.timing import ProfileConfig

    config = to_dataclass(ProfileConfig, load_yaml(args.config), str(args.config))
    for system in args.system:
        _profile(system, args.teacher, args.data, config)


def _profile(system: Path, teacher: Path, data: Path, config: "ProfileConfig") -> None:
    from espnet_prune.io_atomic import read_json, write_json
    from espnet_prune.score import profile as measured

    wanted = measured.made_from(system, teacher, data, asdict(config))
    target = system / "profile.json"
    there = read_json(target) if target.exists() else {}
    if there.get("made_from") == wanted and not measured.noisy(there):
        logger.info("%s: already done, nothing to do", target)
        return
    result = measured.profile(system, teacher, data, config)
    write_json(target, {**result, "made_from": wanted})
    name, rtf, speedup = system.resolve().name, result["rtf"], result["speedup"]
    faster = speedup["encoder"]
    real = "not told from noise" if faster is None else f"{faster:.2f} times as fast as dense"
    factors = [
        f"{mode.removeprefix('ctc_')} {rtf[mode]:.4f}"
        for mode in ("encoder", "ctc_greedy", "joint")
        if rtf.get(mode) is not None
    ]
    print(
        f"{name}: encoder {real} ({speedup['predicted']:.2f} by its MACs alone); real-time "
        f"factors: {', '.join(factors) or 'none'} ({rtf['threads']} thread, batch 1)"
    )
    if blurred := measured.noisy(result):
        logger.warning(
            "%s: %s: the dense model's own time changed by more than %.0f%% while it was measured; "
            "give the same command again when the machine is idle",
            name,
            ", ".join(blurred),
            100 * config.steady_within,
        )
