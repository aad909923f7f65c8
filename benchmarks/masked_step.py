"""A masked training step beside the same step without gates: what do the gates cost?

Prints the ratio of the least times of interleaved repeats, with threads and batch.
"""

import argparse
import copy
import sys
from collections.abc import Sequence


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=16, help="utterances")
    parser.add_argument("--frames", type=int, default=300, help="feature frames an utterance")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--size", type=int, default=96)
    return parser


def measure(args: argparse.Namespace) -> dict:
    """Least seconds of both steps, and their ratio."""
    import torch
    from espnet2.asr.encoder.conformer_encoder import ConformerEncoder

    import espnet_prune
    from espnet_prune.score.timing import interleaved

    torch.manual_seed(0)
    plain = ConformerEncoder(
        80,
        output_size=args.size,
        attention_heads=4,
        linear_units=4 * args.size,
        num_blocks=args.blocks,
        macaron_style=True,
        rel_pos_type="latest",
        cnn_module_kernel=15,
    ).train()
    method = espnet_prune.L0Distill(target=0.5, updates=1000)
    gated = espnet_prune.inject(copy.deepcopy(plain), method).train()
    feats = torch.randn(args.batch, args.frames, 80)
    lengths = torch.full((args.batch,), args.frames)
    weights = [torch.optim.AdamW(m.parameters(), lr=1e-4) for m in (plain, gated.model)]
    gates = torch.optim.Adam(method.parameter_groups(gated))

    def step_plain() -> None:
        plain(feats, lengths)[0].pow(2).mean().backward()
        weights[0].step()
        weights[0].zero_grad()

    def step_gated() -> None:
        (gated(feats, lengths)[0].pow(2).mean() + method.loss(gated)).backward()
        weights[1].step()
        gates.step()
        gated.after_update()
        weights[1].zero_grad()
        gates.zero_grad()

    dense, masked = interleaved([step_plain, step_gated], args.repeats)
    seconds = {"plain": dense, "masked": masked}
    return {"settings": vars(args), "seconds": seconds, "masked_over_plain": masked / dense}


def lines(record: dict) -> list[str]:
    """What is printed of a measurement."""
    args = argparse.Namespace(**record["settings"])
    return [
        f"masked step / plain step = {record['masked_over_plain']:.3f} ({args.blocks} x "
        f"{args.size}, {args.threads} thread, batch {args.batch} x {args.frames} frames, least of "
        f"{args.repeats} interleaved repeats)"
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints one line."""
    import torch

    args = get_parser().parse_args(argv)
    torch.set_num_threads(args.threads)
    print(*lines(measure(args)), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
