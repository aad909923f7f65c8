"""Teachers that were trained elsewhere: which family reads one, and what all give."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from torch import nn

from espnet_prune.errors import ModelError


class Origin(Protocol):
    """A trained model as somebody else saved it."""

    def write_tokens(self, out: Path) -> list[str]:
        """Writes a folder of tokens as stage 4 makes it, and returns the list."""

    def build(self, tokens: Path) -> nn.Module:
        """The ESPnetASRModel with its weights, by the tokens that ``write_tokens`` wrote."""


def open_origin(source: str) -> AbstractContextManager[Origin]:
    """A teacher by the file or name that a user gives.

    Args:
        source: what one of the families or formats reads: a ``.nemo`` archive or its name on the
            hub, a folder or zip of ESPnet's, a folder of ``espnet_prune.save``.

    Raises:
        ModelError: no kind that is known.
        DataError: there is no such file.
        EnvironmentProblem: the hub can't be reached.
    """
    from espnet_prune.models import families, formats

    readers = (*families(), *formats())
    for reader in readers:
        if reader.is_origin(source):
            return reader.open_origin(source)
    known = "; ".join(reader.origins for reader in readers if reader.origins)
    raise ModelError(
        f"--teacher {source}: no kind of model that can be imported; known are {known}. Further "
        "kinds are added by their family in espnet_prune/models/"
    )
