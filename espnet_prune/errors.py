"""The errors that users meet: each names the culprit, what was expected, and the remedy."""

USERS_ERROR = 2  # the exit status where the input is wrong


class EspnetPruneError(Exception):
    """Base of every error that is the input's or the machine's fault, not the program's."""


class ConfigError(EspnetPruneError):
    """A configuration key, value or option is wrong."""


class DataError(EspnetPruneError):
    """A data directory, recording or transcript is wrong."""


class ModelError(EspnetPruneError):
    """A model, checkpoint or plan can't be used: wrong keys, shapes, kind or schema."""


class TrainingError(EspnetPruneError):
    """A training can't go on: a loss that is not finite, no batches, a lost checkpoint."""


class TargetMissedError(EspnetPruneError):
    """The reached sparsity is further from the target than the tolerance allows."""


class EnvironmentProblem(EspnetPruneError):
    """The machine lacks something: a program, a package, disk space."""
