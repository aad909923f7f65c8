"""The trainings of a recipe's configurations, how long they are, and what each is measured by."""

import argparse
import tempfile
from collections import Counter
from dataclasses import fields
from pathlib import Path

import torch

from espnet_prune.config import check_range, load_yaml
from espnet_prune.errors import ConfigError
from espnet_prune.io_atomic import write_json
from espnet_prune.methods import METHODS
from espnet_prune.record import machine
from espnet_prune.train.options import check_training_config
from espnet_prune.train.recipe import SYSTEMS, read_recipe
from espnet_prune.train.resolve import resolve
from espnet_prune.train.run_cost import Corpus, Row, Schedule, cost, record, table
from espnet_prune.train.step_time import StepTimer, teacher_config
from espnet_prune.train.system_config import STAGES, Folders, SystemConfig
from espnet_prune.train.teacher_task import TeacherTask

CONFORMER = "conformer"
TITLES = ("8 prune", "10 finetune")
FOLDERS = tuple(field.name for field in fields(Folders))


def measured_cost(args: argparse.Namespace) -> str:
    """The table that ``espnet-prune estimate_cost`` prints; written as JSON, too, where asked.

    Args:
        args: arguments of that verb.

    Raises:
        ConfigError: a number that can't be.
    """
    check_range("--updates", args.updates, 1, 1e6)
    check_range("--vocab_size", args.vocab_size, 5, 1e6)
    check_range("--ngpu", args.ngpu, 0, 1e6)
    if args.utterances is not None:
        check_range("--utterances", args.utterances, 1, 1e6)
    if args.processor_seconds and args.ngpu:
        raise ConfigError("--processor_seconds: a GPU's time is the clock's; leave one of both out")
    factors = read_factors(args.speed_factors)
    lengths = (args.utterance_seconds, args.tokens_per_second)
    corpus = Corpus(args.train_hours, args.valid_hours, factors, *lengths)
    utterances = args.utterances
    if utterances is None and not args.ngpu:
        utterances = 1
    timer = StepTimer(corpus, utterances, args.updates, args.ngpu, args.processor_seconds)
    rows = recipe_rows(args.conf_dir, timer, corpus, args.vocab_size)
    about = {
        "device": torch.cuda.get_device_name() if args.ngpu else machine()["cpu"],
        "devices": max(1, args.ngpu),
        "threads": torch.get_num_threads(),
        "clock": "processor" if args.processor_seconds else "wall",
        "measured_utterances": utterances or "a whole batch",
    }
    if args.out is not None:
        write_json(args.out, record(rows, corpus, about))
    head = "{devices} x {device}, {threads} threads, {clock} time".format(**about)
    return f"{head}\n{table(rows)}"


def read_factors(text: str) -> tuple[float, ...]:
    """The speeds of ``--speed_factors``.

    Raises:
        ConfigError: one is no number.
    """
    try:
        return tuple(float(word) for word in text.split())
    except ValueError as error:
        raise ConfigError(
            f"--speed_factors: '{text}' was expected as numbers between spaces: \"0.9 1.0 1.1\""
        ) from error


def schedule(training: dict, where: str, epochs: int | None = None) -> Schedule:
    """How long a training is.

    Args:
        training: a checked configuration.
        where: its file, for errors.
        epochs: other than the configuration's.

    Raises:
        ConfigError: ``batch_bins`` or ``max_epoch`` is missing.
    """
    for key in ("batch_bins", "max_epoch"):
        if key not in training:
            raise ConfigError(f"{where}: {key} is missing, by which a training's hours are counted")
    best = training.get("keep_nbest_models", 10)
    return Schedule(
        training["batch_bins"],
        training["max_epoch"] if epochs is None else epochs,
        training.get("num_iters_per_epoch"),
        training.get("accum_grad") or 1,
        max(best) if isinstance(best, list) else best,
    )


def recipe_rows(conf_dir: Path, timer: StepTimer, corpus: Corpus, vocabulary: int) -> list[Row]:
    """Measures stages 6, 8 and 10 and derives what they cost.

    Finetuning is measured with the largest of the cut models; what all systems of a kind take is
    one line, and a system taken from another's ladder is finetuned as those are that learn masks.

    Args:
        conf_dir: holds teacher.yaml, prune.yaml, finetune.yaml and systems.yaml.
        timer: measures.
        corpus: the speech.
        vocabulary: number of tokens.

    Returns:
        Lines of the table.

    Raises:
        ConfigError: a configuration is wrong, or of a pretrained model.
    """
    path = conf_dir / "teacher.yaml"
    teacher = check_training_config(TeacherTask, load_yaml(path), str(path))
    if teacher.get("encoder") != CONFORMER:
        raise ConfigError(
            f"{path}: encoder: {teacher.get('encoder')}: only recipes that train a Conformer can "
            "be measured without their data; run one epoch of this one instead and see its log"
        )
    recipe = read_recipe({name: conf_dir / f"{name}.yaml" for name in (SYSTEMS, *STAGES)})
    systems = [resolve(recipe, conf_dir, dict.fromkeys(FOLDERS, ""), n) for n in recipe.systems]
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "teacher"
        plan = schedule(teacher, str(path))
        rows = [
            cost(
                "6 teacher",
                timer.teacher(teacher_config(teacher, vocabulary), model),
                plan,
                corpus,
                processes=timer.processes,
            )
        ]
        return rows + _system_rows(systems, timer, corpus, model)


def _system_rows(
    systems: list[SystemConfig], timer: StepTimer, corpus: Corpus, teacher: Path
) -> list[Row]:
    rows = []
    epochs = [_epochs(system) for system in systems]
    for position, (title, name) in enumerate(zip(TITLES, STAGES, strict=True)):
        counted = Counter(both[position] for both in epochs if both[position])
        if not counted:
            continue
        chosen = [s for s, both in zip(systems, epochs, strict=True) if both[position]]
        largest = min(chosen, key=lambda system: system.target)
        if name == "prune":
            step = timer.prune(largest, teacher)
        else:
            step = timer.finetune(largest, teacher, teacher.parent / "cut")
        for number, runs in sorted(counted.items()):
            plan = schedule(largest.stage(name).training, f"{name}.yaml", number)
            rows.append(
                cost(f"{title}, {number} epochs", step, plan, corpus, runs, timer.processes)
            )
    return rows


def _epochs(system: SystemConfig) -> tuple[int, int]:
    """Epochs of stages 8 and 10; a method that learns no masks finetunes in those of both."""
    prune, finetune = system.stage("prune"), system.stage("finetune")
    first, last = (stage.updates // stage.updates_an_epoch for stage in (prune, finetune))
    if system.taken_from is not None:
        return 0, last
    if not METHODS[system.method].learns_masks:
        return 0, last + prune.updates // finetune.updates_an_epoch
    return first + system.taken_epochs(), last - system.taken_epochs()
