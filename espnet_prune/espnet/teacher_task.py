"""The ESPnet task of stages 5 and 6: stock ASR, with the guarded trainer."""

from espnet_prune.espnet import registry  # noqa: F401  (stubs first; spawned processes too)
from espnet_prune.espnet.trainer import GuardedTrainer

from espnet2.tasks.asr import ASRTask  # isort: skip  (after the registry's stubs)


class TeacherTask(ASRTask):
    """Trains the uncompressed model."""

    trainer = GuardedTrainer
