"""Stage 6: the uncompressed model, by ESPnet's own task and trainer."""

import argparse
from pathlib import Path


def train_teacher(args: argparse.Namespace) -> None:
    """Trains, or goes on, or finds it done."""
    from espnet_prune.config import load_yaml
    from espnet_prune.errors import ConfigError
    from espnet_prune.record import finished, mark_finished

    config = load_yaml(args.config)
    made_by = _made_by(args, config)
    if finished(args.out, made_by):
        return
    from espnet_prune.models import family_called
    from espnet_prune.models.espnet.build import build_asr_model
    from espnet_prune.models.espnet.features import sample_rate_of
    from espnet_prune.train.distributed import is_first
    from espnet_prune.train.options import check_training_config
    from espnet_prune.train.system import finish_teacher
    from espnet_prune.train.system_config import Folders
    from espnet_prune.train.teacher_task import TeacherTask
    from espnet_prune.train.training import (
        check_rate,
        longest_seconds,
        run_training,
        token_options,
    )

    checked = check_training_config(TeacherTask, config, str(args.config))
    folders = Folders(args.train, args.valid, args.tokens, args.stats)
    untrained = seconds = None
    if checked.get("max_epoch") == 0:  # as it was pretrained
        family = family_called(checked.get("encoder"))
        if family is None or not family.ready_as_pretrained:
            raise ConfigError(
                f"{args.config}: max_epoch: 0 takes the teacher as it was pretrained, but encoder "
                f"{checked.get('encoder')} would be random, or lack an output layer; train it for "
                "at least one epoch"
            )
        untrained = build_asr_model({**checked, **token_options(args.tokens)}).eval()
    else:
        check_rate(checked, args.train)
        run_training(TeacherTask, checked, folders, args.out / "train", args.ngpu)
        seconds = longest_seconds(args.train, sample_rate_of(checked))
    if not is_first():
        return
    finish_teacher(args.out, config, untrained, seconds)
    mark_finished(args.out, made_by)


def import_teacher(source: str, tokens: Path, out: Path) -> None:
    """A model that was trained elsewhere, as the teacher.

    Args:
        source: as ``open_origin`` takes it.
        tokens: folder of its tokens; made where it is missing.
        out: folder of the teacher.
    """
    from espnet_prune.data.tokens import DESCRIPTION
    from espnet_prune.models.origins import open_origin
    from espnet_prune.train.system import finish_teacher

    with open_origin(source) as origin:
        if not (tokens / DESCRIPTION).exists():
            origin.write_tokens(tokens)
        finish_teacher(out, {"teacher": source}, origin.build(tokens))


def _made_by(args: argparse.Namespace, config: dict) -> dict:
    """What the teacher depends on: configuration, pretrained model, tokens, data folders."""
    from espnet_prune.data.tokens import FILES
    from espnet_prune.record import MODEL_FILES, contents_of

    return {
        **config,
        **contents_of((config.get("encoder_conf") or {}).get("model"), MODEL_FILES),
        **contents_of(str(args.tokens), FILES),
        "train": str(args.train),
        "valid": str(args.valid),
    }
