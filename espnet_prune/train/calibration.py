"""Masks chosen on training utterances, in stage 8, for the methods that look at data.

Stage 8 has the data and the GPU, so the masks are made there and stage 9 finds them in a file. The
utterances go through the model one by one: no padding, and one gradient for each.
"""

import argparse
import logging
import tempfile
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from espnet_prune.data.kaldi_dir import read_map
from espnet_prune.io_atomic import atomic_path, write_json
from espnet_prune.surgery import GatedModel, inject, load
from espnet_prune.train import archives
from espnet_prune.train.distributed import check_gpu
from espnet_prune.train.prune_task import PruneConf
from espnet_prune.train.teacher_task import TeacherTask
from espnet_prune.train.training import data_options, token_options

logger = logging.getLogger(__name__)
MASKS = "masks.safetensors"
ORDER = "order.safetensors"
SECONDS = "train_seconds.json"  # where trainings leave theirs


def choose_masks(
    conf: PruneConf, training: Mapping, train: Path, tokens: Path, out: Path, ngpu: int
) -> None:
    """Lets the method choose its masks on training utterances and writes them.

    Args:
        conf: teacher, method, target and seed.
        training: the recipe's checked training configuration, for how text is read.
        train: dump folder of the training set.
        tokens: folder of the tokens.
        out: gets the masks and the seconds that they took.
        ngpu: 0 for the CPU.
    """
    from safetensors.torch import save_file

    started = time.monotonic()
    method = conf.build_method()
    check_gpu(ngpu)
    device = "cuda" if ngpu else "cpu"
    gated = inject(load(conf.teacher), method).to(device).eval()
    batches = _utterances(
        training, train, tokens, method.calibration_utterances, conf.system.seed, device
    )
    logger.info("masks are chosen on %d utterances", len(batches))
    masks = method.masks(gated, [partial(_loss, gated, batch) for batch in batches])
    out.mkdir(parents=True, exist_ok=True)
    with atomic_path(out / MASKS) as temporary:
        save_file({name: mask.cpu().contiguous() for name, mask in masks.items()}, temporary)
    write_json(out / SECONDS, {"seconds": time.monotonic() - started})


def write_order(
    conf: PruneConf, training: Mapping, train: Path, tokens: Path, out: Path, ngpu: int
) -> None:
    """Writes the scores by which a method's gates begin, once; arguments as of ``choose_masks``."""
    from safetensors.torch import save_file

    if (out / ORDER).exists():
        return
    method, number = conf.build_method(), conf.build_method().order_utterances
    device = "cuda" if ngpu else "cpu"
    gated = inject(load(conf.teacher), method).to(device).eval()
    batches = _utterances(training, train, tokens, number, conf.system.seed, device)
    logger.info("gates begin in an order by %d utterances", len(batches))
    scores = method.order_scores(gated, [partial(_loss, gated, batch) for batch in batches])
    out.mkdir(parents=True, exist_ok=True)
    with atomic_path(out / ORDER) as temporary:
        save_file({name: score.cpu().contiguous() for name, score in scores.items()}, temporary)


def read_masks(folder: Path) -> dict[str, Tensor]:
    """The masks (units,) of all sites that ``choose_masks`` left."""
    from safetensors.torch import load_file

    return load_file(folder / MASKS)


def _loss(gated: GatedModel, batch: Mapping[str, Tensor]) -> Tensor:
    """The labels' loss () as in the teacher's training."""
    return gated(**batch)[0]


def _utterances(
    training: Mapping, train: Path, tokens: Path, number: int, seed: int, device: str
) -> list[dict[str, Tensor]]:
    """``number`` utterances in a drawn order, each a batch of one."""
    keys = list(read_map(train / "text"))
    order = torch.randperm(len(keys), generator=torch.Generator().manual_seed(seed)).tolist()
    chosen = {keys[i]: place for place, i in enumerate(order[:number])}
    batches: dict[int, dict[str, Tensor]] = {}
    for key, batch in read_utterances(training, train, tokens, [k for k in keys if k in chosen]):
        batches[chosen[key]] = {name: value.to(device) for name, value in batch.items()}
    return [batches[place] for place in sorted(batches)]


def read_utterances(
    training: Mapping, train: Path, tokens: Path, keys: list[str]
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """The utterances ``keys`` as trainings read them, in the data folder's order."""
    archives.register()
    defaults, _ = TeacherTask.get_parser().parse_known_args([])
    args = argparse.Namespace(**{**vars(defaults), **training, **token_options(tokens)})
    with tempfile.NamedTemporaryFile("w", suffix=".keys", encoding="utf-8") as file:
        file.write("".join(f"{key} .\n" for key in keys))
        file.flush()
        batches = TeacherTask.build_streaming_iterator(
            data_options(train, train)["train_data_path_and_name_and_type"],
            preprocess_fn=TeacherTask.build_preprocess_fn(args, train=False),
            collate_fn=TeacherTask.build_collate_fn(args, train=False),
            key_file=file.name,
            dtype="float32",
            num_workers=0,
        )
        for names, batch in batches:
            yield names[0], batch
