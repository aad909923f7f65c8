"""Encoders beside each other: a grid of structures, growth with size, growth with length."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import structures
import torch

DENSE = "dense"
MEASURES = ("parameters", "macs")
SHAPES = (structures.UNIFORM, structures.LEARNED)
SEGMENT_SECONDS = 40.0  # as recordings are cut for decoding
ONCE_SECONDS = 60.0  # a longer recording runs once: it takes seconds, and minima settle in them


@dataclass(frozen=True)
class Times:
    """Least seconds of one encoder.

    Attributes:
        ours: times of the pass that decoding takes.
        espnet: times of ESPnet's own forward.
    """

    ours: float
    espnet: float


def time_both(encoders: Sequence, seconds: float, repeats: int) -> list[Times]:
    """Times encoders on one recording, our pass and ESPnet's, all in turn."""
    from espnet_prune.models.conformer.fast_encoder import as_espnet, speed_up
    from espnet_prune.score.timing import encoder_run, interleaved

    inputs = structures.features(seconds)
    for encoder in encoders:
        speed_up(encoder)
    ours = [encoder_run(encoder, *inputs) for encoder in encoders]

    def stock(encoder):
        run = encoder_run(encoder, *inputs)

        def action() -> object:
            with as_espnet(encoder):
                return run()

        return action

    best = interleaved([*ours, *map(stock, encoders)], repeats)
    return [Times(*pair) for pair in zip(best[: len(ours)], best[len(ours) :], strict=True)]


def grid(
    size: int, blocks: int, seconds: float, repeats: int, targets: Sequence[float], align: int
) -> list[dict]:
    """Speed-ups of 30/50/70% x uniform/learned x parameters/MACs, and of two halves.

    They are half of every width, and half of all blocks beside a whole front-end.

    Returns:
        A row a structure: speed-ups of our pass over our dense one, of ESPnet's over ESPnet's, and
        of ours over ESPnet's dense.
    """
    dense = structures.dense_encoder(size, blocks)
    whole_macs = structures.dense_macs(dense, seconds)
    whole = sum(p.numel() for p in dense.parameters())
    rows = []
    for measure in MEASURES:
        cuts = [
            structures.cut_encoder(dense, shape, target, measure, seconds, align)
            for shape in SHAPES
            for target in targets
        ]
        if measure == "parameters" and align == 1:
            cuts.append(structures.halved_encoder(dense, seconds))
            cuts.append(structures.whole_front_end(dense, seconds))
        plain = copy.deepcopy(dense)
        first, *others = time_both([plain, *(c.encoder for c in cuts)], seconds, repeats)
        for made, times in zip(cuts, others, strict=True):
            predicted = whole_macs / made.macs
            rows.append(
                {
                    "structure": made.name,
                    "kept_parameters": made.parameters / whole,
                    "predicted": predicted,
                    "speedup": first.ours / times.ours,
                    "speedup_espnet": first.espnet / times.espnet,
                    "speedup_over_espnet_dense": first.espnet / times.ours,
                    "realised_over_predicted": first.ours / times.ours / predicted,
                    "realised_over_predicted_espnet": first.espnet / times.espnet / predicted,
                    "seconds": vars(times),
                    "dense_seconds": vars(first),
                }
            )
    return rows


def by_size(
    sizes: Sequence[int], blocks: int, seconds: float, repeats: int, target: float = 0.5
) -> list[dict]:
    """Dense and uniformly cut encoders of growing width."""
    rows = []
    for size in sizes:
        dense = structures.dense_encoder(size, blocks)
        made = structures.cut_encoder(dense, structures.UNIFORM, target, "parameters", seconds)
        predicted = structures.dense_macs(dense, seconds) / made.macs
        first, second = time_both([dense, made.encoder], seconds, repeats)
        rows.append(
            {
                "size": size,
                "parameters": sum(p.numel() for p in dense.parameters()),
                "predicted": predicted,
                "speedup": first.ours / second.ours,
                "dense_seconds": vars(first),
                "cut_seconds": vars(second),
            }
        )
    return rows


def by_length(
    lengths: Sequence[float], size: int, blocks: int, repeats: int, target: float = 0.5
) -> list[dict]:
    """Seconds of work a second of audio: dense, cut, and both in pieces as they are decoded."""
    from espnet_prune.models.conformer.fast_encoder import speed_up
    from espnet_prune.score.timing import encoder_run, interleaved

    dense = structures.dense_encoder(size, blocks)
    cut = structures.cut_encoder(dense, structures.UNIFORM, target, "parameters", 15.0).encoder
    pair = {"dense": dense, "cut": cut}
    for encoder in pair.values():
        speed_up(encoder)
    rows = []
    for seconds in lengths:
        actions = {}
        for name, encoder in pair.items():
            actions[name] = encoder_run(encoder, *structures.features(seconds))
            actions[f"{name}, in pieces"] = _in_pieces(encoder, seconds)
        long = seconds > ONCE_SECONDS
        best = interleaved([*actions.values()], 1 if long else repeats, warm_up=not long)
        rtf = {name: value / seconds for name, value in zip(actions, best, strict=True)}
        rows.append({"seconds": seconds, "rtf": rtf})
    return rows


def _in_pieces(encoder, seconds: float):
    """A recording taken in equal pieces, none longer than ``SEGMENT_SECONDS``."""
    number = -int(-seconds // SEGMENT_SECONDS)
    inputs = structures.features(seconds / number)

    def run() -> None:
        with torch.no_grad():
            for _ in range(number):
                encoder(*inputs)

    return run
