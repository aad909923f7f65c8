"""Verbs that decode data folders; that of single recordings is in ``transcribe``."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from espnet_prune.data.parallel import add_jobs, share_of


def check_decoding_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, required=True, help="decode.yaml")


def check_decoding(args: argparse.Namespace) -> None:
    """Reads it.

    Raises:
        ConfigError: an unknown key, or a value out of range.
    """
    from espnet_prune.config import load_yaml, to_dataclass
    from espnet_prune.decode.decode_config import DecodeConfig

    to_dataclass(DecodeConfig, load_yaml(args.config), str(args.config))


def decode_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, required=True, help="the model's folder")
    parser.add_argument("--data", type=Path, required=True, help="dump folder")
    parser.add_argument("--config", type=Path, required=True, help="decode.yaml")
    parser.add_argument("--out", type=Path, required=True, help="gets a folder for each mode")
    add_jobs(parser)


def decode(args: argparse.Namespace) -> None:
    """Decodes, or goes on, or finds it done."""
    from espnet_prune.config import load_yaml, to_dataclass
    from espnet_prune.decode import decoding
    from espnet_prune.decode.decode_config import DecodeConfig

    config = to_dataclass(DecodeConfig, load_yaml(args.config), str(args.config))
    decoding.decode(args.model, args.data, config, args.out, args.nj, share_of(args))


def asr_inference(arguments: Sequence[str]) -> None:
    """Runs ``espnet2.bin.asr_inference``, whose command line this is, with our classes known."""
    from espnet_prune.models.espnet.choices import register

    register()  # before ESPnet's tasks are imported
    from espnet2.bin import asr_inference as espnet

    own_parser = espnet.get_parser
    espnet.get_parser = lambda: printable_help(own_parser())
    espnet.main(list(arguments))


def printable_help(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The parser, in whose help texts a per cent sign that argparse can't expand stands for one."""
    formatter = parser._get_formatter()
    for action in parser._actions:
        try:
            formatter._expand_help(action)
        except (ValueError, TypeError, KeyError):
            action.help = action.help and action.help.replace("%", "%%")
    return parser
