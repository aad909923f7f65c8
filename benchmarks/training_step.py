"""Stage 8's update beside what it was without the measures that make it cheap, and without gates.

A Conformer-CTC of the size of NeMo's small one learns masks while its teacher distils it. Prints
ratios of the least times of interleaved repeats, with threads and batch.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

PIECES = 1024  # of the output layer
SECONDS_AN_UTTERANCE = 10
DROPOUT = 0.1  # what the teacher was trained with
STOCK, FAST, PLAIN = "stock", "fast", "without gates"
# what each step does: ESPnet's own modules, the teacher's dropout and pass, gates
STEPS = {
    STOCK: {"stock": True, "dropout": True, "teacher": True, "gated": True},
    "its modules faster": {"stock": False, "dropout": True, "teacher": True, "gated": True},
    "and no dropout": {"stock": False, "dropout": False, "teacher": True, "gated": True},
    FAST: {"stock": False, "dropout": False, "teacher": False, "gated": True},
    PLAIN: {"stock": False, "dropout": False, "teacher": False, "gated": False},
}


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--utterances", type=int, default=5, help="a batch, each of 10 s")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--blocks", type=int, default=16)
    parser.add_argument("--size", type=int, default=176)
    parser.add_argument(
        "--bfloat16",
        action="store_true",
        help="products in bfloat16, as trainings have them where the processor multiplies it",
    )
    return parser


def measure(args: argparse.Namespace) -> dict:
    """Least seconds of each step of ``STEPS``."""
    import torch

    from espnet_prune.score.timing import interleaved

    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        steps = [
            _step(args, stack, Path(folder) / str(n), **how) for n, how in enumerate(STEPS.values())
        ]
        seconds = interleaved(steps, args.repeats)
    return {"settings": vars(args), "seconds": dict(zip(STEPS, seconds, strict=True))}


def _model(args: argparse.Namespace, folder: Path) -> "torch.nn.Module":  # noqa: F821
    from espnet_prune.models.espnet.build import build_asr_model

    tokens = ["<blank>", "<unk>", *(f"piece{n}" for n in range(PIECES - 1)), "<sos/eos>"]
    encoder = {
        "output_size": args.size,
        "attention_heads": 4,
        "linear_units": 4 * args.size,
        "num_blocks": args.blocks,
        "cnn_module_kernel": 31,
        **dict.fromkeys(("dropout_rate", "attention_dropout_rate"), DROPOUT),
        "positional_dropout_rate": 0.0,
    }
    return build_asr_model(
        {
            "token_list": tokens,
            "token_type": "char",
            "frontend": "nemo",
            "frontend_conf": {},
            "encoder": "nemo_conformer",
            "encoder_conf": encoder,
            "decoder": None,
            "normalize": None,
            "specaug": None,
            "model_conf": {"ctc_weight": 1.0, "report_cer": False, "report_wer": False},
        }
    )


def _step(
    args: argparse.Namespace,
    stack: ExitStack,
    folder: Path,
    stock: bool,
    dropout: bool,
    teacher: bool,
    gated: bool,
) -> Callable[[], None]:
    """One update of a student of its own, optimisers included; ``stack`` keeps its precision."""
    import torch

    import espnet_prune
    from espnet_prune.distill import DistillConfig
    from espnet_prune.methods.options import StudentConfig
    from espnet_prune.models.conformer.fast_training import slow_down_training
    from espnet_prune.train.distilled_model import DistilledModel
    from espnet_prune.train.precision import bfloat16_passes

    method = espnet_prune.L0Distill(target=0.5, updates=1000)
    model, tutor = _model(args, folder), _model(args, folder)
    student = espnet_prune.inject(model, method) if gated else model
    batch = _batch(args)
    options = StudentConfig(dropout=DROPOUT if dropout else 0.0)
    kept = None if teacher else _kept(tutor, folder, batch)
    whole = DistilledModel(student, tutor, DistillConfig(), options, method, kept).train()
    if stock:
        for one in (whole.student, tutor):
            slow_down_training(one.encoder)
    if args.bfloat16:
        stack.enter_context(bfloat16_passes(whole))
    optimizers = [torch.optim.AdamW(model.parameters(), lr=1e-5)]
    if gated:
        optimizers.append(torch.optim.Adam(method.parameter_groups(student)))

    def update() -> None:
        whole(**batch)[0].backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if gated:
            student.after_update()

    return update


def _batch(args: argparse.Namespace) -> dict:
    import torch

    number, samples = args.utterances, 16000 * SECONDS_AN_UTTERANCE
    text = torch.randint(2, PIECES, (number, 3 * SECONDS_AN_UTTERANCE))
    return {
        "speech": 0.1 * torch.randn(number, samples),
        "speech_lengths": torch.full((number,), samples),
        "text": text,
        "text_lengths": torch.full((number,), text.shape[1]),
        "utt_id": [f"utterance{n}" for n in range(number)],
    }


def _kept(teacher, folder: Path, batch: dict):
    """The teacher's outputs for the batch, as stage 8 keeps them."""
    import torch

    from espnet_prune.distill import default_teacher_layers
    from espnet_prune.train.model_outputs import features, outputs
    from espnet_prune.train.teacher_outputs import KeptOutputs, by_name, keep

    layers = default_teacher_layers(len(teacher.encoder.encoders))
    made = []
    for n, name in enumerate(batch["utt_id"]):
        one = {k: v[n : n + 1] for k, v in batch.items() if k != "utt_id"}
        with torch.no_grad():
            feats, lengths = features(teacher.eval(), one["speech"], one["speech_lengths"], False)
            found = outputs(teacher, feats, lengths, one["text"], one["text_lengths"])
        made.append((name, by_name(found, layers)))
    keep(made, len(made), folder)
    return KeptOutputs([folder])


def lines(record: dict) -> list[str]:
    """What is printed of a measurement."""
    args, seconds = argparse.Namespace(**record["settings"]), record["seconds"]
    audio = args.utterances * SECONDS_AN_UTTERANCE
    return [
        *(
            f"{name:20s} {audio / value:6.1f} s of audio a second, {seconds[STOCK] / value:.2f} x"
            for name, value in seconds.items()
            if name != PLAIN
        ),
        f"masked step / plain step = {seconds[FAST] / seconds[PLAIN]:.3f}",
        f"({args.blocks} x {args.size}, {'bfloat16' if args.bfloat16 else 'float32'}, "
        f"{args.threads} thread, batch {args.utterances} x "
        f"{SECONDS_AN_UTTERANCE} s, least of {args.repeats} interleaved repeats; stock: ESPnet's "
        "own modules, the teacher's dropout, and its pass at every update)",
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints the ratios."""
    import torch

    args = get_parser().parse_args(argv)
    torch.set_num_threads(args.threads)
    print(*lines(measure(args)), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
