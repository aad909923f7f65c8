"""What stages 8 and 10 share: what a result depends on, and skipping what is done."""

import argparse
from collections.abc import Mapping
from pathlib import Path

TEACHER_WEIGHTS = "model/model.safetensors"
CUT_WEIGHTS = "cut/model.safetensors"


def run_stage(name: str, args: argparse.Namespace) -> None:
    """Runs, goes on, or finds it done.

    Args:
        name: ``prune`` or ``finetune``; also the folder below the system's.
        args: of the verb of that name.
    """
    from espnet_prune.stage import check_same, finished, mark_finished

    made_by, source = _made_by(args, name)
    if finished(args.out / name, made_by):
        return
    _check_tokens(args.tokens, args.teacher / "model")
    from espnet_prune.train import stages
    from espnet_prune.train.distributed import is_first
    from espnet_prune.train.recipe import for_system, read_recipe
    from espnet_prune.train.systems import read_system

    stage, task = {
        "prune": (stages.prune, stages.PruneTask),
        "finetune": (stages.finetune, stages.FinetuneTask),
    }[name]
    recipe = read_recipe(args.config, task)
    system = read_system(args.systems, args.system)
    recipe = for_system(recipe, system, task)
    if source is not None and name == "prune":
        check_same(*source)
    folders = stages.Folders(args.train, args.valid, args.tokens, args.stats)
    stage(recipe, system, args.teacher, folders, args.out, args.ngpu)
    if is_first():
        mark_finished(args.out / name, made_by)


def _check_tokens(tokens: Path, model: Path) -> None:
    from espnet_prune.data.tokens import check_tokens
    from espnet_prune.surgery.serialize import read_description

    config = read_description(model).config
    bpe_model = config.get("bpemodel")
    check_tokens(tokens, config["token_list"], bpe_model and model / bpe_model, str(model))


def _made_by(args: argparse.Namespace, name: str) -> tuple[dict, tuple[Path, dict] | None]:
    """What a stage's result depends on, and of a rung the run's folder and what that depends on."""
    from espnet_prune.config import check_mapping, load_yaml
    from espnet_prune.provenance import file_digest
    from espnet_prune.stage import with_later
    from espnet_prune.train.system_names import taken_from

    systems = load_yaml(args.systems).get("systems") or {}
    check_mapping(f"{args.systems}: systems", systems)
    row = systems.get(args.system)
    weights = args.teacher / TEACHER_WEIGHTS
    config = load_yaml(args.config)
    made_by = {
        "config": config,
        "system": row,
        "teacher": {"folder": str(args.teacher), "weights": file_digest(weights)},
    }
    later = {"train": str(args.train), "valid": str(args.valid)}
    inputs = {"the cut model": args.out / CUT_WEIGHTS}
    if name == "prune":
        inputs = {str(path): path for path in _score_files(config, row)}
    later |= {f"contents of {n}": file_digest(p) for n, p in inputs.items() if p.is_file()}
    source = taken_from(row)
    if source not in systems:  # none, or an error that reading the system names
        return with_later(made_by, later, args.out / name), None
    run = args.out.parent / source / name
    whole = with_later({**made_by, "system": systems[source]}, later, run)
    taken = {**made_by, "taken_from": systems[source]}
    return with_later(taken, later, args.out / name), (run, whole)


def _score_files(config: Mapping, row: object) -> list[Path]:
    """The files of measured scores that a system's masks are chosen by."""
    found = []
    for options in (config.get("method"), row.get("options") if isinstance(row, dict) else None):
        for name in ("importance", "module_error"):
            own = options.get(name) if isinstance(options, dict) else None
            if isinstance(own, dict) and isinstance(own.get("file"), str):
                found.append(Path(own["file"]))
    return found
