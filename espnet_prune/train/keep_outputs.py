"""Makes the folders of kept teacher outputs that a training asks for, once for all systems."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from espnet_prune.config import config_hash
from espnet_prune.data.kaldi_dir import read_map
from espnet_prune.data.resume import fingerprint
from espnet_prune.distill import DistillConfig, default_teacher_layers
from espnet_prune.errors import ConfigError
from espnet_prune.job_control import only_writer
from espnet_prune.models.conformer.fast_training import speed_up_training
from espnet_prune.record import MODEL_FILES, contents_digest
from espnet_prune.surgery import load
from espnet_prune.train.calibration import read_utterances
from espnet_prune.train.distributed import processes
from espnet_prune.train.model_outputs import features, outputs
from espnet_prune.train.system_config import StageConfig, SystemConfig
from espnet_prune.train.teacher_outputs import by_name, is_kept, keep
from espnet_prune.train.training import shape_options

logger = logging.getLogger(__name__)
FOLDER = "outputs"  # beside the teacher's model


def keep_outputs(
    config: SystemConfig, stage: StageConfig, distillation: DistillConfig, ngpu: int
) -> tuple[Path, ...]:
    """What the teacher says of every utterance, made where it is missing.

    Args:
        config: the teacher and the data.
        stage: says how text is read.
        distillation: says whether the outputs are kept.
        ngpu: 0 for the CPU.

    Returns:
        A folder for the training and one for the development set; none where outputs aren't kept.

    Raises:
        ConfigError: several processes train together.
        DataError: no statistics of stage 5, without which no training could follow.
    """
    if not distillation.keep_teacher_outputs or not distillation.needs_teacher:
        return ()
    if processes() > 1:
        raise ConfigError(
            "distillation: keep_teacher_outputs: it is for trainings of one process; leave it out"
        )
    shape_options(config.folders.stats)  # fails now, not after the teacher's outputs
    model, tokens = config.teacher / "model", config.folders.tokens
    made = []
    for folder in (config.folders.train, config.folders.valid):
        about = {
            "teacher": contents_digest(model, MODEL_FILES),
            "layers": distillation.teacher_layers,
            "data": fingerprint(folder),
            "tokens": contents_digest(tokens, ("tokens.txt",)),
        }
        out = model.parent / FOLDER / f"{folder.name}.{config_hash(about)}"
        out.mkdir(parents=True, exist_ok=True)
        with only_writer(out):
            if not is_kept(out):
                logger.info("%s: the teacher's outputs are computed once", out)
                names = list(read_map(folder / "text"))
                utterances = read_utterances(stage.training, folder, tokens, names)
                keep(
                    _outputs(load(model), distillation.teacher_layers, utterances, ngpu),
                    len(names),
                    out,
                )
        made.append(out)
    return tuple(made)


@torch.no_grad()
def _outputs(
    teacher: nn.Module,
    layers: Sequence[int],
    utterances: Iterator[tuple[str, Mapping[str, Tensor]]],
    ngpu: int,
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Each utterance's name and outputs, by a pass without padding."""
    teacher = teacher.to("cuda" if ngpu else "cpu").eval()
    speed_up_training(teacher.encoder)
    layers = layers or default_teacher_layers(len(teacher.encoder.encoders))
    for name, batch in utterances:
        batch = {key: value.to("cuda" if ngpu else "cpu") for key, value in batch.items()}
        feats, lengths = features(teacher, batch["speech"], batch["speech_lengths"], augment=False)
        made = outputs(teacher, feats, lengths, batch["text"], batch["text_lengths"])
        yield name, {key: value.cpu() for key, value in by_name(made, layers).items()}
