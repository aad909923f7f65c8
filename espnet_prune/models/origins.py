"""Teachers that were trained elsewhere: which family reads one, and what all give."""

import re
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from espnet_prune.errors import ModelError
from espnet_prune.models.hub import from_hub

ON_HUB = re.compile(r"[\w.-]+/[\w.-]+")


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
            hub, a folder or zip of ESPnet's, a folder of ``espnet_prune.save``, one of
            transformers' ``save_pretrained``, or a name on the hub of what is such a folder.

    Raises:
        ModelError: no kind that is known.
        DataError: there is no such file.
        EnvironmentProblem: the hub can't be reached.
    """
    from espnet_prune.models import families, formats

    readers = (*families(), *formats())
    reader = _reader(source, readers)
    if reader is None and not Path(source).exists() and ON_HUB.fullmatch(source):
        source = str(_from_hub(source))
        reader = _reader(source, readers)
    if reader is not None:
        return reader.open_origin(source)
    known = "; ".join(reader.origins for reader in readers if reader.origins)
    raise ModelError(
        f"--teacher {source}: no kind of model that can be imported; known are {known}. Further "
        "kinds are added by their family in espnet_prune/models/"
    )


def _reader(source: str, readers: Iterable) -> Any:
    """The family or format that reads a source, if one does."""
    return next((reader for reader in readers if reader.is_origin(source)), None)


def _from_hub(name: str) -> Path:
    """The folder of a model that the hub has.

    Raises:
        EnvironmentProblem: the hub can't be reached, or holds no such model.
    """
    from huggingface_hub import snapshot_download

    return from_hub(
        snapshot_download,
        name,
        problem=f"{name}: there is no such folder or file, and it can't be had from the hub",
        remedy="download it where there is internet, and give the folder",
    )
