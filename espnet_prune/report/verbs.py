"""Verbs that show results: reports, plots, a hub's folder."""

import argparse
import textwrap
from pathlib import Path

from espnet_prune.data.parallel import add_jobs, share_of
from espnet_prune.report.text_table import TERMINAL_COLUMNS

SHOWN = 10  # lines of the printed list of sites


def report_arguments(parser: argparse.ArgumentParser) -> None:
    _add_experiments(parser)
    parser.add_argument("--corpus", help="its name; by default that of the earlier report")
    parser.add_argument(
        "--out",
        type=Path,
        help="by default report/ in the experiment, or a folder in that of the first of several",
    )


def report(args: argparse.Namespace) -> None:
    """Writes the report, prints its table and what it comes to."""
    from espnet_prune.io_atomic import read_json
    from espnet_prune.record import command_line
    from espnet_prune.report.headline import gained, next_steps
    from espnet_prune.report.report import REPORT_FILE, write_report

    text, results, page = write_report(args.experiments, args.corpus, args.out, command_line())
    print(f"{text}\n\nReport: {page.resolve()}\nTable:  {results.resolve()}")
    if len(args.experiments) == 1:
        written = read_json(results.with_name(REPORT_FILE))
        sentence = gained(written)
        if sentence is not None:
            steps = next_steps(written, args.experiments[0])
            print("", textwrap.fill(sentence, TERMINAL_COLUMNS), *steps, sep="\n")


def pareto_arguments(parser: argparse.ArgumentParser) -> None:
    _add_experiments(parser)
    parser.add_argument(
        "--out",
        type=Path,
        help="folder of the figures and pareto.json; by default pareto/ in the first experiment",
    )


def pareto(args: argparse.Namespace) -> None:
    """Writes figures and JSON; prints the fronts and what the curves cost."""
    from espnet_prune.record import command_line
    from espnet_prune.report.pareto import charts, curves_of, read_systems
    from espnet_prune.report.pareto_plot import front, write_pareto

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


def table_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--paper", required=True, help="P1 or P2, keys of report/published.yaml")
    parser.add_argument(
        "reports", type=Path, nargs="*", metavar="REPORT.json", help="those of our experiments"
    )
    parser.add_argument("--out", type=Path, help="Markdown file to write; else it is printed")


def table(args: argparse.Namespace) -> None:
    """Prints or writes the table."""
    from espnet_prune.io_atomic import write_text
    from espnet_prune.out_path import check_out_file
    from espnet_prune.record import command_line
    from espnet_prune.report.paper_table import paper_table, read_reports

    if args.out is not None:
        check_out_file(args.out)
    text = paper_table(args.paper, read_reports(args.reports), command_line())
    if args.out is None:
        print(text, end="")
    else:
        write_text(args.out, text)


def sensitivity_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, required=True, help="the model's folder")
    parser.add_argument("--data", type=Path, required=True, help="dump folder, of development")
    parser.add_argument("--out", type=Path, required=True, help="gets JSON and heat maps")
    parser.add_argument("--utterances", type=int, default=100, help="so many of the data")
    parser.add_argument(
        "--fractions", type=float, nargs="+", help="shares of a site's units that are left out"
    )
    parser.add_argument("--sites", nargs="+", help="kinds of sites")
    parser.add_argument("--decoder", action="store_true", help="sites of the decoder as well")
    add_jobs(parser)


def sensitivity(args: argparse.Namespace) -> None:
    """Measures what is not measured yet, writes JSON and heat maps, prints the worst losses."""
    from espnet_prune.report.sensitivity_plot import CHANGES, plot_sensitivity
    from espnet_prune.score import sensitivity as measured
    from espnet_prune.sites import DecoderConfig

    given = {"fractions": args.fractions, "kinds": args.sites}
    options = {key: tuple(values) for key, values in given.items() if values is not None}
    config = measured.SensitivityConfig(
        utterances=args.utterances, decoder=DecoderConfig() if args.decoder else None, **options
    )
    result = measured.sensitivity(args.model, args.data, config, args.out, args.nj, share_of(args))
    if result is None:
        return
    for change in CHANGES:
        print(plot_sensitivity(result, change, args.out / f"sensitivity_{change}.png"))
    dense = result["dense"]
    print(f"dense: loss {dense['loss']:.3f}, WER {dense['wer']:.2f}% of {dense['words']} words")
    for name, removal in measured.worst_first(result)[:SHOWN]:
        print(
            f"{name}: {removal['removed']} units, {removal['parameters']} parameters: "
            f"loss {removal['loss_change']:+.3f}, WER {removal['wer_change']:+.2f}"
        )


def hub_folder_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--system", type=Path, required=True, help="exp/TAG/SYSTEM")
    parser.add_argument("--out", type=Path, required=True, help="the folder to make")
    parser.add_argument("--name", help="the model's name in its card; default: the system's")
    parser.add_argument("--license", help="as the hub abbreviates it, such as apache-2.0")
    parser.add_argument("--language", nargs="+", default=[], help="codes, such as en")
    parser.add_argument("--dataset", help="its name on the hub")
    parser.add_argument("--corpus", help="its name in words; default: that of the report")


def hub_folder(args: argparse.Namespace) -> None:
    """Writes the folder, its card filled from the experiment's records."""
    from espnet_prune.report.card import CardOptions
    from espnet_prune.report.hub import write_hub_folder

    languages = tuple(args.language)
    options = CardOptions(args.name, args.license, languages, args.dataset, args.corpus)
    card = write_hub_folder(args.system, args.out, options)
    size = sum(path.stat().st_size for path in args.out.iterdir() if path.is_file())
    print(f"{args.out}: {size / 1e6:.1f} MB; read {card} before it is uploaded")


def _add_experiments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "experiments", type=Path, nargs="+", metavar="exp/TAG", help="folders of experiments"
    )
