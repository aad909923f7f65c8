"""Joint beam search as ESPnet does it, beside ours, of the dense model and of cut ones.

One has half of its encoder's sites, the other half of the decoder's as well.

Random weights of LibriSpeech's published Conformer size; every search makes the same number of
tokens. Prints ratios of the least times of interleaved repeats, with threads, batch and beam.
"""

import argparse
import copy
import json
import platform
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

CUT, BOTH_CUT = "cut", "cut, decoder too"


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=15.0, help="of audio")
    parser.add_argument("--tokens", type=int, default=40, help="of every hypothesis")
    parser.add_argument("--beam", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--blocks", type=int, default=12, help="of the encoder; decoder: half")
    parser.add_argument("--size", type=int, default=512, help="of the model; units: four times")
    parser.add_argument("--vocabulary", type=int, default=5000)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    return parser


def write_models(args: argparse.Namespace, folder: Path) -> None:
    """Writes the dense model, and those with half of every site's units, for decoding."""
    import torch

    import espnet_prune
    from espnet_prune.methods import make_method
    from espnet_prune.methods.options import UnitsConfig
    from espnet_prune.models.espnet.build import build_asr_model
    from espnet_prune.sites import DecoderConfig
    from espnet_prune.train.system import write_model

    torch.manual_seed(0)
    heads, units = args.size // 64, 4 * args.size
    tokens = ["<blank>", "<unk>", *(f"t{i}" for i in range(args.vocabulary - 3)), "<sos/eos>"]
    dense = build_asr_model(
        {
            "token_list": tokens,
            "token_type": "word",
            "normalize": None,
            "encoder": "conformer",
            "encoder_conf": {
                "output_size": args.size,
                "attention_heads": heads,
                "linear_units": units,
                "num_blocks": args.blocks,
                "macaron_style": True,
                "rel_pos_type": "latest",
                "cnn_module_kernel": 31,
            },
            "decoder": "transformer",
            "decoder_conf": {
                "attention_heads": heads,
                "linear_units": units,
                "num_blocks": args.blocks // 2,
            },
        }
    ).eval()
    write_model(dense, folder / "dense")
    for name, decoder in ((CUT, None), (BOTH_CUT, DecoderConfig())):
        config = UnitsConfig(decoder=decoder)
        method = make_method("uniform_magnitude", target=0.5, seed=0, config=config)
        gated = espnet_prune.inject(copy.deepcopy(dense), method)
        write_model(espnet_prune.cut(gated.eval(), method.masks(gated)), folder / name)


def measure(args: argparse.Namespace) -> dict:
    """Seconds of each search, and how many times as fast as the first one, ESPnet's dense."""
    import numpy
    from tqdm import tqdm

    from espnet_prune.decode.decode_config import DecodeConfig
    from espnet_prune.decode.recogniser import Recogniser
    from espnet_prune.models.conformer import fast_encoder
    from espnet_prune.models.espnet.features import SAMPLE_RATE
    from espnet_prune.models.transformer_decoder import fast_decoder
    from espnet_prune.score.timing import interleaved

    config = DecodeConfig(
        beam_size=args.beam,
        maxlenratio=-float(args.tokens),  # ESPnet takes a negative ratio as a number of tokens
        minlenratio=1.0 - args.tokens,
    )
    samples = numpy.random.default_rng(0).normal(0, 3000, int(args.seconds * SAMPLE_RATE))
    samples = samples.astype(numpy.int16)
    searches = {}
    with tempfile.TemporaryDirectory() as folder:
        write_models(args, Path(folder))
        for name in tqdm(("dense", CUT, BOTH_CUT), desc="models", disable=not sys.stderr.isatty()):
            searches[f"{name}, ours"] = Recogniser(Path(folder) / name, config)
            searches[f"{name}, stock"] = stock = Recogniser(Path(folder) / name, config)
            for scorers in (
                stock.search.beam_search.scorers,
                stock.search.beam_search.full_scorers,
            ):
                scorers[fast_decoder.DECODER] = stock.model.decoder
            fast_encoder.slow_down(stock.model.encoder)
    actions = [lambda r=r: r.transcribe(samples, "joint") for r in searches.values()]
    seconds = dict(zip(searches, interleaved(actions, args.repeats), strict=True))
    ratios = {name: seconds["dense, stock"] / value for name, value in seconds.items()}
    settings = {key: value for key, value in vars(args).items() if key != "json"}
    return {"settings": settings, "seconds": seconds, "speedup": ratios}


def lines(record: dict) -> list[str]:
    """What is printed of a measurement."""
    args, seconds = argparse.Namespace(**record["settings"]), record["seconds"]
    first = (
        f"joint decoding, beam {args.beam}, {args.seconds:g} s of audio, {args.tokens} tokens, "
        f"{args.blocks} x {args.size}, least of {args.repeats} interleaved repeats"
    )
    return [first] + [
        f"{name:25} {ratio:5.2f} times as fast as dense, stock ({seconds[name]:.2f} s)"
        for name, ratio in record["speedup"].items()
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints."""
    import torch

    args = get_parser().parse_args(argv)
    torch.set_num_threads(args.threads)
    record = measure(args)
    print("\n".join(lines(record)))
    print(f"{args.threads} thread, batch 1, {platform.machine()}, torch {torch.__version__}")
    if args.json:
        args.json.write_text(json.dumps(record, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
