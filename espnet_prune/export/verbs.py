"""Verbs that carry a model away: ONNX, zip files."""

import argparse
from pathlib import Path

SHOWN = 3  # of the names of many parts


def export_onnx_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, required=True, help="a folder of espnet_prune.save")
    parser.add_argument("--out", type=Path, required=True, help="the folder to make")
    parser.add_argument("--int8", action="store_true", help="weights of matrix products in 8 bits")


def export_onnx(args: argparse.Namespace) -> None:
    """Exports the model; its outputs are checked at three lengths."""
    from espnet_prune.export import onnx
    from espnet_prune.export.folder import DESCRIPTION
    from espnet_prune.io_atomic import read_json
    from espnet_prune.surgery import load

    differences = onnx.export_onnx(load(args.model), args.out, args.int8)
    worst = max(differences.values())
    size = sum(path.stat().st_size for path in args.out.glob("*.onnx*")) / 1e6
    print(
        f"{args.out}: {size:.1f} MB; ONNX Runtime and torch differ by at most {worst:.1g} at "
        f"{len(differences)} inputs"
    )
    if args.int8:
        changed = max(read_json(args.out / DESCRIPTION)["int8_difference"].values())
        print(f"then int8 changes an output by up to {changed:.2g}; compare the WER")


def export_transformers_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, required=True, help="a folder of espnet_prune.save")
    parser.add_argument("--out", type=Path, required=True, help="the folder to make")
    parser.add_argument(
        "--processor",
        help="whose feature extractor and tokenizer to put beside, such as openai/whisper-tiny.en; "
        "not needed where encoder: ssl was trained on letters",
    )


def export_transformers(args: argparse.Namespace) -> None:
    """Exports the model, and says how it is loaded."""
    from espnet_prune.export.transformers_folder import export_transformers as export
    from espnet_prune.surgery import load

    about = export(load(args.model), args.out, args.processor)
    needs = ", trust_remote_code=True" if about["needs_code"] else ""
    print(f"{args.out}: {about['auto_class']}.from_pretrained({str(args.out)!r}{needs})")
    if about["needs_code"]:
        parts = about["unlike_stock"]
        print(
            f"{len(parts)} parts are unlike the stock class's, such as {', '.join(parts[:SHOWN])}; "
            "CTranslate2's converter knows that class alone, and fails or puts random weights in "
            "their place: for faster-whisper prune whole blocks, single weights, or feed-forward "
            "units to the same number in all blocks"
        )
    if not about["processor"]:
        print("no feature extractor and tokenizer are there; give --processor, or load your own")


def pack_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--system", type=Path, required=True, help="the system's folder")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="NAME.zip, unzipped for espnet_prune.load; NAME_espnet.zip, which stock ESPnet's "
        "from_pretrained takes, is made beside it, but not of a Whisper",
    )


def pack(args: argparse.Namespace) -> None:
    """Packs the model."""
    from espnet_prune.export.pack import is_for_espnet, pack_for_espnet, pack_system

    pack_system(args.system, args.out)
    made = [args.out]
    if is_for_espnet(args.system):
        made.append(args.out.with_name(f"{args.out.stem}_espnet.zip"))
        pack_for_espnet(args.system, made[-1])
    for path in made:
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
