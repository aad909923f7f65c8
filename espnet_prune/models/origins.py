"""Teachers that were trained elsewhere: what kinds are known, and how each becomes one of ours."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from torch import nn

from espnet_prune.errors import ModelError
from espnet_prune.models.nemo import archive as nemo


class Origin(Protocol):
    """A trained model as somebody else saved it."""

    def write_tokens(self, out: Path) -> list[str]:
        """Writes a folder of tokens as stage 4 makes it, and returns the list."""

    def build(self, tokens: Path) -> nn.Module:
        """The ESPnetASRModel with its weights, by the tokens that ``write_tokens`` wrote."""


@contextmanager
def open_origin(source: str) -> Iterator[Origin]:
    """A teacher by the file or name that a user gives.

    Args:
        source: a ``.nemo`` archive, or the name of one on the hub, such as
            ``nvidia/stt_en_conformer_ctc_small``.

    Raises:
        ModelError: no kind that is known.
        DataError: there is no such file.
        EnvironmentProblem: the hub can't be reached.
    """
    if not nemo.is_nemo(source):
        raise ModelError(
            f"--teacher {source}: no kind of model that can be imported; known are a {nemo.SUFFIX} "
            f"archive, and {nemo.HUB_OWNER}NAME on the hub (a Conformer with CTC). Further kinds "
            "are added in espnet_prune/models/origins.py"
        )
    from espnet_prune.models.nemo.teacher import NemoTeacher

    with nemo.opened(source) as archive:
        yield NemoTeacher(archive)
