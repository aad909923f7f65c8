"""Verbs of the stages that train: statistics, teacher, pruning, cut, finetuning."""

import argparse
from pathlib import Path


def merge_conf_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--over", type=Path, required=True, help="folder of what wins")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument(
        "--config",
        dest="configs",
        nargs=3,
        action="append",
        required=True,
        metavar=("NAME", "FILE", "RESULT"),
        help="one of the recipe's, and what the result is called, without .yaml; several times",
    )


def merge_conf(args: argparse.Namespace) -> None:
    """Writes ``OUT/RESULT.yaml`` for every file that exists."""
    from espnet_prune.train.merge_conf import merge_files

    own = {name: (Path(file), f"{result}.yaml") for name, file, result in args.configs}
    merge_files(own, args.over, args.out)


def list_systems_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--systems", type=Path, required=True, help="systems.yaml")
    parser.add_argument("--only", help="names to choose, separated by spaces; all by default")
    parser.add_argument(
        "--taken",
        action="store_true",
        help="of these only the ones that are taken from another system's ladder",
    )
    parser.add_argument(
        "--compare_with",
        nargs=2,
        metavar=("NAMES", "exp/TAG"),
        help="print these names instead: those that the chosen systems are compared with",
    )


def list_systems(args: argparse.Namespace) -> None:
    """Prints names, for the loops of prune.sh."""
    from espnet_prune.config import load_yaml
    from espnet_prune.train.system_names import compared, system_names, taken_from

    names = system_names(args.systems, args.only)
    if args.taken:
        systems = load_yaml(args.systems)["systems"]
        names = [name for name in names if taken_from(systems[name])]
    if args.compare_with is not None:
        names = compared(args.compare_with[0], names, Path(args.compare_with[1]))
    print(*names)


def collect_stats_arguments(parser: argparse.ArgumentParser) -> None:
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--config", type=Path, help="the teacher's configuration")
    model.add_argument("--teacher", help="shapes alone: this model brings its normalisation")
    _add_data(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder to make")


def collect_stats(args: argparse.Namespace) -> None:
    """Collects, unless it is done already."""
    from espnet_prune.config import load_yaml
    from espnet_prune.stage import finished, mark_finished

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
    from espnet_prune.stage import finished, mark_finished
    from espnet_prune.train.training import write_shapes

    made_by = {"train": str(args.train), "valid": str(args.valid), "teacher": args.teacher}
    if not finished(args.out, made_by):
        write_shapes(args.train, args.valid, args.out)
        mark_finished(args.out, made_by)


def train_teacher_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, required=True, help="the teacher's configuration")
    _add_data(parser)
    _add_training(parser, "folder of the teacher")


def train_teacher(args: argparse.Namespace) -> None:
    """Trains, or goes on, or finds it done."""
    from espnet_prune.train import teacher

    teacher.train_teacher(args)


def import_teacher_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--teacher",
        required=True,
        help="a .nemo archive of a Conformer with CTC, or its name on the hub, such as "
        "nvidia/stt_en_conformer_ctc_small",
    )
    parser.add_argument("--tokens", type=Path, help="folder of its tokens; made beside if missing")
    parser.add_argument("--out", type=Path, required=True, help="folder of the teacher")


def import_teacher(args: argparse.Namespace) -> None:
    """Imports, unless it is done already."""
    from espnet_prune.stage import finished, mark_finished

    made_by = {"teacher": args.teacher}
    if finished(args.out, made_by):
        return
    from espnet_prune.train.teacher import import_teacher as import_from

    import_from(args.teacher, args.tokens or args.out / "tokens", args.out)
    mark_finished(args.out, made_by)


def prune_arguments(parser: argparse.ArgumentParser) -> None:
    _add_system(parser, "prune.yaml")


def prune(args: argparse.Namespace) -> None:
    """Runs, goes on, or finds it done."""
    from espnet_prune.train.system_stage import run_stage

    run_stage("prune", args)


def cut_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--system", type=Path, nargs="+", required=True, help="folders of one or more systems"
    )


def cut(args: argparse.Namespace) -> None:
    """Cuts every system that isn't cut already; one process, since ESPnet's import is slow."""
    for system in args.system:
        _cut(system)


def _cut(system: Path) -> None:
    from espnet_prune.io_atomic import read_json
    from espnet_prune.stage import MARK, finished, mark_finished

    made_by = {"prune": read_json(system / "prune" / MARK)["config"]}
    if finished(system / "cut", made_by):
        return
    from espnet_prune.train.stages import cut_system
    from espnet_prune.train.system import read_record

    difference = cut_system(system)
    mark_finished(system / "cut", made_by)
    record = read_record(system)
    sparsity, size = record["sparsity"], record["weights_bytes"]
    print(
        f"{system.name}: {sparsity['kept']} of {sparsity['total']} prunable "
        f"{sparsity['measure']} kept, sparsity {sparsity['value']:.2%}; masked and cut model "
        f"differ by at most {difference:.1g}; the file of weights has {size['kept']} of "
        f"{size['dense']} bytes"
    )


def finetune_arguments(parser: argparse.ArgumentParser) -> None:
    _add_system(parser, "finetune.yaml")


def finetune(args: argparse.Namespace) -> None:
    """Runs, goes on, or finds it done."""
    from espnet_prune.train.system_stage import run_stage

    run_stage("finetune", args)


def estimate_cost_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description += (
        " Measures a few updates of stages 6, 8 and 10 on noise, with the models, losses and "
        "optimisers of the recipe's configurations, and derives the rest from their numbers of "
        "epochs and batches. A GPU measures whole batches, so that its memory is the trainings' "
        "own; a CPU measures one utterance."
    )
    parser.add_argument("--conf_dir", type=Path, required=True, help="a recipe's conf/")
    parser.add_argument("--train_hours", type=float, required=True, help="of the training set")
    parser.add_argument("--valid_hours", type=float, required=True, help="of the development set")
    parser.add_argument("--speed_factors", default="1.0", help='as in the recipe: "0.9 1.0 1.1"')
    parser.add_argument("--vocab_size", type=int, required=True, help="number of tokens")
    parser.add_argument("--utterance_seconds", type=float, default=12.3, help="mean length")
    parser.add_argument("--tokens_per_second", type=float, default=4.0, help="of the texts")
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


def _add_training(parser: argparse.ArgumentParser, out: str) -> None:
    parser.add_argument("--stats", type=Path, required=True, help="folder of stage 5")
    parser.add_argument("--out", type=Path, required=True, help=out)
    parser.add_argument("--ngpu", type=int, default=0, help="0 for the CPU, 1 for a GPU a process")


def _add_system(parser: argparse.ArgumentParser, config: str) -> None:
    parser.add_argument("--config", type=Path, required=True, help=config)
    parser.add_argument("--systems", type=Path, required=True, help="systems.yaml")
    parser.add_argument("--system", required=True, help="a name in it")
    parser.add_argument("--teacher", type=Path, required=True, help="the teacher's folder")
    _add_data(parser)
    _add_training(parser, "the system's folder")
