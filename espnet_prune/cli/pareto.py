"""Draws WER against parameters, speed-up and real-time factor of all systems; Pareto fronts."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_prune.cli import run_main


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("experiments", type=Path, nargs="+", metavar="exp/TAG")
    parser.add_argument(
        "--out",
        type=Path,
        help="folder of the figures and pareto.json; by default pareto/ in the first experiment",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Writes figures and JSON; prints the fronts and what the curves cost."""
    from espnet_prune.provenance import command_line
    from espnet_prune.report.pareto import charts, curves_of, read_systems
    from espnet_prune.report.pareto_plot import front, write_pareto

    args = get_parser().parse_args(argv)
    lines = read_systems(args.experiments)
    curves = curves_of(lines)
    drawn = charts(lines, curves)
    out = args.out or args.experiments[0] / "pareto"
    paths = write_pareto(drawn, curves, out, command_line())
    print("Training of all systems of a curve; what several sizes share is counted once:")
    for curve in curves:
        seconds = "?" if curve.train_seconds is None else f"{curve.train_seconds:.0f}"
        systems = f"{len(curve.systems)} system{'s' if len(curve.systems) > 1 else ''}"
        print(f"  {curve.label}: {systems}, {curve.updates} updates, {seconds} s")
    print("Pareto fronts of the measured values; neighbours may be as good, see the intervals:")
    for key, each in drawn.items():
        for chart in each:
            names = ", ".join(point.system for point in front(chart))
            print(f"  WER {key} against {chart.axis.name}: {names or 'several machines, none'}")
    print(*(path.resolve() for path in paths), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
