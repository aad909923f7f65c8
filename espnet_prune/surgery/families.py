"""What surgery, and all above it, ask of a model: which family it is of, and in which format it is.

Families and formats are records that ``espnet_prune.models`` registers; nothing here, or below,
knows one by name. A family says where its models can be cut. A format says how a whole model is
described in a saved folder, and built from that.
"""

import functools
import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from espnet_prune.errors import ModelError
from espnet_prune.sites import DecoderConfig, SiteMap

REGISTRY = "espnet_prune.models"  # has ``families()`` and ``formats()``


@dataclass(frozen=True)
class Layers:
    """Layers of a model that a method of one kind of site gates: matrices, or blocks that attend.

    Attributes:
        model: the module that has them, whose forward is masked.
        layers: name of the site, index of the block and layer of each.
        entries: parts of it that are also run on their own.
    """

    model: nn.Module
    layers: Sequence[tuple[str, int, Any]]
    entries: Sequence[nn.Module] = ()


class Family(ABC):
    """One family of models, or of parts of ESPnet's models.

    Attributes:
        name: in the registry.
        title: what its models are called in errors and texts.
        classes: names of the classes that it knows, and all derived from them.
        prunes_again: whether a model that was cut can be pruned further.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    classes: ClassVar[tuple[str, ...]]
    prunes_again: ClassVar[bool] = False

    @abstractmethod
    def sites(
        self, model: nn.Module, reference_seconds: float, decoder: DecoderConfig | None = None
    ) -> SiteMap:
        """All sites of a model and what they cost; nothing in it is changed.

        Args:
            model: one of this family, or an ESPnet model whose encoder is.
            reference_seconds: length of the utterance that MACs are counted for.
            decoder: given, the sites of its attention decoder are among them.

        Raises:
            ModelError: a part whose cutting rules aren't known; one already cut; float16, or a
                matrix that is tied to another.
        """

    def chooses_decoder(self, model: nn.Module) -> bool:
        """Whether its decoder is pruned only where that is asked for."""
        return False

    def matrices(self, model: nn.Module) -> Layers:
        """The matrices of its attention and feed-forward parts.

        Raises:
            ModelError: as ``sites``; or single weights of such a model can't be zeroed.
        """
        raise ModelError(
            f"{type(model).__name__}: single weights of {self.title} can't be zeroed; choose a "
            "method that prunes units"
        )

    def attentions(self, model: nn.Module) -> Layers:
        """The blocks whose softmax attention can become linear.

        Raises:
            ModelError: as ``sites``; or that of such a model can't.
        """
        raise ModelError(
            f"{type(model).__name__}: attention of {self.title} can't be made linear; choose "
            "another method"
        )


class Format(ABC):
    """One way to describe a whole model in ``model.json``.

    Attributes:
        kind: its name there.
        origins: which trained models it reads, in words; none by default.
    """

    kind: ClassVar[str]
    origins: ClassVar[str] = ""

    @abstractmethod
    def owns(self, model: nn.Module) -> bool:
        """Whether a model is described so."""

    @abstractmethod
    def describe(self, model: nn.Module) -> dict:
        """What rebuilds the model, its plan included, without its weights, as JSON.

        Raises:
            ModelError: it isn't known.
        """

    @abstractmethod
    def build(self, config: Mapping) -> nn.Module:
        """The model of a description, with random weights.

        Raises:
            ModelError: no model can be built of it.
        """

    def is_origin(self, source: str) -> bool:
        """Whether a folder, file or name is that of a trained model which it reads."""
        return False

    def open_origin(self, source: str) -> AbstractContextManager:
        """That model, which then gives itself by ``load()``.

        Raises:
            DataError, ModelError: a file is missing, or the model isn't known.
        """
        raise ModelError(f"{source}: no trained model is read as {self.kind}")

    def remember(self, model: nn.Module) -> None:
        """Keeps with a model what its cut would hide; by default nothing."""
        return

    def clear(self, folder: Path, state: Mapping[str, Tensor]) -> None:
        """Removes what was made of other weights, beside a model that is about to be saved there.

        Args:
            folder: a saved model's.
            state: the weights on the CPU, by name.
        """
        return


@functools.cache
def _families() -> dict[str, Family]:
    found = importlib.import_module(REGISTRY).families()
    return {name: family for family in found for name in family.classes}


@functools.cache
def formats() -> dict[str, Format]:
    """All formats by their kind."""
    return {form.kind: form for form in importlib.import_module(REGISTRY).formats()}


def families() -> list[Family]:
    """All families, each once."""
    return list(dict.fromkeys(_families().values()))


def find_family(module: nn.Module | None) -> Family | None:
    """The family of a module's class, or of the nearest class that it is derived from."""
    names = (kind.__name__ for kind in type(module).__mro__)
    return next((_families()[name] for name in names if name in _families()), None)


def family_of(model: nn.Module) -> Family:
    """The family of a model, or of an ESPnet model's encoder.

    Raises:
        ModelError: none that is known.
    """
    family = find_family(model) or find_family(getattr(model, "encoder", None))
    if family is None:
        known = "; ".join(family.title for family in families())
        what = " with ".join(
            type(part).__name__ for part in (model, getattr(model, "encoder", None)) if part
        )
        raise ModelError(
            f"{what}: can't be pruned; known are {known}. A family is added in espnet_prune/models"
        )
    return family


def format_of(model: nn.Module) -> Format:
    """How a model is described in a saved folder.

    Raises:
        ModelError: no format is its.
    """
    for form in formats().values():
        if form.owns(model):
            return form
    raise ModelError(
        f"{type(model).__name__}: it can't be saved; formats are known of {', '.join(formats())}"
    )
