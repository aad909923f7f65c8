"""The ESPnet task of stages 5 and 6: stock ASR, with the guarded trainer."""

import argparse

from torch import nn

from espnet_prune.models.conformer.fast_training import speed_up_training
from espnet_prune.models.espnet import choices  # noqa: F401  (stubs first; spawned processes too)
from espnet_prune.models.espnet.build import joined
from espnet_prune.models.whisper.preprocessing import OwnText
from espnet_prune.surgery import sites_of
from espnet_prune.train import schedule
from espnet_prune.train.criterion import check_decoder_for
from espnet_prune.train.trainer import GuardedTrainer

from espnet2.tasks.asr import ASRTask  # isort: skip  (after the stubs)

schedule.register()  # here, so that spawned processes have it, too


class TeacherTask(OwnText, ASRTask):
    """Trains the uncompressed model."""

    trainer = GuardedTrainer

    @classmethod
    def build_model(cls, args: argparse.Namespace) -> nn.Module:
        """ESPnet's model, made ready as its family asks.

        Raises:
            ModelError: no stage after its training could prune it.
            ConfigError: the best epochs are to be chosen by a decoder's number, but it has none.
        """
        model = joined(super().build_model(args))
        sites_of(model)
        check_decoder_for(args, model)
        speed_up_training(model.encoder)
        return model
