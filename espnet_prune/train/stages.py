"""Stages 8 and 10 of one system: prune, finetune."""

from dataclasses import replace
from pathlib import Path

from espnet_prune.data.tokens import check_tokens
from espnet_prune.errors import DataError
from espnet_prune.io_torch import read_torch
from espnet_prune.record import (
    add_command,
    check_finished,
    check_same,
    file_digest,
    finished,
    mark_finished,
    read_record,
    update_record,
)
from espnet_prune.surgery import load, load_strictly
from espnet_prune.surgery.serialize import WEIGHTS, read_description
from espnet_prune.train.calibration import ORDER, choose_masks, round_on_data, write_order
from espnet_prune.train.distributed import is_first
from espnet_prune.train.keep_outputs import keep_outputs
from espnet_prune.train.prune_task import FinetuneTask, PruneTask, Setting
from espnet_prune.train.rungs import take_rung
from espnet_prune.train.system import best_average, seconds_of, updates_of, write_cut
from espnet_prune.train.system_config import (
    SystemConfig,
    continued_schedule,
    finetuning_epochs,
    plain,
    read_config,
)
from espnet_prune.train.training import run_training

TEACHER_WEIGHTS = "model/model.safetensors"
CUT_WEIGHTS = "cut/model.safetensors"


def run_stage(name: str, system: Path, ngpu: int) -> None:
    """Runs a stage, goes on with it, or finds it done.

    Args:
        name: ``prune`` or ``finetune``; also the folder below the system's.
        system: its folder, which holds its configuration.
        ngpu: 0 for the CPU, 1 for a GPU a process.
    """
    config = read_config(system)
    if config.origin is not None:
        _check_origin(config)
    made_by = stage_made_by(name, system, config)
    if finished(system / name, made_by):
        return
    _check_tokens(config)
    if name == "finetune":
        pruned_by = {"prune": stage_made_by("prune", system, config)}
        check_finished(system / "cut", pruned_by, "stage 9 (cut)")
    {"prune": prune, "finetune": finetune}[name](system, config, made_by, ngpu)
    if is_first():
        mark_finished(system / name, made_by)


def stage_made_by(name: str, system: Path, config: SystemConfig) -> dict:
    """What the result of a stage depends on.

    Raises:
        ConfigError: the run that a rung is taken from was made by another configuration.
    """
    made_by = {
        **config.about(name),
        "teacher": {
            "folder": str(config.teacher),
            "weights": file_digest(config.teacher / TEACHER_WEIGHTS),
        },
        "train": str(config.folders.train),
        "valid": str(config.folders.valid),
    }
    inputs = {"the cut model": system / CUT_WEIGHTS}
    if name == "prune":
        inputs = {str(path): path for path in config.score_files()}
        if config.origin is not None:
            inputs[str(config.origin)] = config.origin / TEACHER_WEIGHTS
    made_by |= {f"contents of {n}": file_digest(p) for n, p in inputs.items() if p.is_file()}
    if config.taken_from is not None:
        run = system.parent / config.taken_from
        source = read_config(run)
        made_by["run"] = source.about("prune")
        if name == "prune":
            check_same(run / name, stage_made_by(name, run, source))
    return made_by


def _begun_by(name: str, made_by: dict) -> dict:
    """The same beside what ESPnet itself is told."""
    rest = {key: value for key, value in made_by.items() if key != name}
    return {**rest, "options": made_by[name]["method"]}


def _check_origin(config: SystemConfig) -> None:
    """DataError where there is no model yet that is to be pruned."""
    if not config.pruned.is_dir():
        raise DataError(
            f"{config.pruned}: no such folder; a system that others are made of is finished first: "
            f"--systems {config.pruned.parent.name} --stop_stage finetune"
        )


def _check_tokens(config: SystemConfig) -> None:
    model = config.teacher / "model"
    about = read_description(model).config
    bpe_model = about.get("bpemodel")
    tokens = config.folders.tokens
    check_tokens(tokens, about["token_list"], bpe_model and model / bpe_model, str(model))


def prune(out: Path, config: SystemConfig, made_by: dict, ngpu: int) -> None:
    """Stage 8: learns masks, takes a rung, chooses masks on data, or leaves that to the cut.

    Args:
        out: the system's folder.
        config: its configuration.
        made_by: what all depends on, for a training that is resumed.
        ngpu: 0 for the CPU.
    """
    if config.taken_from is not None:
        _take(out, config)
        return
    stage, method = config.prune, config.build_method()
    saved = stage.updates
    if method.learns_masks:
        saved = stage.updates - method.updates
        setting = Setting(
            method,
            config.teacher / "model",
            origin=None if config.origin is None else config.pruned,
            teacher_outputs=keep_outputs(config, stage, method.distillation, ngpu),
        )
        if method.order_utterances:
            setting = replace(setting, order=out / "prune" / ORDER)
            if is_first():
                write_order(config, out / "prune", ngpu, made_by)
        training = {
            **_training(config, stage.training, method.updates // stage.updates_an_epoch),
            "optim2": stage.training.get("optim2", "adam"),
        }
        task, begun_by = PruneTask.of(setting), _begun_by("prune", made_by)
        run_training(task, training, config.folders, out / "prune", ngpu, begun_by)
    if not is_first():
        return
    if method.calibration_utterances:
        choose_masks(config, out / "prune", ngpu)
    _record_pruning(out, config, saved)


def _training(config: SystemConfig, training: dict, epochs: int) -> dict:
    """ESPnet's options; each group is clipped apart, see ``clip_before_steps``."""
    return {**training, "seed": config.seed, "max_epoch": epochs, "grad_clip": float("inf")}


def _take(out: Path, config: SystemConfig) -> None:
    """Stage 8 of a system that is a rung of another's ladder: that run's state, up to the rung."""
    if not is_first():
        return
    state = take_rung(out.parent / config.taken_from, config.target, out / "prune")
    stage = config.prune
    _record_pruning(out, config, stage.updates - state.epoch * stage.updates_an_epoch)
    update_record(
        out,
        shared={
            "system": config.taken_from,
            "seconds": seconds_of(out / "prune"),
            "updates": updates_of(out / "prune"),
        },
    )


def _record_pruning(out: Path, config: SystemConfig, saved_updates: int) -> None:
    """Which system it is, and what stage 8 cost; ``saved_updates`` are left for finetuning."""
    update_record(
        out,
        method=config.method,
        seed=config.seed,
        target=config.target,
        row={**config.own, "ladder": config.ladder},
        train_seconds={"prune": seconds_of(out / "prune")},
        updates={"prune": updates_of(out / "prune")},
        saved_updates=saved_updates,
    )
    add_command(out, plain(config), config.seed)


def finetune(out: Path, config: SystemConfig, made_by: dict, ngpu: int) -> None:
    """Stage 10: trains the cut model on, distilled from the same teacher.

    A method that learned no masks gets the updates that the others spent on it; where the pruning
    stage took over all epochs of this one, or the system asks for it, the cut model is final.
    Where the system asks for few bits, what is trained is rounded to them in the end, by training
    utterances where the nearest numbers aren't good enough. Arguments as of ``prune``.
    """
    stage, method = config.stage("finetune"), config.build_method("finetune")
    saved = read_record(out)["saved_updates"]
    epochs = 0 if config.as_cut else finetuning_epochs(stage, saved)
    training = _training(config, stage.training, epochs)
    if method.config.continue_schedule:
        training |= continued_schedule(stage, updates_of(out / "prune"))
    if epochs:
        outputs = keep_outputs(config, stage, method.distillation, ngpu)
        setting = Setting(method, config.teacher / "model", out / "cut", teacher_outputs=outputs)
        task, begun_by = FinetuneTask.of(setting), _begun_by("finetune", made_by)
        run_training(task, training, config.folders, out / "finetune", ngpu, begun_by)
    if not is_first():
        return
    small, weights = load(out / "cut"), "as cut" if config.as_cut else "of the one pass"
    if epochs:
        best = best_average(out / "finetune", stage.training)
        state, weights = read_torch(best), best.name
        own = {k.removeprefix("plain."): v for k, v in state.items() if k.startswith("plain.")}
        load_strictly(small, own, str(best))
    if config.bits:
        round_on_data(small, config.bits, config)
    write_cut(out, small, "model")
    size = (out / "model" / WEIGHTS).stat().st_size
    update_record(
        out,
        row=config.own,
        weights_bytes={"kept": size},
        train_seconds={"finetune": seconds_of(out / "finetune")},
        updates={"finetune": updates_of(out / "finetune")},
        weights=weights,
    )
    add_command(out, plain(config), config.seed)
