"""How much loss and WER each site of a model costs when it, or a part of its units, is removed."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_prune.cli import run_main
from espnet_prune.data.parallel import SHARE_HELP

SHOWN = 10  # lines of the printed list


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="the model's folder")
    parser.add_argument("--data", type=Path, required=True, help="dump folder, of development")
    parser.add_argument("--out", type=Path, required=True, help="gets JSON and heat maps")
    parser.add_argument("--utterances", type=int, default=100, help="so many of the data")
    parser.add_argument("--fractions", type=float, nargs="+", help="of a site's units")
    parser.add_argument("--sites", nargs="+", help="kinds of sites")
    parser.add_argument("--decoder", action="store_true", help="sites of the decoder as well")
    parser.add_argument("--nj", type=int, default=1, help="processes of one thread each")
    parser.add_argument("--part", help=SHARE_HELP)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measures what is not measured yet, writes JSON and heat maps, prints the worst losses."""
    from espnet_prune.data.parallel import Share
    from espnet_prune.models.transformer_decoder.sites import DecoderConfig
    from espnet_prune.report.sensitivity_plot import CHANGES, plot_sensitivity
    from espnet_prune.score.sensitivity import SensitivityConfig, sensitivity, worst_first

    args = get_parser().parse_args(argv)
    given = {"fractions": args.fractions, "kinds": args.sites}
    options = {key: tuple(values) for key, values in given.items() if values is not None}
    decoder = DecoderConfig() if args.decoder else None
    config = SensitivityConfig(utterances=args.utterances, decoder=decoder, **options)
    share = Share.parse(args.part) if args.part else None
    result = sensitivity(args.model, args.data, config, args.out, args.nj, share)
    if result is None:
        return 0
    for change in CHANGES:
        print(plot_sensitivity(result, change, args.out / f"sensitivity_{change}.png"))
    dense = result["dense"]
    print(f"dense: loss {dense['loss']:.3f}, WER {dense['wer']:.2f}% of {dense['words']} words")
    for name, removal in worst_first(result)[:SHOWN]:
        print(
            f"{name}: {removal['removed']} units, {removal['parameters']} parameters: "
            f"loss {removal['loss_change']:+.3f}, WER {removal['wer_change']:+.2f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
