"""Masks chosen on training utterances, in stage 8, for the methods that look at data.

Stage 8 has the data and the GPU, so the masks are made there, and the weights that some methods
change with them; stage 9 finds both in files. The utterances go through the model one by one: no
padding, and one gradient for each.
"""

import argparse
import logging
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from espnet_prune.config import config_hash
from espnet_prune.data.kaldi_dir import read_map
from espnet_prune.data.parallel import Followed
from espnet_prune.io_atomic import atomic_path, write_json
from espnet_prune.methods import Method
from espnet_prune.methods.base import Pass
from espnet_prune.methods.options import RefitConfig
from espnet_prune.surgery import GatedModel, inject, load, load_strictly
from espnet_prune.surgery.few_bits import round_weights
from espnet_prune.surgery.refit import refit
from espnet_prune.surgery.rounding import FORMS
from espnet_prune.train import archives
from espnet_prune.train.distributed import check_gpu
from espnet_prune.train.system_config import SystemConfig
from espnet_prune.train.teacher_task import TeacherTask
from espnet_prune.train.training import data_options, token_options

logger = logging.getLogger(__name__)
MASKS = "masks.safetensors"
WEIGHTS = "weights.safetensors"  # those that differ from the teacher's, and directions of ranks
ORDER = "order.safetensors"
MADE_FROM = "made_from"
SECONDS = "train_seconds.json"  # where trainings leave theirs


def choose_masks(config: SystemConfig, out: Path, ngpu: int) -> None:
    """Lets the method choose its masks on training utterances and writes them.

    Args:
        config: configuration of the system.
        out: gets the masks, what was changed of the model with them, and the seconds that both
            took.
        ngpu: 0 for the CPU.
    """
    started, method = time.monotonic(), config.build_method()
    gated, passes = _gated_and_passes(config, method, method.calibration_utterances, ngpu)
    logger.info("masks are chosen on %d utterances", len(passes))
    before = {name: value.clone() for name, value in gated.model.state_dict().items()}
    masks = method.aligned(gated, method.masks(gated, passes))
    method.compensate(gated, masks, passes)
    after = gated.model.state_dict()
    changed = {name: value for name, value in after.items() if not value.equal(before[name])}
    _write(changed, out / WEIGHTS)
    _write(masks, out / MASKS)
    write_json(out / SECONDS, {"seconds": time.monotonic() - started})


def write_order(config: SystemConfig, out: Path, ngpu: int, made_by: Mapping) -> None:
    """Writes the scores by which a method's gates begin, unless they are there.

    Args:
        config: configuration of the system.
        out: gets the scores.
        ngpu: 0 for the CPU.
        made_by: what they depend on; those that something else gave are written anew.
    """
    made_from = config_hash(made_by)
    if (out / ORDER).exists() and _made_from(out / ORDER) == made_from:
        return
    method = config.build_method()
    gated, passes = _gated_and_passes(config, method, method.order_utterances, ngpu)
    logger.info("gates begin in an order by %d utterances", len(passes))
    _write(method.order_scores(gated, passes), out / ORDER, {MADE_FROM: made_from})


def refit_on_data(
    gated: GatedModel, masks: Mapping[str, Tensor], options: RefitConfig, config: SystemConfig
) -> Mapping[str, Tensor]:
    """Solves the gated model's layers anew for what the teacher says of training utterances.

    Args:
        gated: in evaluation mode; its weights are changed.
        masks: resolved masks (units,) of all sites.
        options: how many utterances, and how.
        config: configuration of the system.

    Returns:
        The masks of all sites, which differ where units are chosen anew.
    """
    data = (config.folders.train, config.folders.tokens)
    batches = _utterances(config.prune.training, *data, options.utterances, config.seed, "cpu")
    runs = [partial(_run, batch) for batch in batches]
    logger.info("weights are solved anew on %d utterances", len(runs))
    teacher = load(config.teacher / "model").eval()
    return refit(gated, teacher, masks, runs, options.damping, options.choose)


def round_on_data(model: nn.Module, bits: int, config: SystemConfig) -> None:
    """Rounds a model's weights in place, by what layers hear of training utterances where it helps.

    Args:
        model: in evaluation mode.
        bits: 4 or 8.
        config: configuration of the system.
    """
    data, number = (config.folders.train, config.folders.tokens), FORMS[bits].utterances
    batches = _utterances(config.prune.training, *data, number, config.seed, "cpu")
    logger.info("weights are rounded to %d bits, by %d utterances", bits, len(batches))
    runs = [partial(_run, batch, model) for batch in batches]
    round_weights(model, bits, Followed(runs, "calibration"))


def read_masks(folder: Path) -> dict[str, Tensor]:
    """The masks (units,) of all sites that ``choose_masks`` left."""
    return load_file(folder / MASKS)


def take_weights(gated: GatedModel, folder: Path) -> None:
    """Gives the dense model the weights that ``choose_masks`` changed.

    Raises:
        ModelError: weights of another model.
    """
    path = folder / WEIGHTS
    load_strictly(gated.model, {**gated.model.state_dict(), **load_file(path)}, str(path))


def _gated_and_passes(
    config: SystemConfig, method: Method, number: int, ngpu: int
) -> tuple[GatedModel, Sequence[Pass]]:
    """The gated teacher, and what runs it on each of ``number`` utterances."""
    check_gpu(ngpu)
    device = "cuda" if ngpu else "cpu"
    gated = inject(load(config.pruned), method).to(device).eval()
    data = (config.folders.train, config.folders.tokens)
    batches = _utterances(config.prune.training, *data, number, config.seed, device)
    return gated, Followed([partial(_loss, gated, batch) for batch in batches], "calibration")


def _made_from(path: Path) -> str | None:
    with safe_open(path, "pt") as file:
        return (file.metadata() or {}).get(MADE_FROM)


def _write(tensors: Mapping[str, Tensor], path: Path, about: dict[str, str] | None = None) -> None:
    with atomic_path(path) as temporary:
        plain = {name: value.cpu().contiguous() for name, value in tensors.items()}
        save_file(plain, temporary, about)


def _run(batch: Mapping[str, Tensor], model: nn.Module) -> object:
    return model(**batch)


def _loss(gated: GatedModel, batch: Mapping[str, Tensor]) -> Tensor:
    """The labels' loss () as in the teacher's training."""
    return gated(**batch)[0]


def _utterances(
    training: Mapping, train: Path, tokens: Path, number: int, seed: int, device: str
) -> list[dict[str, Tensor]]:
    """``number`` utterances in a drawn order, each a batch of one; for none nothing is read."""
    if not number:
        return []
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
