"""Verbs of the stages that train: statistics, teacher, pruning, cut, finetuning."""

import argparse
from pathlib import Path


def configure_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, help="the experiment's folder, exp/TAG")
    parser.add_argument(
        "--config",
        dest="configs",
        nargs=2,
        action="append",
        required=True,
        metavar=("NAME", "FILE"),
        help="one of the recipe's, by its name without .yaml; several times",
    )
    parser.add_argument("--over", type=Path, help="folder of files whose keys win")
    parser.add_argument("--systems", action="store_true", help="configure systems, too")
    parser.add_argument("--only", help="names to choose, separated by spaces; all by default")
    parser.add_argument("--compare_with", default="", help="names to compare with, NAME? if there")
    _add_data(parser)
    parser.add_argument("--stats", type=Path, required=True, help="folder of stage 5")
    parser.add_argument("--ngpu", type=int, default=0, help="GPUs that this machine has to have")


def configure(args: argparse.Namespace) -> None:
    """Writes, and prints lines for the driver.

    They are all systems, those that are taken from another's run, those that are made of another's
    finished model, and those that are compared with.
    """
    from espnet_prune.train.configure import configure_systems, write_conf
    from espnet_prune.train.recipe import read_recipe
    from espnet_prune.train.system_names import compared

    if args.ngpu:
        from espnet_prune.train.distributed import check_gpus

        check_gpus(args.ngpu)
    recipe = read_recipe({name: Path(file) for name, file in args.configs}, args.over)
    write_conf(recipe, args.out)
    names, taken, of_others = [], [], []
    if args.systems:
        folders = {name: str(getattr(args, name)) for name in ("train", "valid", "tokens", "stats")}
        names, taken, of_others = configure_systems(recipe, args.out, folders, args.only)
    for words in (names, taken, of_others, compared(args.compare_with, names, args.out)):
        print(*words)


def collect_stats_arguments(parser: argparse.ArgumentParser) -> None:
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--config", type=Path, help="the teacher's configuration")
    model.add_argument("--teacher", help="shapes alone: this model brings its normalisation")
    _add_data(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder to make")


def collect_stats(args: argparse.Namespace) -> None:
    """Collects, unless it is done already."""
    from espnet_prune.config import load_yaml
    from espnet_prune.record import finished, mark_finished

    if args.teacher is not None:
        _write_shapes(args)
        return
    config = load_yaml(args.config)
    reads = ("frontend", "frontend_conf", "input_size")
    made_by = {"train": str(args.train), "valid": str(args.valid)}
    made_by.update({key: config.get(key) for key in reads})
    if finished(args.out, made_by):
        return
    from espnet_prune.data.alignable import check_alignable
    from espnet_prune.train import training
    from espnet_prune.train.options import check_training_config
    from espnet_prune.train.teacher_task import TeacherTask

    config = check_training_config(TeacherTask, config, str(args.config))
    for folder in (args.train, args.valid):
        check_alignable(config, folder, args.tokens)
    training.collect_stats(TeacherTask, config, args.train, args.valid, args.tokens, args.out)
    mark_finished(args.out, made_by)


def _write_shapes(args: argparse.Namespace) -> None:
    from espnet_prune.record import finished, mark_finished
    from espnet_prune.train.training import write_shapes

    made_by = {"train": str(args.train), "valid": str(args.valid), "teacher": args.teacher}
    if not finished(args.out, made_by):
        write_shapes(args.train, args.valid, args.out)
        mark_finished(args.out, made_by)


def train_teacher_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, required=True, help="the teacher's configuration")
    _add_data(parser)
    parser.add_argument("--stats", type=Path, required=True, help="folder of stage 5")
    parser.add_argument("--out", type=Path, required=True, help="folder of the teacher")
    _add_ngpu(parser)


def train_teacher(args: argparse.Namespace) -> None:
    """Trains, or goes on, or finds it done."""
    from espnet_prune.train import teacher

    teacher.train_teacher(args)


def import_teacher_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--teacher",
        required=True,
        help="an ESPnet experiment's folder or one of its .pth files, a .zip of its model zoo, a "
        "folder of espnet_prune.save, a .nemo archive (a Conformer with CTC), or a name on the hub",
    )
    parser.add_argument("--tokens", type=Path, help="folder of its tokens; made beside if missing")
    parser.add_argument("--out", type=Path, required=True, help="folder of the teacher")


def import_teacher(args: argparse.Namespace) -> None:
    """Imports, unless it is done already."""
    from espnet_prune.record import ORIGIN_FILES, contents_of, finished, mark_finished

    made_by = {"teacher": args.teacher, **contents_of(args.teacher, ORIGIN_FILES)}
    if finished(args.out, made_by):
        return
    from espnet_prune.train.teacher import import_teacher as import_from

    import_from(args.teacher, args.tokens or args.out / "tokens", args.out)
    mark_finished(args.out, made_by)


def prune_arguments(parser: argparse.ArgumentParser) -> None:
    _add_system(parser)


def prune(args: argparse.Namespace) -> None:
    """Runs, goes on, or finds it done."""
    from espnet_prune.train.stages import run_stage

    run_stage("prune", args.system, args.ngpu)


def cut_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--system", type=Path, nargs="+", required=True, help="folders of one or more systems"
    )


def cut(args: argparse.Namespace) -> None:
    """Cuts every system that isn't cut already; one process, since ESPnet's import is slow."""
    for system in args.system:
        _cut(system)


def _cut(system: Path) -> None:
    from espnet_prune.record import check_finished, finished, mark_finished, read_record
    from espnet_prune.train.cutting import cut_system
    from espnet_prune.train.stages import stage_made_by
    from espnet_prune.train.system_config import read_config

    config = read_config(system)
    made_by = stage_made_by("prune", system, config)
    check_finished(system / "prune", made_by, "stage 8 (prune)")
    if finished(system / "cut", {"prune": made_by}):
        return
    difference = cut_system(system, config)
    mark_finished(system / "cut", {"prune": made_by})
    record = read_record(system)
    sparsity, size = record["sparsity"], record["weights_bytes"]
    print(
        f"{system.name}: {sparsity['kept']} of {sparsity['total']} prunable "
        f"{sparsity['measure']} kept, sparsity {sparsity['value']:.2%}; masked and cut model "
        f"differ by at most {difference:.1g}; the file of weights has {size['kept']} of "
        f"{size['dense']} bytes"
    )


def finetune_arguments(parser: argparse.ArgumentParser) -> None:
    _add_system(parser)


def finetune(args: argparse.Namespace) -> None:
    """Runs, goes on, or finds it done."""
    from espnet_prune.train.stages import run_stage

    run_stage("finetune", args.system, args.ngpu)


def estimate_cost_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description += (
        " Measures a few updates of stages 6, 8 and 10 on noise, with the models, losses and "
        "optimisers of the recipe's configurations, and derives the rest from their numbers of "
        "epochs and batches. A GPU measures whole batches, so that its memory is the trainings' "
        "own; a CPU measures one utterance."
    )
    parser.add_argument("--conf_dir", type=Path, required=True, help="a recipe's conf/")
    parser.add_argument("--train_hours", type=float, required=True, help="speech to train on")
    parser.add_argument("--valid_hours", type=float, required=True, help="speech to validate on")
    parser.add_argument("--speed_factors", default="1.0", help='as in the recipe: "0.9 1.0 1.1"')
    parser.add_argument("--vocab_size", type=int, required=True, help="number of tokens")
    parser.add_argument("--utterance_seconds", type=float, default=12.3, help="mean length")
    parser.add_argument("--tokens_per_second", type=float, default=4.0, help="density of the texts")
    parser.add_argument("--ngpu", type=int, default=0, help="GPUs that share a batch; one measures")
    parser.add_argument("--utterances", type=int, help="in a measured batch")
    parser.add_argument("--updates", type=int, default=2, help="measured of each training")
    parser.add_argument(
        "--processor_seconds",
        action="store_true",
        help="count the time that the process itself computes, on a CPU that others use too",
    )
    parser.add_argument("--out", type=Path, help="JSON file")


def estimate_cost(args: argparse.Namespace) -> None:
    """Measures, and prints the table."""
    from espnet_prune.train.recipe_cost import measured_cost

    print(measured_cost(args))


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--train", type=Path, required=True, help="dump folder of the training set")
    parser.add_argument("--valid", type=Path, required=True, help="that of the development set")
    parser.add_argument("--tokens", type=Path, required=True, help="folder of the tokens")


def _add_ngpu(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ngpu", type=int, default=0, help="0 for the CPU, 1 for a GPU a process")


def _add_system(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--system", type=Path, required=True, help="its folder, which configure made"
    )
    _add_ngpu(parser)
