"""Runs an ESPnet task: from dump folders and a checked configuration to a trained folder."""

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from espnet_prune.config import dump_yaml
from espnet_prune.data.audio_io import read_audio
from espnet_prune.data.kaldi_dir import read_map, write_map
from espnet_prune.data.tokens import FILES as TOKEN_FILES
from espnet_prune.errors import DataError
from espnet_prune.io_atomic import read_json, write_text
from espnet_prune.job_control import only_writer
from espnet_prune.models.espnet.features import sample_rate_of
from espnet_prune.record import (
    BEGUN,
    check_same,
    contents_digest,
    mark_begun,
)
from espnet_prune.train import archives, distributed, precision
from espnet_prune.train.system_config import Folders

logger = logging.getLogger(__name__)
RESOLVED = "train_config.yaml"
LOG = "train.log"
CHECKPOINT = "checkpoint.pth"
ESPNET_NBEST, ESPNET_EPOCHS = 10, 40  # its defaults of keep_nbest_models and max_epoch
WITHIN = "within_epoch.pth"  # what within_epoch.py saves

# what a recipe needn't say: no plots but TensorBoard
DEFAULTS = {
    "use_matplotlib": False,
    "use_tensorboard": True,
    "use_wandb": False,
    "log_interval": None,
}
# what a recipe can't choose, see SET_BY_STAGES
FIXED = {"resume": True, "multiprocessing_distributed": False, "num_att_plot": 0}


def token_options(tokens: Path) -> dict:
    """ESPnet's options for a token folder made by stage 4."""
    description = read_json(tokens / "tokens.json")
    options = {
        "token_type": description["type"],
        "token_list": str((tokens / "tokens.txt").resolve()),
    }
    if description["model"]:
        options["bpemodel"] = str((tokens / description["model"]).resolve())
    return options


def data_options(train: Path, valid: Path) -> dict:
    """ESPnet's options for the two data folders."""
    options = {}
    for name, folder in (("train", train), ("valid", valid)):
        kind = archives.kind_of(read_map(folder / "wav.scp"))
        options[f"{name}_data_path_and_name_and_type"] = [
            (str((folder / "wav.scp").resolve()), "speech", kind),
            (str((folder / "text").resolve()), "text", "text"),
        ]
    return options


def check_rate(config: Mapping, folder: Path) -> None:
    """DataError where a dump folder is of another sampling rate than the front-end reads.

    Args:
        config: the teacher's configuration.
        folder: a dump folder, whose first recording is looked at: they have one rate.
    """
    utterance, entry = next(iter(read_map(folder / "wav.scp").items()))
    place = f"{folder / 'wav.scp'}: {utterance}"
    expected, rate = sample_rate_of(config), read_audio(entry, place)[1]
    if rate != expected:
        raise DataError(
            f"{place} is sampled at {rate} Hz, but the front-end reads {expected} Hz; set "
            f"frontend_conf: fs: {rate}, and n_fft, win_length and hop_length to suit it"
        )


def longest_seconds(folder: Path, sample_rate: int) -> float:
    """Length of the longest utterance of a dump folder."""
    return max(map(int, read_map(folder / "utt2num_samples").values())) / sample_rate


def shape_options(stats: Path) -> dict:
    """ESPnet's options for the shapes that stage 5 found."""
    options = {}
    for name in ("train", "valid"):
        path = stats / name / "speech_shape"
        if not path.exists():
            raise DataError(f"{path}: no such file; run stage 5 (statistics) first")
        options[f"{name}_shape_file"] = [str(path.resolve())]
    return options


def write_shapes(train: Path, valid: Path, out: Path) -> None:
    """Stage 5 of a teacher that brings its own normalisation: the lengths of all utterances.

    Args:
        train: dump folder of the training set.
        valid: folder of the development set.
        out: gets ``train`` and ``valid``.
    """
    for name, folder in (("train", train), ("valid", valid)):
        write_map(out / name / "speech_shape", read_map(folder / "utt2num_samples"))


def collect_stats(
    task: type, config: Mapping, train: Path, valid: Path, tokens: Path, out: Path, ngpu: int = 0
) -> None:
    """Stage 5: shapes of all utterances, mean and variance of the features.

    Args:
        task: an ESPnet task.
        config: the teacher's checked configuration.
        train: dump folder of the training set.
        valid: folder of the development set.
        tokens: folder of the tokens.
        out: gets ``train`` and ``valid``.
        ngpu: 0 for the CPU.
    """
    check_rate(config, train)
    values = {**config, **token_options(tokens), **data_options(train, valid)}
    values.update(collect_stats=True, normalize=None, specaug=None, batch_size=32)
    for name, folder in (("train", train), ("valid", valid)):
        values[f"{name}_shape_file"] = [str((folder / "utt2num_samples").resolve())]
    _run(task, values, out, ngpu)


def run_training(
    task: type,
    config: Mapping,
    folders: Folders,
    out: Path,
    ngpu: int = 0,
    begun_by: Mapping | None = None,
) -> None:
    """Trains a task, or goes on where a killed training stopped.

    Under torchrun, each process calls it; the first one alone writes.

    Args:
        task: an ESPnet task whose trainer is a ``GuardedTrainer``.
        config: a checked ESPnet training configuration.
        folders: the data.
        out: ESPnet's output folder; also gets the resolved configuration and the log.
        ngpu: 0 for the CPU, 1 for a GPU a process.
        begun_by: what the task depends on besides, such as its models.

    Raises:
        ConfigError: the training was begun with another configuration, other tokens, statistics or
            models.
        DataError: a folder isn't what it should be.
        TrainingError: the loss is not finite, or there is no batch.
    """
    tokens, stats = folders.tokens, folders.stats
    values = {**DEFAULTS, **config, **FIXED, **token_options(tokens)}
    values.update({**data_options(folders.train, folders.valid), **shape_options(stats)})
    if values.get("normalize") == "global_mvn":
        file = str((stats / "train/feats_stats.npz").resolve())
        values["normalize_conf"] = {**(values.get("normalize_conf") or {}), "stats_file": file}
    contents = {
        "contents of tokens": contents_digest(tokens, TOKEN_FILES),
        "contents of statistics": contents_digest(stats / "train", ("feats_stats.npz",)),
    }
    _run(task, values, out, ngpu, {**contents, **(begun_by or {})})


def averaged(wanted: int | Sequence[int], epochs: int) -> int | list[int]:
    """How many of the best epochs are averaged: as wanted, or all where there are fewer.

    ESPnet itself takes the single best one then, and a system with few epochs of finetuning would
    be compared with others that are averages. It still does where ``patience`` ends a training.
    """
    if isinstance(wanted, int):
        return min(wanted, epochs)
    return sorted({min(number, epochs) for number in wanted})


def _run(task: type, values: dict, out: Path, ngpu: int, begun_by: Mapping | None = None) -> None:
    distributed.check_gpu(ngpu)
    values = {**values, **distributed.options(ngpu)}
    values["keep_nbest_models"] = averaged(
        values.get("keep_nbest_models", ESPNET_NBEST), values.get("max_epoch", ESPNET_EPOCHS)
    )
    plain = {
        k: [list(i) if isinstance(i, tuple) else i for i in v] if isinstance(v, list) else v
        for k, v in values.items()
    }
    out.mkdir(parents=True, exist_ok=True)
    made_by = {**_movable(plain, out.resolve()), **(begun_by or {})}
    if plain.get("use_amp") and not ngpu:
        task = _mixed_on_cpu(task)
        plain["use_amp"] = False  # ESPnet's is CUDA's alone, and warns at every batch
    if (out / CHECKPOINT).exists() or (out / WITHIN).exists():
        check_same(out, made_by, BEGUN)
    archives.register()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        resolved = Path(folder) / RESOLVED
        if distributed.is_first():
            stack.enter_context(only_writer(out))
            mark_begun(out, made_by)
            resolved = out / RESOLVED
            stack.enter_context(_log_to(out / LOG))
        write_text(resolved, dump_yaml(plain))
        stack.callback(distributed.leave)
        command = ["--config", str(resolved), "--output_dir", str(out), "--ngpu", str(ngpu)]
        task.main(cmd=command)


def _mixed_on_cpu(task: type) -> type:
    if not precision.cpu_has_bfloat16():
        logger.info("use_amp: this CPU has no bfloat16 of its own, so this trains in float32")
        return task
    logger.info("use_amp: on this CPU's bfloat16")
    return precision.in_bfloat16(task)


def _movable(value: object, out: Path) -> object:
    """The same with paths relative to ``out``, so that an experiment's folder can be moved."""
    if isinstance(value, Mapping):
        return {key: _movable(inner, out) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_movable(inner, out) for inner in value]
    is_path = isinstance(value, str) and os.path.isabs(value)
    return os.path.relpath(value, out) if is_path else value


@contextlib.contextmanager
def _log_to(path: Path) -> Iterator[None]:
    """All records go to the file, ESPnet's too."""
    root = logging.getLogger()
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()
