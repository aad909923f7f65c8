"""All benchmarks in one run: ratios of the least times of interleaved repeats.

Random weights; speed doesn't depend on them. Prints a table a part, and writes benchmarks.json,
RESULTS.md and plots to a folder, where other parts that were measured alike stay. Measure on an
otherwise idle machine.
"""

import argparse
import json
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

SCHEMA = 3
RECORD = "benchmarks.json"
PAGE = "RESULTS.md"


@dataclass(frozen=True)
class Sizes:
    """How large everything is.

    Attributes:
        size: width of the Conformer of the grid, of joint decoding and of int8.
        blocks: number of its blocks.
        seconds: length of audio.
        repeats: repetitions of each measurement; the least counts.
        targets: sparsities of the grid.
        sizes: widths for the growth with size.
        length_size: width of the model for the growth with length.
        lengths: lengths of audio, in seconds.
        joint: options of joint_decoding.py.
        step: options of training_step.py.
    """

    size: int = 512
    blocks: int = 12
    seconds: float = 15.0
    repeats: int = 4
    targets: tuple[float, ...] = (0.3, 0.5, 0.7)
    sizes: tuple[int, ...] = (128, 256, 384, 512)
    length_size: int = 256
    lengths: tuple[float, ...] = (5, 15, 40, 120, 300, 600)
    joint: tuple[str, ...] = ("--repeats", "2")
    step: tuple[str, ...] = ()


FULL = Sizes()
QUICK = Sizes(
    size=64,
    blocks=2,
    seconds=2.0,
    repeats=2,
    targets=(0.5,),
    sizes=(64, 128),
    length_size=64,
    lengths=(1, 61),
    joint=(
        *("--repeats", "1", "--blocks", "2", "--size", "64", "--seconds", "2"),
        *("--tokens", "3", "--beam", "2", "--vocabulary", "20"),
    ),
    step=("--repeats", "1", "--blocks", "2", "--size", "16", "--utterances", "2"),
)


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the JSON and the plots")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--align", type=int, default=16, help="multiple of the aligned grid")
    parser.add_argument("--quick", action="store_true", help="tiny models, some seconds")
    return parser


def grid(sizes: Sizes, align: int = 1) -> dict:
    """Structures of a LibriSpeech-size Conformer, our pass and ESPnet's."""
    import encoders

    rows = encoders.grid(
        sizes.size, sizes.blocks, sizes.seconds, sizes.repeats, sizes.targets, align
    )
    widths = f", widths of multiples of {align}" if align > 1 else ""
    return {"what": f"cut encoders beside dense, {_model(sizes)}{widths}", "rows": rows}


def size(sizes: Sizes) -> dict:
    """Growth with the model's width."""
    import encoders

    rows = encoders.by_size(sizes.sizes, sizes.blocks, sizes.seconds, sizes.repeats)
    what = f"encoders of {sizes.blocks} blocks, {sizes.seconds:g} s, cut: uniform, -50% parameters"
    return {"what": what, "rows": rows}


def length(sizes: Sizes) -> dict:
    """Growth with the length of the audio."""
    import encoders

    rows = encoders.by_length(sizes.lengths, sizes.length_size, sizes.blocks, sizes.repeats)
    what = f"encoders of {sizes.blocks} x {sizes.length_size}, cut: uniform, -50% parameters"
    what += f"; pieces of at most {encoders.SEGMENT_SECONDS:g} s"
    what += f"; more than {encoders.ONCE_SECONDS:g} s run once"
    return {"what": what, "rows": rows}


def int8(sizes: Sizes) -> dict:
    """8 bits beside 32."""
    import int8 as part

    found = part.measure(sizes.size, sizes.blocks, sizes.seconds, sizes.repeats)
    return {"what": f"8 bits, cut: uniform, -50% parameters, {_model(sizes)}", **found}


def joint(sizes: Sizes) -> dict:
    """Joint decoding."""
    import joint_decoding

    return joint_decoding.measure(joint_decoding.get_parser().parse_args(sizes.joint))


def step(sizes: Sizes) -> dict:
    """A training step with gates."""
    import training_step

    return training_step.measure(training_step.get_parser().parse_args(sizes.step))


def _model(sizes: Sizes) -> str:
    return f"Conformer {sizes.blocks} x {sizes.size}, {sizes.seconds:g} s of audio"


def _grid_lines(record: dict) -> list[str]:
    header = "predicted  realised  /predicted | ESPnet's pass: realised /predicted"
    lines = [record["what"], f"{'':44} {header} | ours over ESPnet's dense"]
    for row in record["rows"]:
        lines.append(
            f"{row['structure']:44} {row['predicted']:9.2f} {row['speedup']:9.2f} "
            f"{row['realised_over_predicted']:11.2f} | {row['speedup_espnet']:23.2f} "
            f"{row['realised_over_predicted_espnet']:10.2f} | "
            f"{row['speedup_over_espnet_dense']:.2f}"
        )
    dense = record["rows"][0]["dense_seconds"]
    ratio = dense["espnet"] / dense["ours"]
    return [*lines, f"dense: our pass is {ratio:.2f} times as fast as ESPnet's"]


def _size_lines(record: dict) -> list[str]:
    return [record["what"]] + [
        f"width {row['size']:4}, {row['parameters'] / 1e6:5.1f}M: predicted "
        f"{row['predicted']:.2f}, realised {row['speedup']:.2f}; dense "
        f"{row['dense_seconds']['ours']:.3f} s (ESPnet's pass {row['dense_seconds']['espnet']:.3f})"
        for row in record["rows"]
    ]


def _length_lines(record: dict) -> list[str]:
    names = list(record["rows"][0]["rtf"])
    lines = [f"{record['what']}: seconds of work a second of audio"]
    lines.append("".join(f"{name:>18}" for name in ("seconds", *names)))
    for row in record["rows"]:
        cells = [f"{row['seconds']:g}", *(f"{row['rtf'][name]:.5f}" for name in names)]
        lines.append("".join(f"{cell:>18}" for cell in cells))
    return lines


def _int8_lines(record: dict) -> list[str]:
    return [record["what"]] + [
        f"{name:28} {ratio:5.2f} times as fast as dense, torch float32 "
        f"({record['seconds'][name]:.3f} s)"
        for name, ratio in record["speedup"].items()
    ]


def _joint_lines(record: dict) -> list[str]:
    import joint_decoding

    return joint_decoding.lines(record)


def _step_lines(record: dict) -> list[str]:
    import training_step

    return training_step.lines(record)


@dataclass(frozen=True)
class Part:
    """One benchmark: how it is measured, and what is printed of it."""

    measure: Callable[[Sizes], dict]
    lines: Callable[[dict], list[str]]


PARTS = {
    "grid": Part(grid, _grid_lines),
    "aligned_grid": Part(grid, _grid_lines),
    "joint": Part(joint, _joint_lines),
    "training_step": Part(step, _step_lines),
    "size": Part(size, _size_lines),
    "length": Part(length, _length_lines),
    "int8": Part(int8, _int8_lines),
}
DRAWN = ("grid", "size", "length")  # by plots.py


def _conditions(record: dict) -> str:
    about = record["machine"]
    return (
        f"{about['cpu']}, {about['cores']} cores; {record['threads']} thread, batch "
        f"{record['batch']}, torch {about['torch']}; ratios of the least of {record['repeats']} "
        "interleaved repeats, where a part doesn't name other numbers"
    )


def _measured_before(path: Path, now: dict) -> dict:
    """The parts that a former run left, if it was on the same machine with the same settings."""
    if not path.exists():
        return {}
    before = json.loads(path.read_text())
    same = all(before.get(key) == value for key, value in now.items())
    return before if same else {}


def page(record: dict) -> str:
    """Every measured part as a page of text."""
    command = "python benchmarks/run_all.py --out DIR"
    lines = ["# Results of the benchmarks", "", f"Made by `{command}`; don't edit."]
    lines += [f"{_conditions(record)}.", ""]
    for name in PARTS:
        if name in record:
            lines += [f"## {name} (commit {record['commits'][name]})", ""]
            lines += ["```", *PARTS[name].lines(record[name]), "```", ""]
            lines += [f"![{name}]({name}.png)", ""] if name in DRAWN else []
    return "\n".join(line.rstrip() for line in lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints, writes."""
    import torch

    from espnet_prune.record import git_commit
    from espnet_prune.score.profile import machine

    args = get_parser().parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    logging.getLogger("espnet2").setLevel(logging.ERROR)  # joint searches end by their length
    torch.set_num_threads(args.threads)
    sizes = QUICK if args.quick else FULL
    record = {"schema": SCHEMA, "machine": machine(), "threads": args.threads, "batch": 1}
    record["repeats"] = sizes.repeats
    record["sizes"] = json.loads(json.dumps(asdict(sizes)))  # as it will be read
    record = {"commits": {}, **_measured_before(args.out / RECORD, record), **record}
    print(_conditions(record))
    for name in args.parts:
        part = PARTS[name]
        aligned = (args.align,) if name == "aligned_grid" else ()
        record[name] = part.measure(sizes, *aligned)
        record[name] |= {"align": args.align} if aligned else {}
        record["commits"][name] = git_commit()
        print("", f"== {name}", *part.lines(record[name]), sep="\n", flush=True)
        (args.out / RECORD).write_text(json.dumps(record, indent=1) + "\n")
        (args.out / PAGE).write_text(page(record))
    from plots import plot_all

    written = [args.out / RECORD, args.out / PAGE, *plot_all(record, args.out)]
    print("", *(f"wrote {path}" for path in written), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
